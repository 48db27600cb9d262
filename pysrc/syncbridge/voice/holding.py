"""Which of a user's devices holds a call, and how the call moves from one to another.

Theory of operation. A user is in a call by connections that the provider knows; which device made
one, only the devices can tell. The device that *holds* the call is the one that reported from
within it. Another one takes it over when it is the first to report a connection, or when the
session was handed over to it: then it is noted as `moving_to`, the one that holds the call
stays in it, and the call has moved as soon as the new device is in the media: it reports, or the
provider shows a new connection of the user beside those that were there. One that comes in the
place of another is the old device's, which has reconnected, and says nothing. When that shows
beside the old one for a moment, the call has moved by mistake: the old device takes it back by
reporting this very connection, unless the new one has reported. A move that does not come about is
forgotten after a while, and nothing has changed.

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
"""A connection that comes so soon after another one went has taken its place."""


class Media(NamedTuple):
    """A user's connections: all, and those of the present session that nothing speaks against."""

    held: frozenset[str]
    standing: frozenset[str]


class ClientReport(msgspec.Struct, frozen=True):
    """What a client says of itself: that it is in the call, with which device and connection.

    Attributes:
        session_id: the provider's session that it is in; empty when it does not say.
        muted, video: None: as it was.
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
    """Note the switches of a report. What others are told of it."""
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
    """Let the device of a report hold the call, if it may. `fresh`: its connection is a new one."""
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
    """A device got a token: it will hold the call, unless another one says that it does."""
    if device_id and (participant.guessed or not participant.device_id):
        participant.device_id, participant.sid, participant.guessed = device_id, sid, True


def holds(participant: Participant | None, report: ClientReport) -> bool:
    """Whether the device of a report may be the one that holds the call."""
    if participant is None or participant.guessed or not participant.device_id:
        return True
    return (participant.device_id, participant.sid) == (report.device_id, report.sid)


def release(
    channel_id: str, participant: Participant | None, report: ClientReport
) -> list[Message]:
    """The device that holds the call says that it has left it."""
    if participant is None or not participant.device_id or not holds(participant, report):
        return []
    participant.device_id, participant.sid, participant.guessed = "", "", False
    participant.arrival = None
    return [announcements.released(channel_id, report.user_id, report.device_id, "left")]


def begin_move(participant: Participant, device_id: str, sid: str, until: int) -> None:
    """A device is about to take the call over; it has until `until`."""
    participant.moving_to, participant.moving_sid, participant.moving_until = device_id, sid, until


def new_connection(participant: Participant, before: Media, after: Media, now: int) -> str:
    """The connection that came beside those that stand; empty if none did. Notes what went.

    Each that went accounts for one that came, unless no device holds the call: then whoever held
    it has said that it is out.
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
    """The device that was awaited is in the media, by the provider's word of a connection."""
    arrival = Arrival(
        connection_id, participant.device_id, participant.sid, participant.moving_until
    )
    told = _hold(
        channel_id, user_id, participant, participant.moving_to, participant.moving_sid, "handoff"
    )
    participant.arrival = arrival if arrival.device_id else None
    return told


def expire_moves(channel_id: str, participants: Participants, now: int) -> list[Message]:
    """Forget the moves that did not come about in time."""
    told = []
    for user_id, participant in participants.items():
        if participant.moving_to and participant.moving_until <= now:
            begin_move(participant, "", "", 0)
            told.append(
                announcements.held(channel_id, user_id, participant.device_id, reason="expired")
            )
    return told


def clear(participant: Participant) -> None:
    """The user is not in the call: no device holds it, and switches are as for a newcomer."""
    begin_move(participant, "", "", 0)
    participant.device_id, participant.sid, participant.guessed = "", "", False
    participant.lost_at, participant.arrival = 0, None
    participant.muted = participant.video = False


def next_due(participants: Participants) -> list[int]:
    """When moves are forgotten. O(participants)."""
    return [
        participant.moving_until for participant in participants.values() if participant.moving_to
    ]


def has_new_connection(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    """Whether a connection has come; a name for the one that had none is no new connection."""
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
    """Whether the connection that completed a move is that of the device that held the call."""
    arrival = participant.arrival
    if arrival is None or not report.connection_id:
        return False
    mine = (arrival.device_id, arrival.sid, arrival.connection_id)
    return mine == (report.device_id, report.sid, report.connection_id)


def _take_back(channel_id: str, participant: Participant, report: ClientReport) -> list[Message]:
    """The device holds the call again, and the other one is waited for as before."""
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
