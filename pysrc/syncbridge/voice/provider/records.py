"""What SyncBridge asks of a voice provider.

Two rules shape this port. First: **what was not seen is not gone.** A list that is empty, cut short
or could not be read answers `CannotVerify`, a value beside the answer that no caller can overlook;
only a list that is whole and names somebody is a statement. Second: **nothing is repeated here.**
Every call is one attempt with a deadline, out of one budget of requests; the caller, who knows
what the call was for, decides whether to repeat it.

Times are Unix seconds unless a name says otherwise.
"""

from collections.abc import Awaitable, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from syncbridge.voice.provider.events import Event, Unreadable


class Permissions(msgspec.Struct, frozen=True):
    """What a participant may do in a call. Bit rates in bits a second; 0: not allowed."""

    can_speak: bool = True
    can_record: bool = False
    can_stream: bool = False
    can_use_video: bool = False
    max_audio_bitrate: int = 96_000
    max_video_bitrate: int = 1_500_000


class Participant(msgspec.Struct, frozen=True):
    """Who asks for a token."""

    user_id: str
    name: str = ""


class SessionRequest(msgspec.Struct, frozen=True):
    """A call to be opened for one channel.

    Attributes:
        asked_at_ms: when it was first asked for, in Unix ms; 0: not told.
        migrated_from: the session whose participants are to come over, and why; empty: none.
    """

    channel_id: str
    waddle_id: str = ""
    max_participants: int = 100
    recording: bool = False
    transcription: bool = False
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
    """One connection of a user. `peer_id` is empty when the provider tells users only."""

    user_id: str
    peer_id: str = ""
    joined_at: float | None = None


class SessionState(msgspec.Struct, frozen=True):
    """Everybody who is in a call: whole, and not empty."""

    session_id: str
    participants: tuple[Present, ...]
    provider_session_id: str = ""


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


class Doubt(StrEnum):
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
    """Nothing was learnt. `retry_after` in seconds, None when the provider did not say."""

    doubt: Doubt
    detail: str = ""
    retry_after: float | None = None


class Refusal(StrEnum):
    """Why a webhook is not believed. UNVERIFIABLE: our own trouble, ask for it again (503)."""

    MISSING = "missing"
    MALFORMED = "malformed"
    STALE = "stale"
    MISMATCH = "mismatch"
    UNVERIFIABLE = "unverifiable"


class Verified(msgspec.Struct, frozen=True):
    """A webhook that the provider sent. Repeats have the same `delivery_id`.

    `sent_at` is 0 when the provider signs no time: an old body can then be sent again for ever.
    """

    delivery_id: str
    sent_at: float = 0.0


class Refused(msgspec.Struct, frozen=True):
    """A webhook that is not believed."""

    reason: Refusal


class VoiceProvider(Protocol):
    """A provider of calls.

    Methods that change something raise `ProviderError`; those that look answer `CannotVerify`
    instead. None of them repeats a request, waits for the budget, or outlives its deadline.
    """

    def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> Awaitable[ProviderSession]:
        """Open a call; the same key answers the same call, also after an answer that was lost."""

    def issue_token(
        self, session_id: str, participant: Participant, permissions: Permissions
    ) -> Awaitable[IssuedToken]:
        """Let somebody in. Raises SessionNotFound, SessionFull, PermissionDenied."""

    def end_session(self, session_id: str) -> Awaitable[None]:
        """End a call and keep it ended. One that is not there has ended: no error."""

    def list_active(
        self, cursor: str = "", limit: int = 100
    ) -> Awaitable[ActivePage | CannotVerify]:
        """One page of the calls under way. Follow `cursor` until it is empty."""

    def fetch_state(self, session_id: str) -> Awaitable[SessionState | CannotVerify]:
        """Who is in a call now."""

    def fetch_metrics(self, session_id: str) -> Awaitable[Metrics | CannotVerify]:
        """How good a call is now."""

    def kick(self, session_id: str, user_id: str) -> Awaitable[bool]:
        """Remove a user with all connections. False when the user was not in it."""

    def start_recording(self, session_id: str) -> Awaitable[Recording]:
        """Record a call."""

    def register_webhook(self, url: str) -> Awaitable[WebhookRegistration]:
        """Have events sent to `url`; the same URL again answers the same registration."""

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Awaitable[Verified | Refused]:
        """Whether the provider sent this. Header names in lower case."""

    def parse_webhook(self, body: bytes) -> list[Event] | Unreadable:
        """What a believed webhook says. Any bytes have an answer; nothing is raised."""
