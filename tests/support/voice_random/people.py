"""Users who come and go: token, connection, a while in the call, and away; some stay long.

Each user has its own random generator, so a seed gives all users the same intentions; the results
depend on when the servers answer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from support.voice_random.place import Place

HASTE_S = 0.3
"""A visit shorter than this may end before any comparison sees it."""
OBEYS = 0.9
"""Part of the participants that follow when their call moves."""


@dataclass
class Events:
    """Counts events; `over` is set after `least` events, and one of each kind in `needed`."""

    least: int
    needed: frozenset[str] = frozenset()
    counts: dict[str, int] = field(default_factory=dict)
    over: trio.Event = field(default_factory=trio.Event)

    @property
    def total(self) -> int:
        """Events so far."""
        return sum(self.counts.values())

    def note(self, kind: str) -> None:
        """Count one event."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.total >= self.least and self.needed <= self.counts.keys():
            self.over.set()


class Person:
    """One user. `session`: where the user is connected; empty: nowhere."""

    def __init__(
        self, name: str, place: Place, channels: Sequence[str], events: Events, seed: int
    ) -> None:
        self.name = name
        self.session = ""
        self._place = place
        self._channels = channels
        self._events = events
        self._dice = random.Random(seed)

    async def run(self) -> None:
        """Join and leave until enough has happened. A user in a call then stays there."""
        while not self._events.over.is_set():
            channel = self._dice.choice(self._channels)
            session = await self._place.token(self.name, channel)
            if session is None:
                await self._wait(self._dice.uniform(0.05, 0.5))
            else:
                await self._visit(channel, session)

    async def stay(self, channel: str) -> None:
        """Stay in a channel to the end, wherever its call moves."""
        while not self.session:
            session = await self._place.token(self.name, channel)
            if session is None or not self._come(session):
                await self._wait(0.1)
        self._events.note("staying")

    async def follow(self, channel: str) -> None:
        """Follow the call when it moves, until enough has happened."""
        while not self._events.over.is_set():
            await self._dwell(channel, 60.0, obeys=True)

    async def finish(self, channel: str, vacated: str) -> None:
        """The last move: half of those who are in a call go, all of one channel do, others come."""
        if self.session and self._place.channel_of(self.session) == vacated:
            self._go()
        elif self._dice.random() < 0.5:
            return
        elif self.session:
            self._go()
        else:
            session = await self._place.token(self.name, channel)
            if session is not None:
                self._come(session)

    async def _visit(self, channel: str, session: str) -> None:
        """Stay in a session, with breaks, while it exists."""
        while self._come(session):
            await self._dwell(channel, self._length(), obeys=self._dice.random() < OBEYS)
            if self._events.over.is_set() or not self.session:
                return
            session = self.session
            if self._dice.random() < 0.1:
                self._come(session)
            if not self._go() or self._dice.random() < 0.7:
                await self._wait(self._dice.uniform(0.0, 1.0))
                return
            # The client connects again with the token that it has.
            await self._wait(self._dice.choice((0.0, 0.05, 0.3)))

    def _length(self) -> float:
        """Length of a visit: a few are very short, most medium, some long."""
        kind = self._dice.random()
        if kind < 0.25:
            return self._dice.uniform(0.0, HASTE_S)
        return self._dice.uniform(0.5, 4.0) if kind < 0.9 else self._dice.uniform(20.0, 60.0)

    async def _dwell(self, channel: str, seconds: float, *, obeys: bool) -> None:
        """Stay for a while, and follow the call when it moves."""
        until = trio.current_time() + seconds
        while trio.current_time() < until and not self._events.over.is_set():
            moved = False
            with trio.move_on_at(until):
                moved = await self._place.moves(self.session, self._events.over)
            if moved and obeys:
                await self._come_over(channel)

    async def _come_over(self, channel: str) -> None:
        """Join the new session first, then leave the old one."""
        old = self.session
        while True:
            session = await self._place.token(self.name, channel)
            if session == old:
                return
            if session is not None and self._come(session):
                break
            await trio.sleep(0.1)
        self._place.leave(old, self.name)
        self._events.note("came over")

    def _come(self, session: str) -> bool:
        came = self._place.join(session, self.name)
        if came:
            self.session = session
            self._events.note("joined")
        return came

    def _go(self) -> bool:
        session, self.session = self.session, ""
        went = self._place.leave(session, self.name)
        if went:
            self._events.note("left")
        return went

    async def _wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._events.over.wait()
