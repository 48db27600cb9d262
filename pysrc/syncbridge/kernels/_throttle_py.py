"""The pure twin of `syncbridge_core.throttle`: limits how often changes of speakers are reported.

What is stored. Each participant with state has one entry: the last report (`wanted`), the last
result handed out (`told`), and a place in one of three queues. A fourth queue holds the leases of
reported speakers.

* READY: `wanted` differs from `told` and nothing forbids to say so; `collect` hands it out.
* WINDOW: a change was handed out less than `interval_ms` ago; nothing more until its end.
* RESTING: the participant is quiet and nothing waits, but less than REST_WINDOWS windows ago was
  still speaking. Then a rested one is forgotten.
* none of them: `told` is right, and the participant speaks.

Who was reported as quiet for a while, or as speaking, and now changes is RESTED: that is news. A
participant that changes all the time only has CHANGED, which a caller may delay if sending is
expensive. Reports count, not the results handed out.

Invariant. All windows have one length and all leases have one length, and time does not go back
(a smaller `now` counts as the largest seen). So appending keeps both queues sorted by their ends:
a report costs O(1), `collect` costs O(changes and ends that are due), and no heap is needed. Those
who rest are nearly sorted, as windows may be closed out of turn by a report; it may cost one of
them a little patience to be forgotten, and nothing else depends on it.

At the end of a window, its last report is compared with `told`: so a "stopped" cannot be lost, and
reports that cancel out are not sent. The twin keeps its queues in ordered dicts, the kernel in
linked nodes; one suite holds them together.
"""

from collections import OrderedDict
from enum import IntEnum
from itertools import islice

__all__ = ["CHANGED", "RESTED", "REST_WINDOWS", "Throttle"]

Participant = str | bytes
Batch = list[tuple[Participant, bool]]

CHANGED, RESTED = 1, 2
"""Answers to a report by which a change can be handed out; RESTED: the first in REST_WINDOWS."""

REST_WINDOWS = 4


class _Place(IntEnum):
    NONE = 0
    READY = 1
    WINDOW = 2
    RESTING = 3


class _Entry:
    """One participant of one channel. `due`: end of the window, `rested`: of the rest, in ms.

    `news`: when `wanted` became what it is, the rest was over.
    """

    __slots__ = ("channel", "due", "news", "participant", "place", "rested", "told", "wanted")

    def __init__(self, channel: int, participant: Participant) -> None:
        self.channel = channel
        self.participant = participant
        self.told = False
        self.wanted = False
        self.place = _Place.NONE
        self.due = 0
        self.rested = 0
        self.news = False


class Throttle:
    """Speaking states of the participants of many channels.

    `interval_ms`: least time between two changes of one participant. `clear_ms`: a speaker without
    a report for this time has stopped. The two bounds are counts; over them a report is refused and
    counted in `refused`. Raises ValueError unless all four are at least 1.
    """

    def __init__(
        self,
        interval_ms: int = 250,
        clear_ms: int = 2000,
        max_participants: int = 1024,
        max_channels: int = 65536,
    ) -> None:
        if min(interval_ms, clear_ms, max_participants, max_channels) < 1:
            raise ValueError("every argument must be at least 1")
        self.interval_ms = interval_ms
        self.clear_ms = clear_ms
        self.max_participants = max_participants
        self.max_channels = max_channels
        self.refused = 0
        self.held = 0
        self._clock = 0
        self._channels: dict[int, dict[Participant, _Entry]] = {}
        self._ready: OrderedDict[_Entry, None] = OrderedDict()
        self._windows: OrderedDict[_Entry, None] = OrderedDict()
        self._leases: OrderedDict[_Entry, int] = OrderedDict()
        self._resting: OrderedDict[_Entry, None] = OrderedDict()

    @property
    def channels(self) -> int:
        """Number of channels with state."""
        return len(self._channels)

    def report(self, channel: int, participant: Participant, speaking: bool, now: int) -> int:
        """Record a report of a participant at `now` (integer ms). O(1).

        Returns CHANGED or RESTED when a change of this participant can be handed out, so that
        `collect` is to be called, in this tick or a later one; else 0.
        Raises TypeError for a participant that is neither str nor bytes.
        """
        self._clock = now = max(now, self._clock)
        entry = self._channels.get(channel, {}).get(participant)
        if entry is None:
            entry = self._admit(channel, participant) if speaking else None
            if entry is None:
                return 0
        self._leases.pop(entry, None)
        if speaking:
            self._leases[entry] = now + self.clear_ms
        self._want(entry, bool(speaking), now)
        self._settle(entry, now)
        if entry.place is not _Place.READY:
            return 0
        return RESTED if entry.news else CHANGED

    def collect(self, now: int) -> list[tuple[int, Batch]]:
        """Return the changes due at `now`: one batch per channel, each participant at most once."""
        self._clock = now = max(now, self._clock)
        while self._leases and next(iter(self._leases.values())) <= now:
            entry, _ = self._leases.popitem(last=False)
            self._want(entry, False, now)
            self._settle(entry, now)
        while self._windows and (entry := next(iter(self._windows))).due <= now:
            self._settle(entry, now)
        while self._resting and (entry := next(iter(self._resting))).rested <= now:
            del self._resting[entry]
            self._forget(entry)
        batches: dict[int, Batch] = {}
        while self._ready:
            entry, _ = self._ready.popitem(last=False)
            entry.told, entry.place = entry.wanted, _Place.WINDOW
            entry.due = now + self.interval_ms
            self._windows[entry] = None
            batches.setdefault(entry.channel, []).append((entry.participant, entry.told))
        return list(batches.items())

    def next_due(self) -> int | None:
        """When `collect` next has work, in ms; None: nothing is held that time could change."""
        if self._ready:
            return self._clock
        windows = [entry.due for entry in islice(self._windows, 1)]
        leases = list(islice(self._leases.values(), 1))
        rests = [entry.rested for entry in islice(self._resting, 1)]
        return min(windows + leases + rests, default=None)

    def drop(self, channel: int, participant: Participant | None = None) -> int:
        """Forget a participant, or the whole channel, without reporting a change. How many were
        held."""
        entries = self._channels.get(channel, {})
        if participant is None:
            gone = list(entries.values())
        else:
            gone = [entries[participant]] if participant in entries else []
        for entry in gone:
            for queue in (self._ready, self._windows, self._leases, self._resting):
                queue.pop(entry, None)
            self._forget(entry)
        return len(gone)

    def snapshot(self, channel: int) -> list[Participant]:
        """The speakers that listeners know of, for a newcomer."""
        entries = self._channels.get(channel, {}).values()
        return [entry.participant for entry in entries if entry.told]

    def _admit(self, channel: int, participant: Participant) -> _Entry | None:
        """A new entry, or None over a bound."""
        if type(participant) not in (str, bytes):
            raise TypeError("a participant is str or bytes")
        entries = self._channels.get(channel)
        full = len(self._channels) >= self.max_channels if entries is None else False
        if full or (entries is not None and len(entries) >= self.max_participants):
            self.refused += 1
            return None
        entry = _Entry(channel, participant)
        self._channels.setdefault(channel, {})[participant] = entry
        self.held += 1
        return entry

    def _want(self, entry: _Entry, speaking: bool, now: int) -> None:
        """Note what was reported, and whether it is news."""
        if entry.wanted == speaking:
            return
        entry.wanted = speaking
        entry.news = now >= entry.rested
        entry.rested = now + REST_WINDOWS * self.interval_ms

    def _settle(self, entry: _Entry, now: int) -> None:
        """Put an entry into the queue where it belongs at `now`, or forget it."""
        if entry.place is _Place.WINDOW:
            if entry.due > now:
                return
            del self._windows[entry]
            entry.place = _Place.NONE
        if entry.place is not _Place.READY and entry.wanted != entry.told:
            self._resting.pop(entry, None)
            self._ready[entry] = None
            entry.place = _Place.READY
        elif entry.place is _Place.READY and entry.wanted == entry.told:
            del self._ready[entry]
            entry.place = _Place.NONE
        if entry.place is _Place.NONE and not entry.told:
            self._rest(entry, now)

    def _rest(self, entry: _Entry, now: int) -> None:
        """Remember a quiet participant until rested; at once for one who is."""
        if entry.rested <= now:
            self._forget(entry)
            return
        entry.place = _Place.RESTING
        self._resting[entry] = None

    def _forget(self, entry: _Entry) -> None:
        entries = self._channels[entry.channel]
        del entries[entry.participant]
        self.held -= 1
        if not entries:
            del self._channels[entry.channel]
