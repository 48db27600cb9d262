"""Requests to a voice provider and its answers.

Missing data is no evidence of absence: an empty, truncated or unreadable list is answered with
`CannotVerify`, a separate type that no caller can overlook. Only a complete list with participants
is a statement.

Times are Unix seconds unless a name says otherwise.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec


class Permissions(msgspec.Struct, frozen=True):
    """Permissions of a participant. Bit rates in bits per second; 0: not allowed."""

    can_speak: bool = True
    can_record: bool = False
    can_stream: bool = False
    can_use_video: bool = False
    max_audio_bitrate: int = 96_000
    max_video_bitrate: int = 1_500_000


class TokenHolder(msgspec.Struct, frozen=True):
    """The user for whom a token is issued, and the device if known.

    `transcribed`: the call is transcribed.
    """

    user_id: str
    name: str = ""
    device_id: str = ""
    transcribed: bool = False


class SessionRequest(msgspec.Struct, frozen=True):
    """A request for a session of one channel.

    Attributes:
        features: features to switch on or off, by name (`Feature`).
        asked_at_ms: time of the first request, in Unix ms; 0: unknown.
        migrated_from: the session that migrates to this one; empty: none.
        migration_reason: why it migrates.
    """

    channel_id: str
    waddle_id: str = ""
    max_participants: int = 100
    recording: bool = False
    transcription: bool = False
    features: Mapping[str, bool] = {}
    asked_at_ms: int = 0
    migrated_from: str = ""
    migration_reason: str = ""


class ProviderSession(msgspec.Struct, frozen=True):
    """A session of the provider. Other methods take its `id`."""

    id: str
    key: str = ""


class IssuedToken(msgspec.Struct, frozen=True):
    """A participant's token. `expires_at`: the provider's own limit."""

    token: str
    expires_at: float
    participant_id: str = ""

    def __repr__(self) -> str:
        return f"IssuedToken(participant_id={self.participant_id!r})"


class Present(msgspec.Struct, frozen=True):
    """One connection of a user. Unknown fields are empty or None. `sip`: it is a telephone's."""

    user_id: str
    peer_id: str = ""
    joined_at: float | None = None
    device_id: str = ""
    muted: bool | None = None
    sip: bool = False


class GoneConnection(msgspec.Struct, frozen=True):
    """One connection that the provider records as ended. `left_at`: None if not given."""

    user_id: str
    peer_id: str
    left_at: float | None = None


class SessionState(msgspec.Struct, frozen=True):
    """All participants of a call: complete and not empty.

    Attributes:
        pending: users who are joining, about whom the state says nothing.
        life: identifies the provider's run since its last start, if known.
        gone: ended connections, if the provider records them.
    """

    session_id: str
    participants: tuple[Present, ...]
    provider_session_id: str = ""
    pending: tuple[str, ...] = ()
    life: str = ""
    gone: tuple[GoneConnection, ...] = ()


class Vacated(msgspec.Struct, frozen=True):
    """The provider's record of a call that everybody left: its ended connections."""

    session_id: str
    gone: tuple[GoneConnection, ...]


class ActiveSession(msgspec.Struct, frozen=True):
    """One entry of the list of active calls."""

    session_id: str
    participants: int
    provider_session_id: str = ""


class ActivePage(msgspec.Struct, frozen=True):
    """A page of active calls. `cursor` is empty on the last one."""

    sessions: tuple[ActiveSession, ...]
    cursor: str = ""


class Metrics(msgspec.Struct, frozen=True):
    """Quality of a call: packets, milliseconds, milliseconds, bits per second."""

    packets_lost: float
    jitter: float
    latency: float
    bandwidth: float


class Recording(msgspec.Struct, frozen=True):
    """A recording that was started."""

    id: str
    status: str = ""


class WebhookRegistration(msgspec.Struct, frozen=True):
    """A registered webhook URL."""

    id: str
    url: str


class VerifyFailure(StrEnum):
    """Why an answer verifies nothing."""

    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    EMPTY = "empty"
    PARTIAL = "partial"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"


class CannotVerify(msgspec.Struct, frozen=True):
    """An answer that verifies nothing. `retry_after` in seconds, None if not given.

    `life`: as for `SessionState`. The provider's capabilities define the meaning of EMPTY.
    """

    doubt: VerifyFailure
    detail: str = ""
    retry_after: float | None = None
    life: str = ""


class RefusalReason(StrEnum):
    """Why a webhook is refused. UNVERIFIABLE: a failure of ours; answer 503 for a redelivery."""

    MISSING = "missing"
    MALFORMED = "malformed"
    STALE = "stale"
    MISMATCH = "mismatch"
    UNVERIFIABLE = "unverifiable"


class Verified(msgspec.Struct, frozen=True):
    """A verified webhook. Redeliveries have the same `delivery_id`.

    `sent_at` is 0 if the provider signs no time; an old body can then be replayed for ever.
    `redact`: removes secrets from a body for storage, if there are any.
    """

    delivery_id: str
    sent_at: float = 0.0
    redact: Callable[[bytes], bytes] | None = None


class WebhookRefused(msgspec.Struct, frozen=True):
    """A webhook with an invalid signature."""

    reason: RefusalReason
