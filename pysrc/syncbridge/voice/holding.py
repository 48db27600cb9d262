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
from syncbridge.voice.records import Arrival, Guest

Guests = Mapping[str, Guest]
RECONNECT_MS = 10_000
"""A connection that comes so soon after another one went has taken its place."""


class Media(NamedTuple):
    """A user's connections: all, and those of the present session that nothing speaks against."""

    held: frozenset[str]
    standing: frozenset[str]


class Report(msgspec.Struct, frozen=True):
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


def switched(channel_id: str, guest: Guest, report: Report) -> list[Message]:
    """Note the switches of a report. What others are told of it."""
    if report.video is not None:
        guest.video = report.video
    if report.muted is None or report.muted == guest.muted:
        return []
    guest.muted = report.muted
    state = "muted" if guest.muted else "unmuted"
    return [announcements.state_update(channel_id, report.user_id, state)]


def taken(channel_id: str, guest: Guest, report: Report, *, fresh: bool) -> list[Message]:
    """Let the device of a report hold the call, if it may. `fresh`: its connection is a new one."""
    if guest.guessed:
        guest.device_id, guest.sid, guest.guessed = "", "", False
    if (guest.device_id, guest.sid) == (report.device_id, report.sid):
        guest.arrival = None
        return []
    if _was_taken_from(guest, report):
        return _take_back(channel_id, guest, report)
    awaited = (guest.moving_to, guest.moving_sid) == (report.device_id, report.sid)
    if guest.device_id and not awaited and not fresh:
        return []
    reason = "handoff" if awaited else "replaced"
    return _hold(channel_id, report.user_id, guest, report.device_id, report.sid, reason)


def guess(guest: Guest, device_id: str, sid: str) -> None:
    """A device got a token: it will hold the call, unless another one says that it does."""
    if device_id and (guest.guessed or not guest.device_id):
        guest.device_id, guest.sid, guest.guessed = device_id, sid, True


def holds(guest: Guest | None, report: Report) -> bool:
    """Whether the device of a report may be the one that holds the call."""
    if guest is None or guest.guessed or not guest.device_id:
        return True
    return (guest.device_id, guest.sid) == (report.device_id, report.sid)


def let_go(channel_id: str, guest: Guest | None, report: Report) -> list[Message]:
    """The device that holds the call says that it has left it."""
    if guest is None or not guest.device_id or not holds(guest, report):
        return []
    guest.device_id, guest.sid, guest.guessed = "", "", False
    guest.arrival = None
    return [announcements.released(channel_id, report.user_id, report.device_id, "left")]


def begin_move(guest: Guest, device_id: str, sid: str, until: int) -> None:
    """A device is about to take the call over; it has until `until`."""
    guest.moving_to, guest.moving_sid, guest.moving_until = device_id, sid, until


def come_beside(guest: Guest, before: Media, after: Media, now: int) -> str:
    """The connection that came beside those that stand; empty if none did. Notes what went.

    Each that went accounts for one that came, unless no device holds the call: then whoever held
    it has said that it is out.
    """
    came = sorted(one for one in after.standing - before.held if one)
    went = len(before.standing - after.standing)
    late = bool(guest.lost_at) and now - guest.lost_at < RECONNECT_MS
    if went + late > len(came):
        guest.lost_at = now if went else guest.lost_at
    else:
        guest.lost_at = 0
    if guest.device_id and (not before.standing or len(came) <= went + late):
        return ""
    return came[-1] if came else ""


def moved(channel_id: str, user_id: str, guest: Guest, connection_id: str) -> list[Message]:
    """The device that was awaited is in the media, by the provider's word of a connection."""
    arrival = Arrival(connection_id, guest.device_id, guest.sid, guest.moving_until)
    told = _hold(channel_id, user_id, guest, guest.moving_to, guest.moving_sid, "handoff")
    guest.arrival = arrival if arrival.device_id else None
    return told


def stayed(channel_id: str, guests: Guests, now: int) -> list[Message]:
    """Forget the moves that did not come about in time."""
    told = []
    for user_id, guest in guests.items():
        if guest.moving_to and guest.moving_until <= now:
            begin_move(guest, "", "", 0)
            told.append(announcements.held(channel_id, user_id, guest.device_id, reason="expired"))
    return told


def left(guest: Guest) -> None:
    """The user is not in the call: no device holds it, and switches are as for a newcomer."""
    begin_move(guest, "", "", 0)
    guest.device_id, guest.sid, guest.guessed = "", "", False
    guest.lost_at, guest.arrival = 0, None
    guest.muted = guest.video = False


def next_due(guests: Guests) -> list[int]:
    """When moves are forgotten. O(guests)."""
    return [guest.moving_until for guest in guests.values() if guest.moving_to]


def arrived(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    """Whether a connection has come; a name for the one that had none is no new connection."""
    new = [one for one in after if one and one not in before]
    named = "" in before and "" not in after
    return len(new) > named


def _hold(
    channel_id: str, user_id: str, guest: Guest, device_id: str, sid: str, reason: str
) -> list[Message]:
    old = guest.device_id
    guest.device_id, guest.sid, guest.guessed = device_id, sid, False
    begin_move(guest, "", "", 0)
    guest.arrival = None
    told = [announcements.held(channel_id, user_id, device_id)]
    if old:
        told.append(announcements.released(channel_id, user_id, old, reason))
    return told


def _was_taken_from(guest: Guest, report: Report) -> bool:
    """Whether the connection that completed a move is that of the device that held the call."""
    arrival = guest.arrival
    if arrival is None or not report.connection_id:
        return False
    mine = (arrival.device_id, arrival.sid, arrival.connection_id)
    return mine == (report.device_id, report.sid, report.connection_id)


def _take_back(channel_id: str, guest: Guest, report: Report) -> list[Message]:
    """The device holds the call again, and the other one is waited for as before."""
    awaited, until = (guest.device_id, guest.sid), guest.arrival.until if guest.arrival else 0
    guest.device_id, guest.sid, guest.arrival = report.device_id, report.sid, None
    begin_move(guest, *awaited, until)
    return [
        announcements.held(channel_id, report.user_id, report.device_id),
        announcements.moving(channel_id, report.user_id, awaited[0]),
    ]
