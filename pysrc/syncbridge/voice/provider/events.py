"""What a voice provider reports in its webhooks, whichever dialect it speaks."""

from enum import StrEnum

import msgspec


class LeaveReason(StrEnum):
    """Why a connection ended. REPLACED: by another one of the same device, which follows."""

    LEFT = "left"
    REPLACED = "replaced"
    REMOVED = "removed"
    LOST = "lost"
    CLOSED = "closed"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    UNKNOWN = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened in a call.

    `session_id` is the call as `create_session` named it; `provider_session_id` one occupancy of
    it, empty where the provider has no such thing. `occurred_at` in Unix seconds, None if untold.
    """

    session_id: str
    provider_session_id: str = ""
    occurred_at: float | None = None


class SessionStarted(Event, frozen=True):
    """The first participant came."""


class SessionEnded(Event, frozen=True):
    """The call, or this occupancy of it, is over."""

    reason: str = ""


class ParticipantJoined(Event, frozen=True):
    """One connection of a user was made. Of `peer_id` only equality means anything."""

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
    """A user began or ceased to speak."""

    user_id: str
    is_speaking: bool


class RecordedKind(StrEnum):
    """What can be fetched of a call afterwards."""

    RECORDING = "recording"
    TRANSCRIPT = "transcript"
    SUMMARY = "summary"


class RecordingReady(Event, frozen=True):
    """A recording, or what was made of the call, can be fetched.

    `url` is a secret: it needs no other key. It holds until `expires_at` (Unix seconds, None:
    untold).
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
    """An event that means nothing to us; it is answered like every other one."""

    kind: str


class UnreadableWebhook(msgspec.Struct, frozen=True):
    """A body that is no event, or not only such.

    `detail` says in a few words why, and quotes nothing of it. `events`: what can be read of it.
    """

    detail: str
    events: tuple[Event, ...] = ()
