"""Messages to the sockets of a channel: a string `type` and members in camelCase.

The shapes follow the specification of session management, sections 4 and 6. `channelId` is the
channel's key until `named` replaces it, when the message leaves the rules.
"""

from collections.abc import Iterable
from typing import Any

from syncbridge.voice.call_records import Event, UserJoined, UserLeft
from syncbridge.voice.records import Room

Message = dict[str, Any]


def named(message: Message, channel_id: str, waddle_id: str) -> Message:
    """A message as sockets see it: with the channel's id and its waddle in place of its key."""
    return message | {"channelId": channel_id, "waddleId": waddle_id}


def state_update(channel_id: str, user_id: str, state: str, **more: Any) -> Message:
    """`voice_state_update`: connected, disconnected, muted or unmuted.

    With a `deviceId`, it is for the user's own devices: held, moving or released.
    """
    return {
        "type": "voice_state_update",
        "userId": user_id,
        "channelId": channel_id,
        "state": state,
        **more,
    }


def held(channel_id: str, user_id: str, device_id: str, **more: Any) -> Message:
    """A device of the user now holds the call."""
    return state_update(channel_id, user_id, "held", deviceId=device_id, **more)


def moving(channel_id: str, user_id: str, device_id: str) -> Message:
    """A device of the user is about to take the call over."""
    return state_update(channel_id, user_id, "moving", deviceId=device_id)


def released(channel_id: str, user_id: str, device_id: str, reason: str) -> Message:
    """A device of the user no longer holds the call: handoff, replaced or left."""
    return state_update(channel_id, user_id, "released", deviceId=device_id, reason=reason)


def is_private(message: Message) -> bool:
    """Whether a message is only for the devices of its user."""
    return "deviceId" in message


def of_events(channel_id: str, events: Iterable[Event]) -> list[Message]:
    """Messages about users who joined and left, in order."""
    told: list[Message] = []
    for event in events:
        if isinstance(event, UserJoined):
            told.append(state_update(channel_id, event.user_id, "connected"))
        elif isinstance(event, UserLeft):
            left = state_update(channel_id, event.user_id, "disconnected", reason=event.reason)
            told.append(left)
    return told


def migration(channel_id: str, old: Room, new: Room, deadline_ms: int) -> Message:
    """`session_migration`: participants must request a token and join the new session."""
    return {
        "type": "session_migration",
        "channelId": channel_id,
        "oldSessionId": old.session_id,
        "newSessionId": new.session_id,
        "reason": "session_migration",
        "cause": new.reason,
        "action": "rejoin_required",
        "deadlineMs": deadline_ms,
    }


def session_ended(channel_id: str, session_id: str, reason: str) -> Message:
    """`session_ended`: the call of a channel has ended."""
    return {
        "type": "session_ended",
        "channelId": channel_id,
        "sessionId": session_id,
        "reason": reason,
    }


def recording_ready(channel_id: str, recording_id: str, duration: float | None) -> Message:
    """`recording_ready`, without the URL, which gives access to the recording."""
    told: Message = {
        "type": "recording_ready",
        "channelId": channel_id,
        "recordingId": recording_id,
    }
    return told if duration is None else {**told, "duration": duration}


def text_ready(channel_id: str, recording_id: str, kind: str) -> Message:
    """`transcript_ready` or `summary_ready`, without the URL."""
    return {
        "type": f"{kind}_ready",
        "channelId": channel_id,
        "recordingId": recording_id,
    }


def recording_failed(channel_id: str, recording_id: str) -> Message:
    """`recording_failed`: there is no recording. Without an id, it did not start."""
    return {
        "type": "recording_failed",
        "channelId": channel_id,
        "recordingId": recording_id,
    }
