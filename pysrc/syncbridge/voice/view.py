"""The public view of a live channel, and the changes that keep each node's copy up to date.

Theory of operation. Every node holds the view of every live channel, so a socket's request about a
call needs no round trip. The node that writes a channel compares its view before and after, and
publishes the `ViewChange` in the news of the write. A change that begins a call is complete; any
other applies to the view of the previous revision, and a node that missed one reads the channel.
The news also have the messages to sockets; after a read, a node derives them from the two views
(`missed_messages`).

Times are Unix ms.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from syncbridge.voice import announcements
from syncbridge.voice.announcements import Message
from syncbridge.voice.call_records import CallLimits, Phase
from syncbridge.voice.records import ChannelRecord, Participant, Room

VIEW = "view"
"""`type` of the message with a ViewChange for nodes; it is not sent to sockets."""


class ParticipantView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A participant of a call.

    Attributes:
        device_id, sid: the device that holds the call, and its session; empty if unknown.
        moving_to: the device that is taking over the call.
    """

    joined_at: int
    device_id: str = ""
    sid: str = ""
    moving_to: str = ""
    muted: bool = False
    video: bool = False


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The data of the whole call."""

    session_id: str
    generation: int
    phase: Phase
    waddle_id: str = ""


class View(msgspec.Struct, frozen=True):
    """The view of a live channel, immutable."""

    head: Head
    participants: Mapping[str, ParticipantView]


class ViewChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change from one view to the next.

    Attributes:
        whole: complete, independent of the previous view. ended: the call has ended.
        head: the new head, if it changed. present: new or changed participants. gone: who left.
    """

    whole: bool = False
    ended: bool = False
    head: Head | None = None
    present: dict[str, ParticipantView] = {}
    gone: list[str] = []


def of_record(record: ChannelRecord) -> View | None:
    """The view of a channel; None when no call is live. O(participants)."""
    call, room = record.call, record.room
    if call is None or room is None or not room.session_id:
        return None
    head = Head(room.session_id, room.generation, call.phase, record.waddle_id)
    people = {
        user_id: _participant(member.since, record.participants.get(user_id))
        for user_id, member in call.members.items()
    }
    return View(head, people)


def _participant(since: int, participant: Participant | None) -> ParticipantView:
    if participant is None:
        return ParticipantView(since)
    return ParticipantView(
        since,
        participant.device_id,
        participant.sid,
        participant.moving_to,
        participant.muted,
        participant.video,
    )


def difference(old: View | None, new: View | None) -> ViewChange | None:
    """The change between two views; None if they are equal. O(participants)."""
    if new is None:
        return None if old is None else ViewChange(ended=True)
    if old is None:
        return ViewChange(whole=True, head=new.head, present=dict(new.participants))
    before = old.participants
    present = {u: p for u, p in new.participants.items() if before.get(u) != p}
    gone = [user_id for user_id in before if user_id not in new.participants]
    head = new.head if new.head != old.head else None
    if head is None and not present and not gone:
        return None
    return ViewChange(head=head, present=present, gone=gone)


def applied(view: View | None, change: ViewChange) -> View | None:
    """The view after a change. Raises ValueError for a change that needs a missing view."""
    if change.ended:
        return None
    if change.whole and change.head is not None:
        return View(change.head, change.present)
    if view is None:
        raise ValueError("a change needs a view that is missing")
    gone = set(change.gone)
    people = {u: p for u, p in view.participants.items() if u not in gone}
    return View(change.head or view.head, people | change.present)


def to_message(change: ViewChange) -> Message:
    """A change as one of the events of a ChannelNews."""
    return {"type": VIEW, **msgspec.to_builtins(change)}


def from_message(message: Message) -> ViewChange:
    """The change in a message of `to_message`. Raises msgspec.ValidationError."""
    return msgspec.convert(message, ViewChange)


def missed_messages(channel_id: str, old: View | None, new: View | None) -> list[Message]:
    """Messages to sockets for the difference between two views whose news were missed."""
    messages: list[Message] = []
    before = old.participants if old is not None else {}
    after = new.participants if new is not None else {}
    if old is not None and new is not None and old.head.generation != new.head.generation:
        messages.append(_migrated(channel_id, old.head, new.head))
    reason = "left" if new is not None else "ended"
    for user_id in before:
        if user_id not in after:
            messages.append(
                announcements.state_update(channel_id, user_id, "disconnected", reason=reason)
            )
    for user_id, person in after.items():
        messages += _changes(channel_id, user_id, before.get(user_id), person)
    if old is not None and new is None:
        messages.append(announcements.session_ended(channel_id, old.head.session_id, "ended"))
    return messages


def _migrated(channel_id: str, old: Head, new: Head) -> Message:
    left = Room(old.generation, "", 0, old.session_id)
    entered = Room(new.generation, "", 0, new.session_id)
    return announcements.migration(channel_id, left, entered, CallLimits().migration_ms)


def _changes(
    channel_id: str, user_id: str, old: ParticipantView | None, new: ParticipantView
) -> list[Message]:
    """Messages about one participant."""
    update = announcements.state_update
    messages = []
    if old is None:
        messages.append(update(channel_id, user_id, "connected"))
    if new.muted != (old is not None and old.muted):
        messages.append(update(channel_id, user_id, "muted" if new.muted else "unmuted"))
    held = old.device_id if old is not None else ""
    if new.device_id and new.device_id != held:
        messages.append(announcements.held(channel_id, user_id, new.device_id))
        if held:
            messages.append(announcements.released(channel_id, user_id, held, "handoff"))
    return messages


def public(
    channel_id: str, view: View, user_id: str, speaking: Collection[str] = ()
) -> dict[str, Any]:
    """A call as shown to a device of `user_id`, without the devices of other users."""
    return {
        "channelId": channel_id,
        "waddleId": view.head.waddle_id,
        "sessionId": view.head.session_id,
        "phase": view.head.phase.value,
        "participants": [
            _public_participant(one, person, one == user_id, one in speaking)
            for one, person in view.participants.items()
        ],
    }


def _public_participant(
    user_id: str, person: ParticipantView, own: bool, speaking: bool
) -> dict[str, Any]:
    members: dict[str, Any] = {
        "userId": user_id,
        "state": "moving" if person.moving_to else "connected",
        "joinedAt": person.joined_at,
        "muted": person.muted,
        "video": person.video,
        "speaking": speaking and not person.muted,
    }
    if own and person.device_id:
        members["deviceId"] = person.device_id
    return members
