"""Work that all nodes do together once in an interval."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import trio
import trio.testing

from syncbridge.errors import StoreUnavailable
from syncbridge_server.voice.leader import LONGEST, run_as_leader

INTERVAL = 30.0


class Locks:
    """A store with one lock, which runs out by itself. `broken`: it raises instead."""

    def __init__(self) -> None:
        self.until = 0.0
        self.broken = False
        self.holder: Held | None = None

    @asynccontextmanager
    async def lock(
        self, channel_id: str, purpose: str, life_ms: int, wait_ms: int
    ) -> AsyncIterator["Held | None"]:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise StoreUnavailable("away")
        held = Held(self)
        got = trio.current_time() >= self.until
        if got:
            self.holder, self.until = held, trio.current_time() + life_ms / 1000
        crashed = False
        try:
            yield held if got else None
        except trio.Cancelled:
            crashed = True  # a node that dies releases nothing
            raise
        finally:
            if self.holder is held and not crashed:
                self.until = 0.0


class Held:
    """The lock, as one node has it."""

    def __init__(self, locks: Locks) -> None:
        self.locks = locks

    async def keep(self, life_ms: int) -> bool:
        await trio.lowlevel.checkpoint()
        ours = self.locks.holder is self and trio.current_time() < self.locks.until
        if ours:
            self.locks.until = trio.current_time() + life_ms / 1000
        return ours


class Nodes:
    """Nodes that take turns; `turns` holds (when, who)."""

    def __init__(self, locks: Locks, pause: float = 0.0) -> None:
        self.locks = locks
        self.pause = pause
        self.turns: list[tuple[float, int]] = []

    async def run(self, node: int) -> None:
        async def work() -> float:
            self.turns.append((trio.current_time(), node))
            return self.pause

        channels: Any = self.locks
        await run_as_leader(channels, "sync", INTERVAL, work)

    def gaps(self) -> list[float]:
        times = [at for at, _ in self.turns]
        return [late - early for early, late in pairwise(times)]


async def test_many_nodes_work_as_often_as_one(autojump_clock: trio.testing.MockClock) -> None:
    """Eight nodes over an hour: one turn in an interval, give or take its jitter."""
    nodes = Nodes(Locks())
    with trio.move_on_after(3600):
        async with trio.open_nursery() as nursery:
            for node in range(8):
                nursery.start_soon(nodes.run, node)

    assert 3600 / 33 - 2 <= len(nodes.turns) <= 3600 / 27 + 1
    assert all(0.9 * INTERVAL <= gap <= 1.1 * INTERVAL for gap in nodes.gaps())


async def test_a_node_that_dies_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    """Its lock runs out; another node takes the next turn within a few intervals."""
    nodes = Nodes(Locks())
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(100):
            await nodes.run(1)
        nursery.start_soon(nodes.run, 2)
        await trio.sleep(10 * INTERVAL)
        nursery.cancel_scope.cancel()
    first = next(at for at, node in nodes.turns if node == 2)
    last = max(at for at, node in nodes.turns if node == 1)

    assert first - last <= (LONGEST + 2 + 1) * INTERVAL


async def test_a_turn_that_cost_much_is_followed_by_a_longer_pause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Work says when the next turn may begin; nobody begins it earlier."""
    nodes = Nodes(Locks(), pause=100.0)
    with trio.move_on_after(2000):
        async with trio.open_nursery() as nursery:
            for node in range(3):
                nursery.start_soon(nodes.run, node)

    assert len(nodes.turns) > 10
    assert all(gap >= 90.0 for gap in nodes.gaps())


async def test_without_the_store_nobody_works(autojump_clock: trio.testing.MockClock) -> None:
    """No lock, no turn; and the turns go on when it is back."""
    locks = Locks()
    locks.broken = True
    nodes = Nodes(locks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes.run, 1)
        await trio.sleep(10 * INTERVAL)
        without = len(nodes.turns)
        locks.broken = False
        await trio.sleep(2 * INTERVAL)
        nursery.cancel_scope.cancel()

    assert (0, True) == (without, bool(nodes.turns))


async def test_a_lock_that_ran_out_is_not_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Two nodes whose locks are lost again and again are never both at work for long."""
    locks = Locks()
    nodes = Nodes(locks)
    async with trio.open_nursery() as nursery:
        for node in (1, 2):
            nursery.start_soon(nodes.run, node)
        for _ in range(20):
            await trio.sleep(10 * INTERVAL)
            locks.until = 0.0
        await trio.sleep(2 * INTERVAL)
        rest = len(nodes.turns)
        await trio.sleep(100 * INTERVAL)
        nursery.cancel_scope.cancel()

    assert {1, 2} == {node for _, node in nodes.turns}
    assert 1 == len({node for _, node in nodes.turns[rest:]})
    assert all(gap >= 0.9 * INTERVAL for gap in nodes.gaps()[rest:])
