"""Several writers and several nodes: one order, and everybody learns of it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
import trio

from support.contract.requests import join, leave, session_id, write
from support.redis_servers import RedisServer
from syncbridge.records.nodes import Sweep
from syncbridge.records.sessions import Commit, Mode, Notice, Outcome, Status
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore


class Node:
    """A node's store and bus, and what the bus has brought."""

    def __init__(self, name: str, io: RedisIO, bus: RedisBus) -> None:
        self.name = name
        self.store = RedisStore(io, name)
        self.bus = bus
        self.commits: list[Commit] = []
        self.notices: list[Notice] = []
        self.resyncs = 0
        self._news = trio.Event()
        bus.on_commits(self._on_commits)
        bus.on_notice("test", self._on_notice)
        bus.on_resync(self._on_resync)

    def _on_commits(self, commits: Sequence[Commit]) -> None:
        self.commits += commits
        self._news.set()

    def _on_notice(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._news.set()

    def _on_resync(self) -> None:
        self.resyncs += 1

    async def heard(self, commits: int = 0, notices: int = 0) -> None:
        """Wait until that many have come."""
        with trio.fail_after(10):
            while len(self.commits) < commits or len(self.notices) < notices:
                self._news = trio.Event()
                await self._news.wait()


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[list[Node]]:
    """Three nodes with random names."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(3):
            io = await stack.enter_async_context(RedisIO(server.url, deadline=8.0).running())
            name = session_id()
            bus = await stack.enter_async_context(RedisBus(io, name).running())
            made.append(Node(name, io, bus))
        yield made


async def test_concurrent_writers_share_one_order(server: RedisServer) -> None:
    """8 connections x 100 writes: versions are unique, contiguous, and each fits its previous."""
    sid = session_id()
    outcomes: list[Outcome] = []

    async def writer(number: int) -> None:
        async with RedisIO(server.url, deadline=8.0).running() as io:
            store = RedisStore(io, f"n{number}")
            for count in range(100):
                outcomes.append(await store.call(write(sid, {f"k{number}": str(count)})))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(writer, number)
    assert sorted(outcome.version for outcome in outcomes) == list(range(1, 801))
    assert all(outcome.prev_version == outcome.version - 1 for outcome in outcomes)
    assert sum(outcome.created for outcome in outcomes) == 1


async def test_compare_and_set_loses_no_update(server: RedisServer) -> None:
    """8 writers that count one key up with REJECT, repeating on conflict, reach the exact sum."""
    sid = session_id()
    final: list[int] = []

    async def counter(number: int) -> None:
        async with RedisIO(server.url, deadline=8.0).running() as io:
            store = RedisStore(io, f"n{number}")
            base, value, done = 0, 0, 0
            while done < 20:
                request = write(sid, {"n": str(value + 1)}, base_version=base, mode=Mode.REJECT)
                outcome = await store.call(request)
                base = outcome.version
                if outcome.status is Status.OK:
                    value, done = value + 1, done + 1
                    final.append(value)
                else:
                    assert outcome.status is Status.CONFLICT
                    value = int(outcome.conflicts[1])

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(counter, number)
    assert sorted(final) == list(range(1, 161))


async def test_commits_reach_the_other_nodes_of_a_session(nodes: list[Node]) -> None:
    """Whole and in order, with the effect and not the request; not the writer's own node."""
    one, two, three = nodes
    sid = session_id()
    await one.store.call(join(sid, "d1", "c1", one.name))
    await two.store.call(join(sid, "d2", "c2", two.name))
    first = await one.store.call(write(sid, {"a": "1", "b": '"\\n"'}, mutation_id="m\n1 ä"))
    second = await one.store.call(write(sid, {"a": "1", "c": "3"}, "b", device_id="dé"))
    await two.heard(commits=2)
    assert two.commits == [
        Commit(
            *(sid, 1, 0, first.epoch, "d", "m\n1 ä", [b"a", b"1", b"b", b'"\\n"'], []),
            lineage=first.lineage,
        ),
        Commit(
            *(sid, 2, 1, first.epoch, "dé", "", [b"c", b"3"], [b"b"]),
            lineage=second.lineage,
            prev_lineage=first.lineage,
        ),
    ]
    await two.store.call(write(sid, {"z": "1"}))
    await one.heard(commits=1)
    assert [commit.version for commit in one.commits] == [3]
    assert three.commits == []


async def test_what_changed_nothing_is_not_told(nodes: list[Node]) -> None:
    """No-ops, duplicates and conflicts are silent."""
    one, two, _ = nodes
    sid = session_id()
    await two.store.call(join(sid, "d2", "c2", two.name))
    await one.store.call(write(sid, {"a": "1"}, mutation_id="m"))
    await one.store.call(write(sid, {"a": "1"}))
    await one.store.call(write(sid, {"a": "2"}, mutation_id="m"))
    await one.store.call(write(sid, {"a": "2"}, base_version=0, mode=Mode.REJECT))
    await one.store.call(write(sid, {"a": "3"}))
    await two.heard(commits=2)
    assert [commit.version for commit in two.commits] == [1, 2]


async def test_no_commit_falls_between_hello_and_the_bus(nodes: list[Node]) -> None:
    """What hello returned plus what the bus brings is everything, while another node writes."""
    one, two, _ = nodes
    sid = session_id()
    await one.store.call(write(sid, {"n": "0"}))
    welcomes: list[int] = []

    async def joins() -> None:
        welcomes.append((await two.store.call(join(sid, "d2", "c2", two.name))).version)

    async with trio.open_nursery() as nursery:
        for count in range(1, 101):
            if count == 50:
                nursery.start_soon(joins)
            await one.store.call(write(sid, {"n": str(count)}))
    await two.heard(commits=101 - welcomes[0])
    assert [commit.version for commit in two.commits] == list(range(welcomes[0] + 1, 102))


async def test_a_node_that_left_hears_no_more(nodes: list[Node]) -> None:
    """After its last device, or when that was swept."""
    one, two, three = nodes
    sid = session_id()
    await two.store.call(join(sid, "d2", "c2", two.name))
    await three.store.call(join(sid, "d3", "c3", three.name))
    await two.store.call(leave(sid, "d2", "c2", two.name, last=True))
    await one.store.call(Sweep(sid, three.name, 1000))
    await one.store.call(write(sid, {"a": "1"}))
    one.bus.tell(two.name, Notice("test", sid, b"1"))
    one.bus.tell(three.name, Notice("test", sid, b"1"))
    await two.heard(notices=1)
    await three.heard(notices=1)
    assert (two.commits, three.commits) == ([], [])


async def test_notices(nodes: list[Node]) -> None:
    """To one node, to all with the sender, to the other nodes of a session."""
    one, two, three = nodes
    sid = session_id()
    for number, node in enumerate((one, two)):
        await node.store.call(join(sid, f"d{number}", "c", node.name))
    one.bus.tell(two.name, Notice("test", "", b"to two"))
    one.bus.tell_session(Notice("test", sid, b"to the session"))
    one.bus.tell(one.name, Notice("other kind", "", b"for nobody"))
    one.bus.tell("*", Notice("test", "", b"to all"))
    await two.heard(notices=3)
    # In a cluster they come from several servers, and have no order among each other.
    heard = sorted(notice.data for notice in two.notices)
    assert heard == [b"to all", b"to the session", b"to two"]
    assert Notice("test", sid, b"to the session") in two.notices
    await one.heard(notices=1)
    await three.heard(notices=1)
    assert [notice.data for notice in one.notices] == [b"to all"]
    assert [notice.data for notice in three.notices] == [b"to all"]
    assert [node.resyncs for node in nodes] == [0, 0, 0]
