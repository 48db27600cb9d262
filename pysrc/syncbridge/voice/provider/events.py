"""Events in a voice provider's webhooks, independent of the dialect."""

from enum import StrEnum

import msgspec


class LeaveReason(StrEnum):
    """Why a connection ended. REPLACED: by another connection of the same device."""

    LEFT = "left"
    REPLACED = "replaced"
    REMOVED = "removed"
    LOST = "lost"
    CLOSED = "closed"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    UNKNOWN = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a call.

    Attributes:
        session_id: the id from `create_session`.
        provider_session_id: one occupancy of the session; empty if the provider has none.
        occurred_at: Unix seconds, None if not given.
    """

    session_id: str
    provider_session_id: str = ""
    occurred_at: float | None = None


class SessionStarted(Event, frozen=True):
    """The first participant joined."""


class SessionEnded(Event, frozen=True):
    """The call, or this occupancy of it, has ended."""

    reason: str = ""


class ParticipantJoined(Event, frozen=True):
    """One connection of a user was made. `peer_id` is opaque."""

    user_id: str
    peer_id: str = ""
    device_id: str = ""


class ParticipantLeft(Event, frozen=True):
    """One connection of a user ended; others of the same user may remain."""

    user_id: str
    peer_id: str = ""
    joined_at: float | None = None
    reason: LeaveReason = LeaveReason.UNKNOWN


class ParticipantSpeaking(Event, frozen=True):
    """A user started or stopped speaking."""

    user_id: str
    is_speaking: bool


class RecordedKind(StrEnum):
    """What can be downloaded after a call."""

    RECORDING = "recording"
    TRANSCRIPT = "transcript"
    SUMMARY = "summary"


class RecordingReady(Event, frozen=True):
    """A recording or a text of the call can be downloaded.

    `url` is a secret, because it alone gives access. It is valid until `expires_at` (Unix seconds,
    None: not given).
    """

    recording_id: str
    url: str = ""
    duration: float | None = None
    kind: RecordedKind = RecordedKind.RECORDING
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"RecordingReady(recording_id={self.recording_id!r})"


class RecordingFailed(Event, frozen=True):
    """There will be no recording."""

    recording_id: str


class OtherEvent(Event, frozen=True):
    """An irrelevant event, which is acknowledged like any other."""

    kind: str


class UnreadableWebhook(msgspec.Struct, frozen=True):
    """A body that is not an event, or not entirely.

    `detail`: the reason in a few words, without quotes from it. `events`: the readable events.
    """

    detail: str
    events: tuple[Event, ...] = ()
