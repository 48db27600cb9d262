"""Tracks which of a user's devices holds a call, and moves the call between devices.

Theory of operation. A user is in a call through connections that the provider knows; only the
devices know which of them made which connection. The device that *holds* the call is the one that
reported from within it. Another device takes over if it is the first to report a connection, or if
the session was handed over to it. In a handoff, the new device is noted as `moving_to` and the old
device keeps the call. The call has moved when the new device is in the media: when it reports, or
when the provider shows a new connection of the user besides the existing ones. A connection that
takes the place of another is a reconnection of the old device and moves nothing. If a reconnection
shows for a moment besides the old connection, the call moves by mistake; the old device takes it
back by reporting that connection, unless the new device has reported. A move that does not complete
in time is dropped without effect.

Times are Unix ms.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from syncbridge.voice import announcements
from syncbridge.voice.announcements import Message
from syncbridge.voice.records import Arrival, Participant

Participants = Mapping[str, Participant]
RECONNECT_MS = 10_000
"""A connection that comes this soon after another one went has taken its place."""


class Media(NamedTuple):
    """A user's connections: all, and those of the current session without a negative."""

    held: frozenset[str]
    standing: frozenset[str]


class ClientReport(msgspec.Struct, frozen=True):
    """A client's report that it is in the call, or left it, with its device and connection.

    Attributes:
        session_id: the provider's session that it is in; empty if not given.
        muted, video: None: unchanged.
    """

    user_id: str
    device_id: str
    sid: str
    connection_id: str = ""
    session_id: str = ""
    muted: bool | None = None
    video: bool | None = None


def apply_switches(
    channel_id: str, participant: Participant, report: ClientReport
) -> list[Message]:
    """Store a report's mute and video switches; returns the messages to others."""
    if report.video is not None:
        participant.video = report.video
    if report.muted is None or report.muted == participant.muted:
        return []
    participant.muted = report.muted
    state = "muted" if participant.muted else "unmuted"
    return [announcements.state_update(channel_id, report.user_id, state)]


def claim(
    channel_id: str, participant: Participant, report: ClientReport, *, fresh: bool
) -> list[Message]:
    """Let the reporting device hold the call, if it may. `fresh`: its connection is new."""
    if participant.guessed:
        participant.device_id, participant.sid, participant.guessed = "", "", False
    if (participant.device_id, participant.sid) == (report.device_id, report.sid):
        participant.arrival = None
        return []
    if _lost_by_mistake(participant, report):
        return _take_back(channel_id, participant, report)
    awaited = (participant.moving_to, participant.moving_sid) == (report.device_id, report.sid)
    if participant.device_id and not awaited and not fresh:
        return []
    reason = "handoff" if awaited else "replaced"
    return _hold(channel_id, report.user_id, participant, report.device_id, report.sid, reason)


def assume(participant: Participant, device_id: str, sid: str) -> None:
    """Assume that the device that got a token will hold the call, until a device reports."""
    if device_id and (participant.guessed or not participant.device_id):
        participant.device_id, participant.sid, participant.guessed = device_id, sid, True


def holds(participant: Participant | None, report: ClientReport) -> bool:
    """Whether the reporting device may be the one that holds the call."""
    if participant is None or participant.guessed or not participant.device_id:
        return True
    return (participant.device_id, participant.sid) == (report.device_id, report.sid)


def release(
    channel_id: str, participant: Participant | None, report: ClientReport
) -> list[Message]:
    """Release the call if the device that holds it reports that it left."""
    if participant is None or not participant.device_id or not holds(participant, report):
        return []
    participant.device_id, participant.sid, participant.guessed = "", "", False
    participant.arrival = None
    return [announcements.released(channel_id, report.user_id, report.device_id, "left")]


def begin_move(participant: Participant, device_id: str, sid: str, until: int) -> None:
    """Begin a move of the call to a device, which has time until `until`."""
    participant.moving_to, participant.moving_sid, participant.moving_until = device_id, sid, until


def new_connection(participant: Participant, before: Media, after: Media, now: int) -> str:
    """The new connection besides the existing ones; empty if there is none. Notes lost ones.

    Each lost connection accounts for one new connection, unless no device holds the call: then the
    old device has reported that it left.
    """
    came = sorted(one for one in after.standing - before.held if one)
    went = len(before.standing - after.standing)
    late = bool(participant.lost_at) and now - participant.lost_at < RECONNECT_MS
    if went + late > len(came):
        participant.lost_at = now if went else participant.lost_at
    else:
        participant.lost_at = 0
    if participant.device_id and (not before.standing or len(came) <= went + late):
        return ""
    return came[-1] if came else ""


def complete_move(
    channel_id: str, user_id: str, participant: Participant, connection_id: str
) -> list[Message]:
    """Complete a move because the provider showed a new connection."""
    arrival = Arrival(
        connection_id, participant.device_id, participant.sid, participant.moving_until
    )
    told = _hold(
        channel_id, user_id, participant, participant.moving_to, participant.moving_sid, "handoff"
    )
    participant.arrival = arrival if arrival.device_id else None
    return told


def expire_moves(channel_id: str, participants: Participants, now: int) -> list[Message]:
    """Drop moves that did not complete in time."""
    told = []
    for user_id, participant in participants.items():
        if participant.moving_to and participant.moving_until <= now:
            begin_move(participant, "", "", 0)
            told.append(
                announcements.held(channel_id, user_id, participant.device_id, reason="expired")
            )
    return told


def clear(participant: Participant) -> None:
    """Reset a user who left the call: no device holds it, and the switches are off."""
    begin_move(participant, "", "", 0)
    participant.device_id, participant.sid, participant.guessed = "", "", False
    participant.lost_at, participant.arrival = 0, None
    participant.muted = participant.video = False


def next_due(participants: Participants) -> list[int]:
    """The deadlines of moves. O(participants)."""
    return [
        participant.moving_until for participant in participants.values() if participant.moving_to
    ]


def has_new_connection(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    """Whether a connection came; an id for the unnamed connection is not a new one."""
    new = [one for one in after if one and one not in before]
    named = "" in before and "" not in after
    return len(new) > named


def _hold(
    channel_id: str, user_id: str, participant: Participant, device_id: str, sid: str, reason: str
) -> list[Message]:
    old = participant.device_id
    participant.device_id, participant.sid, participant.guessed = device_id, sid, False
    begin_move(participant, "", "", 0)
    participant.arrival = None
    told = [announcements.held(channel_id, user_id, device_id)]
    if old:
        told.append(announcements.released(channel_id, user_id, old, reason))
    return told


def _lost_by_mistake(participant: Participant, report: ClientReport) -> bool:
    """Whether the connection that completed a move belongs to the old device."""
    arrival = participant.arrival
    if arrival is None or not report.connection_id:
        return False
    mine = (arrival.device_id, arrival.sid, arrival.connection_id)
    return mine == (report.device_id, report.sid, report.connection_id)


def _take_back(channel_id: str, participant: Participant, report: ClientReport) -> list[Message]:
    """Give the call back to the old device and continue to wait for the new one."""
    awaited, until = (
        (participant.device_id, participant.sid),
        participant.arrival.until if participant.arrival else 0,
    )
    participant.device_id, participant.sid, participant.arrival = report.device_id, report.sid, None
    begin_move(participant, *awaited, until)
    return [
        announcements.held(channel_id, report.user_id, report.device_id),
        announcements.moving(channel_id, report.user_id, awaited[0]),
    ]
