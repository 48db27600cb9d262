"""Calls on a real LiveKit while everything around them breaks: nobody is reported gone who is
there, and in the end, without webhooks, two looks that are apart bring the truth.

`SYNCBRIDGE_LIVEKIT_EVENTS` and `SYNCBRIDGE_VOICE_SEED` make the run longer or another.
"""

import os
import random
import time
from pathlib import Path

import pytest
import trio

from support.redis_servers import RedisServer
from support.voice_random.livekit_place import POOLS, Gate, LiveKitPlace, Seat, livekit_place
from support.voice_random.people import Events
from support.voice_random.truth import Removal, false_removals
from support.voice_random.watching import Watcher

EVENTS = int(os.environ.get("SYNCBRIDGE_LIVEKIT_EVENTS", "500"))
SEED = int(os.environ.get("SYNCBRIDGE_VOICE_SEED", "1"))
LIMIT = 400 + EVENTS
"""Seconds after which something hangs."""
CHANNELS = [f"channel-{number}" for number in range(5)]
VACATED = CHANNELS[-1]
PEOPLE = 16
STAYING = 6
"""So many of them leave only when they are sent away, or their call moves."""
GRACE_S = 10.0
"""News of a departure are late by LiveKit's repetitions, of which one comes within `REFUSED_S`, and
by an outage of ours; meanwhile the user may be back."""
REFUSED_S = (1.5, 2.5)
LOST_S = (3.0, 8.0)
DEED_S = 8.0
"""A process is back after so long; where it takes longer, news are later by the difference."""
APART_S = 20.0
DEEDS = (
    "refuse webhooks",
    "kill clients",
    "kill LiveKit",
    "lose webhooks",
    "delete a room",
    "kill a node",
    "migrate",
    "restart Redis",
)
TRIES = 10


class Guest:
    """A user with two devices, who comes and goes."""

    def __init__(self, number: int, place: LiveKitPlace, seed: int) -> None:
        self.name = f"user-{number}"
        self._pool = number % POOLS
        self._stays = number < STAYING
        self._place = place
        self._dice = random.Random(seed * 1000 + number)

    async def run(self) -> None:
        """Until enough has happened. Whoever is in a call then stays there."""
        over = self._place.events.over
        while not over.is_set():
            channel = self._dice.choice(CHANNELS)
            device = self._dice.choice(("phone", "laptop"))
            seat = await self._place.come(self.name, device, channel, self._pool)
            if seat is None:
                await self._pause(self._dice.uniform(0.2, 1.0))
                continue
            seats = [seat]
            if self._dice.random() < 0.2:
                beside = await self._place.come(self.name, "tablet", channel, self._pool)
                seats += [beside] if beside is not None else []
            await self._dwell(seats)
            if over.is_set():
                return
            for one in seats:
                await self._place.leave(one)
            await self._pause(self._dice.uniform(0.0, 1.0))

    async def finish(self) -> None:
        """The last move: all of one channel go, and half of the others."""
        for seat in list(self._place.seats.values()):
            here = seat.user == self.name and not seat.gone.is_set()
            if here and (seat.channel == VACATED or self._dice.random() < 0.5):
                await self._place.leave(seat)

    async def _dwell(self, seats: list[Seat]) -> None:
        """Be there for a while, and come over when the call moves."""
        seconds = self._dice.choice((0.1, 2.0, 5.0, 10.0, 30.0)) if not self._stays else 1e6
        until = trio.current_time() + self._dice.uniform(0.5, 1.0) * seconds
        while trio.current_time() < until and not self._place.events.over.is_set():
            with trio.move_on_at(until):
                await self._until_something(seats[0])
            if seats[0].gone.is_set():
                return
            if seats[0].session in self._place.left_rooms:
                await self._come_over(seats)

    async def _until_something(self, seat: Seat) -> None:
        async with trio.open_nursery() as nursery:
            for wait in (
                seat.gone.wait,
                self._place.events.over.wait,
                lambda: self._place.until_moved(seat),
            ):
                nursery.start_soon(first, wait, nursery.cancel_scope)

    async def _come_over(self, seats: list[Seat]) -> None:
        """Join the new room with each device, then leave the old one."""
        for index, old in enumerate(seats):
            device = old.name.split("/")[1]
            new = await self._place.come(self.name, device, old.channel, self._pool)
            await self._place.leave(old)
            if new is not None:
                seats[index] = new
                self._place.events.note("came over")

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._place.events.over.wait()


async def first(wait: "object", scope: trio.CancelScope) -> None:
    """End the others when this one is over."""
    await wait()  # type: ignore[operator]
    scope.cancel()


class Trouble:
    """What goes wrong, one deed after the other, so many events apart."""

    def __init__(self, place: LiveKitPlace, seed: int, every: int) -> None:
        self._place = place
        self._dice = random.Random(seed)
        self._every = every
        self.longest = 0.0

    async def run(self) -> None:
        """Until enough has happened; then nothing is wrong any more."""
        events, number = self._place.events, 0
        while not events.over.is_set():
            while events.total < (number + 1) * self._every and not events.over.is_set():
                with trio.move_on_after(0.2):
                    await events.over.wait()
            if not events.over.is_set():
                deed, began = DEEDS[number % len(DEEDS)], trio.current_time()
                events.note(deed)
                await self._do(deed, number // len(DEEDS))
                self.longest = max(self.longest, trio.current_time() - began)
            number += 1
        self._place.pass_webhooks(Gate.OPEN)
        await self._place.ready()

    async def _do(self, deed: str, turn: int) -> None:
        place = self._place
        match deed:
            case "refuse webhooks" | "lose webhooks":
                refused = deed.startswith("refuse")
                place.pass_webhooks(Gate.REFUSED if refused else Gate.LOST)
                with trio.move_on_after(self._dice.uniform(*REFUSED_S if refused else LOST_S)):
                    await place.events.over.wait()
                place.pass_webhooks(Gate.OPEN)
            case "kill clients":
                await place.kill_clients(turn % POOLS)
            case "kill LiveKit":
                await place.kill_livekit()
            case "delete a room":
                await place.delete_room(self._dice.choice(CHANNELS))
            case "kill a node":
                await place.servers.kill_node(turn % 2)
            case "restart Redis":
                await place.servers.move_redis()
            case "migrate":
                for _ in range(TRIES):
                    if await place.migrate(self._dice.choice(CHANNELS)):
                        return
                    await trio.sleep(0.3)


class Run:
    """A run and what was seen of it. `settled`: seconds until all was true, at the end."""

    def __init__(self, place: LiveKitPlace, seed: int, every: int) -> None:
        self.place = place
        self.watchers = [
            Watcher(place.servers, node, CHANNELS, place.told_session) for node in (0, 1)
        ]
        self.guests = [Guest(number, place, seed) for number in range(PEOPLE)]
        self.trouble = Trouble(place, seed, every)
        self.settled = 0.0

    @property
    def removals(self) -> list[Removal]:
        """Everybody who was reported gone, by each watcher."""
        return [removal for watcher in self.watchers for removal in watcher.removals]

    async def run(self) -> None:
        """Everything, until what is shown is true; AssertionError when that takes too long."""
        async with trio.open_nursery() as nursery:
            for watcher in self.watchers:
                nursery.start_soon(watcher.run)
            async with trio.open_nursery() as happening:
                for guest in self.guests:
                    happening.start_soon(guest.run)
                happening.start_soon(self.trouble.run)
            await self._last_moves()
            await self._settle()
            nursery.cancel_scope.cancel()

    async def _last_moves(self) -> None:
        """Nobody hears of them: only looks can find out. Before that, all is as LiveKit says."""
        for channel in CHANNELS:
            while await self.place.migrates(channel):  # noqa: ASYNC110 - in another process
                await trio.sleep(0.2)
        await self.place.calm(120.0)
        self.place.pass_webhooks(Gate.LOST)
        for guest in self.guests:
            await guest.finish()
        await self.place.calm(60.0)

    async def _settle(self) -> None:
        """Two looks that are apart, of which the first may have begun before the last move, and
        the second is a whole pass: after so long, and two passes more, all must be true.
        """
        began = time.time()
        late_from: int | None = None
        while wrong := await self._wrong():
            if time.time() - began > APART_S and late_from is None:
                late_from = await self.place.passes()
            late = late_from is not None and await self.place.passes() > late_from + 3
            assert not late, "\n".join(wrong)
            await trio.sleep(0.1)
        self.settled = time.time() - began

    async def _wrong(self) -> list[str]:
        found = [await self.place.wrong(channel, node) for channel in CHANNELS for node in (0, 1)]
        return [one for one in found if one]


@pytest.mark.slow
async def test_calls_on_livekit_under_faults(redis_server: RedisServer, tmp_path: Path) -> None:
    """Nobody was falsely reported gone or shut out; without webhooks two looks bring the truth."""
    began = time.time()
    every = max(EVENTS // (8 * len(DEEDS)), 15)
    events = Events(EVENTS, frozenset({*DEEDS, "left", "came back"}))
    with trio.fail_after(LIMIT):
        async with livekit_place(redis_server, tmp_path, events) as where:
            run = Run(where, SEED, every)
            await run.run()
    truth, now = where.truth, time.time()
    grace = GRACE_S + max(run.trouble.longest - DEED_S, 0.0)
    print(f"seed {SEED}, {now - began:.0f} s, true after {run.settled:.1f} s")
    print(f"{events.total} events: {events.counts}; {where.refused} refused")
    print(f"reported gone {len(run.removals)}; longest deed {run.trouble.longest:.1f} s")
    print(f"user seconds {truth.seconds(now):.0f}, judged {truth.seconds(now, grace):.0f}")

    wrong = false_removals(truth, run.removals, grace)
    assert not wrong, "\n".join(f"{one}" for one in wrong)
    assert [] == where.shut_out
    assert events.needed <= events.counts.keys()
    assert run.removals
    assert truth.seconds(now, grace) > 0
