"""What we do about each error of a voice provider, and what the client is told: one table.

Two documents describe the provider's errors, in different words and cases; `ProviderCode` has them
all. A code that neither names is the provider's failure (`ProviderUnavailable`) like an answer that
makes no sense.

A client is never told the provider's words, only ours; what our own credentials may not do is our
trouble and not the client's, so it is told that the provider is away, and the operator's log says
why. Whoever may try again is told when.
"""

from enum import StrEnum

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice.provider.errors import ProviderCode, ProviderError


class RecoveryAction(StrEnum):
    """What we do ourselves before a client is told anything."""

    RECREATE = "recreate the room once, and ask its participants to rejoin"
    REISSUE = "issue another token once"
    WAIT = "ask nothing before the time that the provider named"
    BREAK = "count it for the circuit breaker; tokens that we sign ourselves are still given out"
    RETRY = "repeat a few times, with full jitter, what may be repeated"
    REPORT = "nothing: it would fail again"


class Recovery(msgspec.Struct, frozen=True):
    """One row. `retry_after` in seconds, when the provider told none; None: do not repeat."""

    action: RecoveryAction
    code: ErrorCode
    told: str
    retry_after: float | None = None
    operator: bool = False


AWAY = ErrorCode.PROVIDER_UNAVAILABLE
TABLE: dict[ProviderCode, Recovery] = {
    ProviderCode.SESSION_NOT_FOUND: Recovery(
        RecoveryAction.RECREATE, AWAY, "The voice channel is unavailable. Please join again.", 2.0
    ),
    ProviderCode.TOKEN_EXPIRED: Recovery(
        RecoveryAction.REISSUE,
        AWAY,
        "The voice token could not be renewed. Please ask for another.",
        2.0,
    ),
    ProviderCode.RATE_LIMITED: Recovery(
        RecoveryAction.WAIT,
        AWAY,
        "Too many people are joining right now. Please try again later.",
        60.0,
    ),
    ProviderCode.SERVICE_UNAVAILABLE: Recovery(
        RecoveryAction.BREAK, AWAY, "The voice service is unavailable. Please try again later.", 5.0
    ),
    ProviderCode.NETWORK_ERROR: Recovery(
        RecoveryAction.RETRY, AWAY, "The voice service does not answer. Please try again.", 2.0
    ),
    ProviderCode.PERMISSION_DENIED: Recovery(
        RecoveryAction.REPORT,
        AWAY,
        "The voice service refuses us. The operator was told.",
        60.0,
        True,
    ),
    ProviderCode.INVALID_REQUEST: Recovery(
        RecoveryAction.REPORT, AWAY, "The voice service did not understand us.", 60.0, True
    ),
    ProviderCode.SESSION_FULL: Recovery(
        RecoveryAction.REPORT, ErrorCode.VOICE_FULL, "No place is left in the call.", 30.0
    ),
    ProviderCode.DEVICE_ERROR: Recovery(
        RecoveryAction.REPORT,
        ErrorCode.DEVICE_ERROR,
        "Your microphone or camera failed: allow access to it, then join again.",
    ),
}
"""Every code of both documents. `operator`: worth an error in the log, for it does not pass."""


def recovery_of(error: ProviderError) -> Recovery:
    """The row of an error."""
    return TABLE[error.code]


def told_of(error: ProviderError) -> SyncBridgeError:
    """What a client is told. `providerCode` names the provider's code, `retry_after` when."""
    row = TABLE[error.code]
    seconds = error.retry_after if error.retry_after is not None else row.retry_after
    return SyncBridgeError(row.code, row.told, retry_after=seconds, providerCode=error.code.value)
