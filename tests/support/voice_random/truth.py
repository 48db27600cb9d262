"""What really happened in the calls of a run, and which reported departures were false.

Pure: no I/O, no clock. The truth is what the stand-in provider knows: who is in which of its rooms,
from when to when. A report is what a device was told. Evidence travels, so a report of a departure
may be heard when its user is back: a report is false when its user had been there, without a break,
for longer than `grace` seconds before it was heard.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

BLINK_S = 0.05
"""Late evidence of a departure and the return is processed together, and announced in order."""
MOVED = "migration"
"""Reason of permitted removals: a user not known to have followed in time is removed. A device that
was away hears no reason; within `REASON_S` another device has heard it."""
REASON_S = 15.0


@dataclass
class Removal:
    """A user was reported gone.

    Attributes:
        at: when that was heard, in seconds. back_at: when the same device heard that the user is
            there; None: it did not.
    """

    at: float
    channel: str
    user: str
    reason: str
    heard_by: str = ""
    back_at: float | None = None


@dataclass
class Stay:
    """A user was in a channel, from `since` to `until`; None: still is."""

    since: float
    until: float | None = None


@dataclass
class Truth:
    """Who was where. Times in seconds, never decreasing.

    A channel may have several rooms while its call moves; a user is in it while in any of them.

    Attributes:
        evicted: (time, room, user, moved) of those whom the service itself shut out, by ending
            their room; `moved`: the channel had a younger room by then.
    """

    stays: dict[tuple[str, str], list[Stay]] = field(default_factory=lambda: defaultdict(list))
    evicted: list[tuple[float, str, str, bool]] = field(default_factory=list)
    _left: set[str] = field(default_factory=set)
    _rooms: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def came(self, channel: str, room: str, user: str, at: float) -> None:
        """A user joins a room; a second connection changes nothing."""
        if room in self._left:
            return
        if not self._rooms[channel, user]:
            self.stays[channel, user].append(Stay(at))
        self._rooms[channel, user].add(room)

    def moved(self, room: str, at: float) -> None:
        """The call has left a room: who stays there is not in the call, and need not be shown."""
        self._left.add(room)
        for (channel, user), rooms in list(self._rooms.items()):
            if room in rooms:
                self.went(channel, room, user, at)

    def went(self, channel: str, room: str, user: str, at: float) -> None:
        """A user has left a room, with all connections."""
        rooms = self._rooms[channel, user]
        if rooms == {room}:
            self.stays[channel, user][-1].until = at
        rooms.discard(room)

    def there_since(self, channel: str, user: str, at: float) -> float | None:
        """Since when a user had been there at a time; None if absent."""
        for stay in reversed(self.stays.get((channel, user), [])):
            if stay.since <= at and (stay.until is None or at < stay.until):
                return stay.since
        return None

    def seconds(self, now: float, after: float = 0.0) -> float:
        """How long all users together were in calls until `now`, beyond the first `after` each."""
        held = [stay for stays in self.stays.values() for stay in stays]
        lengths = [(now if stay.until is None else stay.until) - stay.since for stay in held]
        return sum(max(length - after, 0.0) for length in lengths)


def false_removals(truth: Truth, removals: Iterable[Removal], grace: float) -> list[Removal]:
    """Users reported gone although they had been there for longer than `grace` seconds."""
    removals, found = list(removals), []
    moved = defaultdict(list)
    for removal in removals:
        if removal.reason == MOVED:
            moved[removal.channel, removal.user].append(removal.at)
    for removal in removals:
        since = truth.there_since(removal.channel, removal.user, removal.at)
        blink = removal.back_at is not None and removal.back_at - removal.at < BLINK_S
        elsewhere = moved[removal.channel, removal.user]
        if since is None or blink or any(abs(removal.at - at) < REASON_S for at in elsewhere):
            continue
        if removal.at - since > grace:
            found.append(removal)
    return found
