"""The garbage collector of a serving process: portions are frozen, cycles still go."""

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from syncbridge_server.collector import LOOK_SECONDS, PORTION, WHOLE_SECONDS, Collector


class Node:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Other tests get the collector as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_survivors_are_frozen_after_some_rounds() -> None:
    """What outlived a few rounds is not looked at again."""
    collector = Collector()
    collector.collect()
    kept = [Node() for _ in range(100)]
    frozen = gc.get_freeze_count()

    gc.collect(0)
    collector.look()
    assert gc.get_freeze_count() == frozen

    for _ in range(PORTION):
        gc.collect(1)
    collector.look()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_a_cycle_among_frozen_objects_goes_with_the_whole_collection() -> None:
    """A frozen cycle that nobody holds is kept by a portion, and found by the whole."""
    now = 0.0
    collector = Collector(lambda: now)
    node = Node()
    gone = weakref.ref(node)
    collector.collect()
    del node

    collector.collect()
    assert gone() is not None

    now = WHOLE_SECONDS
    collector.look()
    assert gone() is None


async def test_the_interpreter_gets_its_thresholds_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While it runs the oldest generation is ours; afterwards it is the interpreter's."""
    before = gc.get_threshold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Collector(trio.current_time).run)
        await trio.sleep(3 * LOOK_SECONDS)
        assert gc.get_threshold()[2] > before[2]
        assert gc.get_freeze_count() > 0
        nursery.cancel_scope.cancel()

    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
