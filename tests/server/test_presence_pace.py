"""How much a node asks at once when it holds its sessions against the store."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from support.redis_servers import until
from syncbridge.errors import StoreUnavailable
from syncbridge.records.devices import DeviceList, ListDevices
from syncbridge.records.nodes import Held, ListHeld
from syncbridge.records.sessions import Compare, Compared, Lost, Place, Status, Touch, Touched
from syncbridge.session import Session
from syncbridge_server.gateway.presence import BOUND, Presence
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.sweeper import LISTS, Sweeper

SESSIONS = 6_000
HELLO = "hello"


class SlowStore:
    """Answers what is asked a turn later, and knows how much is under way at once."""

    apart = False

    def __init__(self, nursery: trio.Nursery, lost: bool) -> None:
        self._nursery = nursery
        self._lost = lost
        self.asked: dict[str, int] = {}
        self.under_way = self.most = 0
        self.refuse = 0

    def submit(self, requests: Sequence[Any], deliver: Callable[[list[Any]], None]) -> None:
        self.under_way += len(requests)
        self.most = max(self.most, self.under_way)
        for request in requests:
            name = request if isinstance(request, str) else type(request).__name__
            self.asked[name] = self.asked.get(name, 0) + 1
        self._nursery.start_soon(self._answer, requests, deliver)

    async def _answer(self, requests: Sequence[Any], deliver: Callable[[list[Any]], None]) -> None:
        await trio.lowlevel.checkpoint()
        self.under_way -= len(requests)
        deliver([self._one(request) for request in requests])

    def _one(self, request: Any) -> Any:
        if self.refuse:
            self.refuse -= 1
            return StoreUnavailable("away")
        match request:
            case Compare():
                return Compared(Place("e", 1, "l"), nodes="" if self._lost else "n")
            case Touch():
                lost = [Lost(device, "", 0) for device, _ in request.devices if self._lost]
                return Touched(1, "e", lost, "l")
            case ListDevices():
                return DeviceList(Status.OK)
            case ListHeld():
                return Held([], 0)
        return HELLO


class Rig:
    """Presence among stand-ins, with one device in each session."""

    def __init__(self, nursery: trio.Nursery, *, lost: bool = False, sessions: int = SESSIONS):
        self.store = SlowStore(nursery, lost)
        store_queue = StoreQueue(self.store, lambda: store_queue.dispatch() and None)
        self._store_queue = store_queue
        self.sessions = {str(number): a_session(number) for number in range(sessions)}
        departures = SimpleNamespace(
            unsure=set(),
            stale_devices=False,
            agrees=lambda session, answer: True,
            listed=lambda answer, session: None,
        )
        fanout = SimpleNamespace(
            compared=lambda *_: None,
            compare=lambda *_: None,
            rollbacks=SimpleNamespace(sessions=0),
        )
        self.presence = Presence(
            SimpleNamespace(sessions=self.sessions),  # type: ignore[arg-type]
            store_queue,
            fanout,  # type: ignore[arg-type]
            SimpleNamespace(rejoin=self._rejoin),  # type: ignore[arg-type]
            departures,  # type: ignore[arg-type]
            SimpleNamespace(seen=lambda *_: None),  # type: ignore[arg-type]
            Sweeper(self.store, timeout=120),  # type: ignore[arg-type]
            node="n",
            timeout=120,
            ttl=604_800,
            named=lambda nodes: None,
        )

    def _rejoin(self, connection: Any, done: Callable[[], None]) -> bool:
        self._store_queue.ask(HELLO, lambda answer: done())  # type: ignore[arg-type]
        return True

    async def settled(self) -> None:
        """Wait until a comparison of everything is through."""
        with trio.fail_after(60):
            while not self.presence.verifying:
                await trio.lowlevel.checkpoint()
            while self.presence.verifying or self.store.under_way:
                await trio.lowlevel.checkpoint()


def a_session(number: int) -> Any:
    session: Any = Session(str(number), 0)
    session.joined, session.version = True, 1
    session.devices["d"] = SimpleNamespace(
        id=f"n:{number}", cid=number, fence=1, released=False, stream=None
    )
    return session


async def test_all_sessions_are_compared_within_the_bound(nursery: trio.Nursery) -> None:
    """After a break: one plain command each, then the lists, and never more under way."""
    rig = Rig(nursery)
    nursery.start_soon(rig.presence.verify)
    rig.presence.doubt()
    await rig.settled()

    assert {"Compare": SESSIONS, "ListHeld": 1024} == rig.store.asked
    assert rig.store.most <= BOUND
    nursery.cancel_scope.cancel()


async def test_a_node_that_was_taken_for_dead_joins_again_within_the_bound(
    nursery: trio.Nursery,
) -> None:
    """Every device says hello again, once; touches, lists of devices and hellos are paced."""
    rig = Rig(nursery, lost=True)
    nursery.start_soon(rig.presence.verify)
    rig.presence.forgotten()
    await rig.settled()

    assert {
        "Compare": SESSIONS,
        "Touch": SESSIONS,
        "ListDevices": SESSIONS,
        HELLO: SESSIONS,
        "ListHeld": 1024,
    } == rig.store.asked
    assert rig.store.most <= BOUND + LISTS
    nursery.cancel_scope.cancel()


async def test_what_could_not_be_asked_is_compared_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Redis goes away in the middle: another round follows, until one was whole."""
    rig = Rig(nursery, sessions=1000)
    rig.store.refuse = 5
    nursery.start_soon(rig.presence.verify)
    rig.presence.doubt()
    with trio.fail_after(60):
        await until(lambda: rig.store.asked.get("ListHeld", 0) == 1024)

    assert 2000 == rig.store.asked["Compare"]
    nursery.cancel_scope.cancel()


async def test_each_session_is_compared_within_five_minutes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Evenly, one plain command each, at most a few more a second than their share."""
    rig = Rig(nursery, sessions=3000)
    nursery.start_soon(rig.presence.run)
    counts = []
    for _ in range(300):
        await trio.sleep(1.0)
        counts.append(rig.store.asked.get("Compare", 0))

    assert {"Compare"} == rig.store.asked.keys()
    assert 3000 <= counts[-1] <= 6000
    assert max(after - before for before, after in pairwise(counts)) <= 41
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sessions", [0, 1])
async def test_few_sessions(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, sessions: int
) -> None:
    """None costs nothing; one is compared twice in five minutes."""
    rig = Rig(nursery, sessions=sessions)
    nursery.start_soon(rig.presence.run)
    await trio.sleep(301.0)

    assert rig.store.asked.get("Compare", 0) == 2 * sessions
    nursery.cancel_scope.cancel()
