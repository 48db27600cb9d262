"""What a voice provider is asked, and what it answers.

What was not seen is not gone: a list that is empty, cut short or could not be read is answered with
`CannotVerify`, a value beside the answer that no caller can overlook; only a list that is whole and
names somebody is a statement.

Times are Unix seconds unless a name says otherwise.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec


class Permissions(msgspec.Struct, frozen=True):
    """What a participant may do in a call. Bit rates in bits a second; 0: not allowed."""

    can_speak: bool = True
    can_record: bool = False
    can_stream: bool = False
    can_use_video: bool = False
    max_audio_bitrate: int = 96_000
    max_video_bitrate: int = 1_500_000


class TokenHolder(msgspec.Struct, frozen=True):
    """Who asks for a token, and with which device, where that is known.

    `transcribed`: the call is to be written down.
    """

    user_id: str
    name: str = ""
    device_id: str = ""
    transcribed: bool = False


class SessionRequest(msgspec.Struct, frozen=True):
    """A call to be opened for one channel.

    Attributes:
        features: further ones that are asked for or not wanted, by name (`Feature`).
        asked_at_ms: when it was first asked for, in Unix ms; 0: not told.
        migrated_from: the session whose participants are to come over, and why; empty: none.
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
    """A call that the provider knows. `id` is what every other method takes."""

    id: str
    key: str = ""


class IssuedToken(msgspec.Struct, frozen=True):
    """A participant's way in. `expires_at` is the provider's own limit."""

    token: str
    expires_at: float
    participant_id: str = ""

    def __repr__(self) -> str:
        return f"IssuedToken(participant_id={self.participant_id!r})"


class Present(msgspec.Struct, frozen=True):
    """One connection of a user. What the provider does not tell is empty or None.

    `sip`: it is a telephone's.
    """

    user_id: str
    peer_id: str = ""
    joined_at: float | None = None
    device_id: str = ""
    muted: bool | None = None
    sip: bool = False


class GoneConnection(msgspec.Struct, frozen=True):
    """One connection that the provider records as over, since when (None: not told)."""

    user_id: str
    peer_id: str
    left_at: float | None = None


class SessionState(msgspec.Struct, frozen=True):
    """Everybody who is in a call: whole, and not empty.

    Attributes:
        pending: users who are on their way in: nothing is said about them, neither way.
        life: names the time since the provider's last start, where that is known.
        gone: connections that were in it, where the provider keeps a record of them.
    """

    session_id: str
    participants: tuple[Present, ...]
    provider_session_id: str = ""
    pending: tuple[str, ...] = ()
    life: str = ""
    gone: tuple[GoneConnection, ...] = ()


class Vacated(msgspec.Struct, frozen=True):
    """The provider's record of a call that everybody has left: who was there, and is gone."""

    session_id: str
    gone: tuple[GoneConnection, ...]


class ActiveSession(msgspec.Struct, frozen=True):
    """One line of the list of calls under way."""

    session_id: str
    participants: int
    provider_session_id: str = ""


class ActivePage(msgspec.Struct, frozen=True):
    """A page of calls under way. `cursor` is empty after the last one."""

    sessions: tuple[ActiveSession, ...]
    cursor: str = ""


class Metrics(msgspec.Struct, frozen=True):
    """Quality of a call: packets, milliseconds, milliseconds, bits a second."""

    packets_lost: float
    jitter: float
    latency: float
    bandwidth: float


class Recording(msgspec.Struct, frozen=True):
    """A recording that was started."""

    id: str
    status: str = ""


class WebhookRegistration(msgspec.Struct, frozen=True):
    """Where the provider reports to."""

    id: str
    url: str


class VerifyFailure(StrEnum):
    """Why an answer is no statement."""

    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    EMPTY = "empty"
    PARTIAL = "partial"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"


class CannotVerify(msgspec.Struct, frozen=True):
    """Nothing was learnt. `retry_after` in seconds, None when the provider did not say.

    `life`: as of `SessionState`; what EMPTY is worth then, the provider's capabilities say.
    """

    doubt: VerifyFailure
    detail: str = ""
    retry_after: float | None = None
    life: str = ""


class RefusalReason(StrEnum):
    """Why a webhook is not believed. UNVERIFIABLE: our own trouble, ask for it again (503)."""

    MISSING = "missing"
    MALFORMED = "malformed"
    STALE = "stale"
    MISMATCH = "mismatch"
    UNVERIFIABLE = "unverifiable"


class Verified(msgspec.Struct, frozen=True):
    """A webhook that the provider sent. Repeats have the same `delivery_id`.

    `sent_at` is 0 when the provider signs no time: an old body can then be sent again for ever.
    `redact`: makes of a body what may be stored, where bodies have secrets in them.
    """

    delivery_id: str
    sent_at: float = 0.0
    redact: Callable[[bytes], bytes] | None = None


class WebhookRefused(msgspec.Struct, frozen=True):
    """A webhook that is not believed."""

    reason: RefusalReason
