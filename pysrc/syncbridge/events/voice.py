"""The events of a voice channel, from what a change of it tells the sockets."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from syncbridge.events import kinds
from syncbridge.voice.announcements import Message, is_private
from syncbridge.voice.call_records import Phase
from syncbridge.voice.records import ChannelRecord


class VoiceEvent(NamedTuple):
    """An event as it is written: its kind, who is in the call, and its data."""

    kind: str
    user_id: str
    data: msgspec.Struct


def voice_events(record: ChannelRecord, news: Iterable[Message]) -> list[VoiceEvent]:
    """What a change tells, in order. O(news).

    Args:
        record: the channel after it. news: what it tells the sockets.
    """
    told = [found for message in news for found in _events_of(message)]
    return [*_started(record, told), *told]


def _started(record: ChannelRecord, told: list[VoiceEvent]) -> Iterator[VoiceEvent]:
    """A call begins when all who are in it have just come, and nobody was in it before."""
    call, room = record.call, record.room
    if call is None or room is None or call.phase is not Phase.ACTIVE or call.spent_ms:
        return
    came = {event.user_id for event in told if event.kind == "participant.joined"}
    if came and came >= set(call.members):
        yield VoiceEvent("call.started", "", kinds.CallStarted(room.session_id, room.generation))


def _events_of(message: Message) -> Iterator[VoiceEvent]:
    text = _texts(message)
    kind = message["type"]
    if kind == "voice_state_update" and not is_private(message):
        user, state = text("userId"), message.get("state")
        if state == "connected":
            yield VoiceEvent("participant.joined", user, kinds.ParticipantJoined(user))
        elif state == "disconnected":
            left = kinds.ParticipantLeft(user, text("reason"))
            yield VoiceEvent("participant.left", user, left)
    elif kind == "session_ended":
        yield VoiceEvent("call.ended", "", kinds.CallEnded(text("sessionId"), text("reason")))
    elif kind == "session_migration":
        sessions = (text("oldSessionId"), text("newSessionId"))
        moves = kinds.CallMigrating(*sessions, text("cause"), int(message.get("deadlineMs", 0)))
        yield VoiceEvent("call.migrating", "", moves)
    elif kind == "recording_ready":
        ready = kinds.RecordingReady(text("recordingId"), message.get("duration"))
        yield VoiceEvent("recording.ready", "", ready)
    elif kind == "recording_failed":
        yield VoiceEvent("recording.failed", "", kinds.RecordingFailed(text("recordingId")))
    elif kind in ("transcript_ready", "summary_ready"):
        name = kind.replace("_", ".")
        yield VoiceEvent(name, "", kinds.TextReady(text("recordingId")))


def _texts(message: Message) -> Any:
    return lambda name: str(message.get(name) or "")
