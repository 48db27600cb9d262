"""Bounds in which the oldest that waits gives way."""

import logging

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from syncbridge_server.listener.capacity import Bounds, Capacity, Occupant
from syncbridge_server.listener.contract import ListenerConfig


def occupants(capacity: Capacity, count: int) -> list[Occupant]:
    """So many that have a place and wait for their client, the oldest first."""
    made = [Occupant() for _ in range(count)]
    for one in made:
        assert one.take(capacity)
        one.wait()
    return made


async def test_the_oldest_that_waits_gives_way() -> None:
    """Its scope is cancelled, its place is free at once, and nobody else is touched."""
    capacity = Capacity("places", 3)
    first, second, third = occupants(capacity, 3)
    first.work()

    assert Occupant().take(capacity)
    assert [False, True, False] == [one.evicted for one in (first, second, third)]
    assert [False, True, False] == [one.scope.cancel_called for one in (first, second, third)]
    assert (3, 1, 0) == (capacity.held, capacity.evicted, capacity.refused)


async def test_nobody_gives_way_while_all_are_being_worked_on() -> None:
    """Then the newcomer has no place, and is counted."""
    capacity = Capacity("places", 2)
    for one in occupants(capacity, 2):
        one.work()

    assert not Occupant().take(capacity)
    assert (2, 0, 1) == (capacity.held, capacity.evicted, capacity.refused)


async def test_who_begins_to_wait_anew_is_the_newest() -> None:
    """Who merely goes on to wait stays where it is."""
    capacity = Capacity("places", 3)
    first, second, third = occupants(capacity, 3)
    first.wait()
    second.wait(anew=False)
    Occupant().take(capacity)
    Occupant().take(capacity)

    assert [False, True, True] == [one.evicted for one in (first, second, third)]


async def test_all_places_are_given_up_together() -> None:
    """Whoever loses the place of its request has no connection any more either."""
    connections, requests = Capacity("connections", 5), Capacity("requests", 1)
    slow = Occupant()
    slow.take(connections)
    slow.take(requests)
    slow.wait()

    assert Occupant().take(requests)
    assert (0, 1) == (connections.held, requests.held)
    assert not connections.waiting
    slow.leave_all()
    slow.leave(requests)
    assert (0, 1) == (connections.held, requests.held)


async def test_an_answer_that_nobody_takes_gives_way_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Only when nobody is silent, and after a second without progress; the longest one first."""
    capacity = Capacity("places", 3)
    first, second, silent = occupants(capacity, 3)
    for one in (first, second):
        one.work()
        one.stall()
    Occupant().take(capacity)
    assert [False, False, True] == [one.evicted for one in (first, second, silent)]

    assert not Occupant().take(capacity)
    await trio.sleep(0.5)
    first.stall()
    await trio.sleep(0.6)
    assert Occupant().take(capacity)
    assert [False, True] == [one.evicted for one in (first, second)]
    first.flow()
    await trio.sleep(5)
    assert not Occupant().take(capacity)


async def test_an_answer_changes_nothing_for_one_that_is_silent() -> None:
    """Whoever is sent something while we wait for it stays in the queue of the silent."""
    capacity = Capacity("places", 1)
    (silent,) = occupants(capacity, 1)
    silent.stall()
    silent.flow()

    assert Occupant().take(capacity)
    assert silent.evicted


async def test_the_evicted_cannot_wait_again() -> None:
    """Whatever it waits in later is cancelled at once, so that its task ends."""
    capacity = Capacity("places", 1)
    (old,) = occupants(capacity, 1)
    Occupant().take(capacity)
    with trio.CancelScope() as scope:
        old.wait(scope)
        await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not capacity.waiting


async def test_one_log_line_in_ten_seconds(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """However many give way, the log tells of it once, with the sum so far."""
    capacity = Capacity("handshakes", 1)
    with caplog.at_level(logging.WARNING):
        occupants(capacity, 1_001)
        first = len(caplog.records)
        await trio.sleep(10)
        occupants(capacity, 2)

    assert (1, 2) == (first, len(caplog.records))
    assert "bound of 1 handshakes" in caplog.messages[0]
    assert "1001" in caplog.messages[1]


async def test_probes_have_places_of_their_own() -> None:
    """Only for GET and HEAD of their paths, without a body; a query does not matter."""
    bounds = Bounds(ListenerConfig(max_requests=1, max_probes=1, probe_paths=frozenset({"/p"})))
    busy = Occupant()
    assert bounds.admit(busy, "GET", b"/", body=False)

    assert not bounds.admit(Occupant(), "GET", b"/pp", body=False)
    assert not bounds.admit(Occupant(), "POST", b"/p", body=False)
    assert not bounds.admit(Occupant(), "GET", b"/p", body=True)
    probe = Occupant()
    assert bounds.admit(probe, "GET", b"/p?x=1", body=False)
    assert not bounds.admit(Occupant(), "HEAD", b"/p", body=False)
    bounds.release(probe)
    assert bounds.admit(Occupant(), "HEAD", b"/p", body=False)


async def test_the_reserve_serves_nothing_else() -> None:
    """A connection in the reserve gets no ordinary place, even if there is one."""
    bounds = Bounds(ListenerConfig(probe_paths=frozenset({"/p"})))

    assert not bounds.admit(Occupant(reserved=True), "GET", b"/", body=False)
    assert bounds.admit(Occupant(reserved=True), "GET", b"/p", body=False)
    assert (0, 1) == (bounds.requests.held, bounds.probes.held)


async def test_short_descriptors_are_taken_from_those_that_wait() -> None:
    """Refused ones first, then silent ones, then idle ones; never one that is worked on."""
    bounds = Bounds(ListenerConfig())
    busy, idle = occupants(bounds.connections, 2)
    busy.work()
    (silent,) = occupants(bounds.handshakes, 1)
    (refused,) = occupants(bounds.farewells, 1)
    order = []
    for _ in range(4):
        bounds.relieve(1)
        order.append([one.evicted for one in (refused, silent, idle, busy)])

    assert [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, False],
    ] == order


NAMES = ["take", "wait", "drip", "work", "stall", "flow", "leave"]
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 9)))


@given(STEPS)
def test_any_order_of_steps(steps: list[tuple[str, int]]) -> None:
    """Never more places than the bound; only holders wait; the evicted hold nothing."""
    trio.run(any_order, steps)


async def any_order(steps: list[tuple[str, int]]) -> None:
    capacity = Capacity("places", 3)
    made = [Occupant() for _ in range(10)]
    holding: set[int] = set()
    for step, index in steps:
        one = made[index]
        if step == "take" and index not in holding and not one.evicted:
            if one.take(capacity):
                holding.add(index)
        elif step in ("wait", "drip"):
            one.wait(anew=step == "wait")
        elif step in ("work", "stall", "flow"):
            getattr(one, step)()
        elif step == "leave":
            one.leave_all()
            holding.discard(index)
        holding -= {at for at in holding if made[at].evicted}

        assert len(holding) == capacity.held <= 3
        assert {made[at] for at in holding} >= {*capacity.waiting, *capacity.stalled}
        assert not {*capacity.waiting} & {*capacity.stalled}
