"""Writes that tasks wait for: sent together, each answered once, and never for ever."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from syncbridge.errors import StoreOverloaded, StoreTimeout
from syncbridge.records.sessions import Apply, Outcome, Request, Status
from syncbridge_server.gateway.commits import LOOK_SECONDS, Commits
from syncbridge_server.gateway.store_queue import StoreQueue

PATIENCE = 5.0


class Held:
    """A store that answers when it is told to."""

    connected = True
    apart = False

    def __init__(self) -> None:
        self.pipelines: list[tuple[list[Any], Callable[[Sequence[Any]], None]]] = []
        self.full = False

    def submit(self, requests: Sequence[Request], deliver: Any) -> None:
        if self.full:
            raise StoreOverloaded("full")
        self.pipelines.append((list(requests), deliver))

    async def call(self, request: Request) -> Any:
        raise NotImplementedError

    def answer(self) -> None:
        """Answer everything; the version says which write it was."""
        pipelines, self.pipelines = self.pipelines, []
        for requests, deliver in pipelines:
            deliver([Outcome(Status.OK, int(one.sid)) for one in requests])


class Bench:
    """Commits on a held store, and what was told of them."""

    def __init__(self) -> None:
        self.store = Held()
        self.done: list[tuple[str, Any]] = []
        store_queue = StoreQueue(self.store, lambda: None)
        self.commits = Commits(
            store_queue, lambda write, answer: self.done.append((write.sid, answer)), PATIENCE
        )

    async def write(self, number: int) -> Outcome:
        return await self.commits.commit(Apply(str(number), "u", "d", [b"k", b"1"], []))


async def test_what_is_asked_in_one_turn_goes_together() -> None:
    """One pipeline, and each task has the answer to its own write."""
    bench = Bench()
    found: dict[int, int] = {}

    async def write(number: int) -> None:
        found[number] = (await bench.write(number)).version

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, number)
        await trio.testing.wait_all_tasks_blocked()
        assert [20] == [len(requests) for requests, _ in bench.store.pipelines]
        bench.store.answer()

    assert found == {number: number for number in range(20)}
    assert {str(number) for number in range(20)} == {sid for sid, _ in bench.done}


async def test_a_late_answer_is_not_taken_for_another() -> None:
    """A task gave up on one write and waits for the next when the first is answered."""
    bench = Bench()

    impatience = trio.CancelScope()

    async def twice() -> None:
        with impatience:
            await bench.write(1)
        assert (await bench.write(2)).version == 2

    async with trio.open_nursery() as nursery:
        nursery.start_soon(twice)
        await trio.testing.wait_all_tasks_blocked()
        impatience.cancel()
        await trio.testing.wait_all_tasks_blocked()
        first, second = bench.store.pipelines
        bench.store.pipelines = [first]
        bench.store.answer()
        await trio.testing.wait_all_tasks_blocked()
        bench.store.pipelines = [second]
        bench.store.answer()

    assert ["1", "2"] == [sid for sid, _ in bench.done]


async def test_a_store_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    """The outcome is unknown after some seconds; when it comes, it is still told."""
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.commits.run)
        began = trio.current_time()
        with pytest.raises(StoreTimeout):
            await bench.write(3)
        assert PATIENCE <= trio.current_time() - began <= PATIENCE + LOOK_SECONDS
        bench.store.answer()
        nursery.cancel_scope.cancel()

    assert ["3"] == [sid for sid, _ in bench.done]


async def test_a_store_that_is_full() -> None:
    """The refusal is the answer."""
    bench = Bench()
    bench.store.full = True
    with pytest.raises(StoreOverloaded):
        await bench.write(1)

    assert isinstance(bench.done[0][1], StoreOverloaded)
