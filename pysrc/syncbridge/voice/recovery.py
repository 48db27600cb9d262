"""The table of recoveries: our action and the client's error for each error of a voice provider.

Two documents describe the provider's errors with different names; `ProviderCode` has all of them.
An unknown code counts as a failure of the provider (`ProviderUnavailable`), like an invalid answer.

A client gets our error text, never the provider's. If our own credentials are refused, the client
is told that the provider is unavailable, and the log tells the operator why. An error that may be
retried has a retry time.
"""

from enum import StrEnum

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice.provider.errors import ProviderCode, ProviderError


class RecoveryAction(StrEnum):
    """The server's own action before the client gets an error."""

    RECREATE = "recreate the room once and ask its participants to rejoin"
    REISSUE = "issue another token once"
    WAIT = "send no request before the time that the provider named"
    BREAK = "count it for the circuit breaker; locally signed tokens are still issued"
    RETRY = "retry idempotent requests a few times with full jitter"
    REPORT = "none: it would fail again"


class Recovery(msgspec.Struct, frozen=True):
    """One row. `retry_after`: default retry time in seconds; None: do not retry."""

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
        "The voice service refused the server. The operator was notified.",
        60.0,
        True,
    ),
    ProviderCode.INVALID_REQUEST: Recovery(
        RecoveryAction.REPORT, AWAY, "The voice service rejected the request.", 60.0, True
    ),
    ProviderCode.SESSION_FULL: Recovery(
        RecoveryAction.REPORT, ErrorCode.VOICE_FULL, "The call is full.", 30.0
    ),
    ProviderCode.DEVICE_ERROR: Recovery(
        RecoveryAction.REPORT,
        ErrorCode.DEVICE_ERROR,
        "Your microphone or camera failed: allow access to it, then join again.",
    ),
}
"""All codes of both documents. `operator`: logged as an error, because it needs an operator."""


def recovery_of(error: ProviderError) -> Recovery:
    """The row for an error."""
    return TABLE[error.code]


def told_of(error: ProviderError) -> SyncBridgeError:
    """The client's error, with the provider's code as `providerCode`."""
    row = TABLE[error.code]
    seconds = error.retry_after if error.retry_after is not None else row.retry_after
    return SyncBridgeError(row.code, row.told, retry_after=seconds, providerCode=error.code.value)
