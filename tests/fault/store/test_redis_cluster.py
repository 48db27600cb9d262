"""A cluster whose slots move and whose primaries die: the right server, the order, the truth."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.lowlevel

from support.contract import format2
from support.contract.histories import Numbered
from support.contract.requests import session_id, write
from support.fake_cluster import send_again_later
from support.redis_cluster import RedisCluster, ask, text, url_of
from support.redis_servers import PATIENCE, bundled, default_binary, until
from syncbridge.errors import StoreError, StoreUnavailable
from syncbridge.slots import BUCKETS, TAGS, session_key, slot_of
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.link.wire import NO_DATABASE, pack

FAILOVER_SECONDS = 60.0


@pytest.fixture(scope="module", params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """Three primaries that no test kills."""
    with RedisCluster(bundled() if request.param == "valkey" else default_binary()) as running:
        yield running


@asynccontextmanager
async def connected(cluster: RedisCluster, **more: Any) -> AsyncIterator[RedisIO]:
    """A client that has a connection to every primary."""
    io = RedisIO(cluster.url, **({"deadline": PATIENCE} | more))
    async with io.running():
        await until(lambda: io.connected)
        yield io


def tagged(bucket: int, name: str) -> str:
    """A key in one of the 1,024 buckets."""
    return f"{{{TAGS[bucket]}}}:{name}"


async def test_commands_go_to_the_owner_of_their_slot(cluster: RedisCluster) -> None:
    """Every bucket works; each primary has its share; a walk over all of them finds everything."""
    async with connected(cluster) as io:
        assert len(io.primaries()) == 3
        for address in io.primaries():
            await io.request([plain("FLUSHALL", at=address)])
        keys = [tagged(bucket, "k") for bucket in range(BUCKETS)]
        stored = await io.request([plain("SET", key, at) for at, key in enumerate(keys)])
        assert stored == [b"OK"] * BUCKETS
        read = await io.request([Command(pack("GET", key)) for key in keys])  # found all the same
        assert read == [b"%d" % at for at in range(BUCKETS)]
        counts = await io.request([plain("DBSIZE", at=address) for address in io.primaries()])
        assert sum(counts) == BUCKETS
        assert max(counts) - min(counts) <= 1


async def test_scripts_and_sharded_messages(cluster: RedisCluster) -> None:
    """apply.lua runs in the slot of its session, for sessions of every primary."""
    async with connected(cluster) as io:
        sids = [session_id() for _ in range(60)]
        replies = await io.request([_apply(io, sid, number) for number in (1, 2) for sid in sids])
        assert [reply[:2] for reply in replies] == [[0, 1]] * 60 + [[0, 2]] * 60
        assert await io.execute("SPUBLISH", tagged(7, "n1"), b"nobody listens") == 0


def _apply(io: RedisIO, sid: str, seq: int) -> Command:
    """A write of format 2 with every key that a cluster must be told."""
    request = write(sid, {"n": str(seq)}, create=True)
    numbered = Numbered(request, b"%08d" % seq, "s" * 11, seq)
    keys = [session_key(sid, letter) for letter in format2.LETTERS]
    return io.script_command("apply", keys, format2.arguments(numbered))


class Writer:
    """Sends RPUSH of 0, 1, 2 ... to one key, several at once and without waiting.

    `spread`: how many at most. `at_once`: how many in one turn of the event loop, at most.
    """

    def __init__(self, io: RedisIO, key: str, spread: int = 4, at_once: int = 4) -> None:
        self._io = io
        self.key = key
        self._next = 0
        self._spread = spread
        self._at_once = at_once
        self.under_way = 0
        self.refused: list[StoreError] = []
        self.acknowledged: list[int] = []

    async def run(self, over: Callable[[], bool]) -> None:
        """Until `over`, and until everything is answered."""
        while not over():
            for _ in range(min(self._at_once, self._spread - self.under_way)):
                self._submit()
            await trio.lowlevel.checkpoint()
        await until(lambda: not self.under_way)

    def _submit(self) -> None:
        number, self._next = self._next, self._next + 1
        self.under_way += 1
        self._io.submit([plain("RPUSH", self.key, number)], partial(self._answered, number))

    def _answered(self, number: int, replies: list[Any]) -> None:
        self.under_way -= 1
        if isinstance(replies[0], StoreError):
            self.refused.append(replies[0])
        else:
            self.acknowledged.append(number)


def inversions(numbers: list[int]) -> int:
    """How often a number follows a greater one."""
    return sum(one > other for one, other in pairwise(numbers))


async def moved_to_and_fro(
    cluster: RedisCluster, io: RedisIO, times: int, **how: int
) -> list[Writer]:
    """Writers on four keys of a slot that moves all the time."""
    bucket = 40
    slot = slot_of(TAGS[bucket])
    name = session_id()
    writers = [Writer(io, tagged(bucket, f"{name}:{at}"), **how) for at in range(4)]
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        for writer in writers:
            nursery.start_soon(writer.run, over.is_set)
        for turn in range(times):
            target = cluster.masters[turn % 2 + 1]
            await trio.to_thread.run_sync(cluster.move_slot, slot, target)
        over.set()
    return writers


async def test_order_while_a_slot_moves(cluster: RedisCluster) -> None:
    """Key by key, 50 times: nothing is refused, lost, doubled, or in another order."""
    async with connected(cluster) as io:
        for writer in await moved_to_and_fro(cluster, io, 50):
            stored = [int(number) for number in await io.execute("LRANGE", writer.key, 0, -1)]
            assert writer.refused == []
            assert stored == writer.acknowledged == list(range(len(stored)))
            assert len(stored) > 100


async def test_without_the_rule_of_lanes_the_order_is_lost(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where what failed is sent again after the rest, writes change places."""
    send_again_later(monkeypatch)
    async with connected(cluster) as io:
        found = 0
        for writer in await moved_to_and_fro(cluster, io, 5, spread=2_000, at_once=1):
            stored = [int(number) for number in await io.execute("LRANGE", writer.key, 0, -1)]
            found += inversions(stored)
    assert found > 0


async def test_a_replica_as_the_seed_and_a_dead_one() -> None:
    """Any server of the cluster tells the map; later it is not needed any more."""
    with RedisCluster(masters=2, replicas=1) as cluster:
        io = RedisIO(url_of(cluster.replicas[0]), deadline=PATIENCE)
        async with io.running():
            await until(lambda: io.connected)
            cluster.replicas[0].kill()
            keys = [tagged(bucket, "k") for bucket in range(0, BUCKETS, 16)]
            assert await io.request([plain("INCR", key) for key in keys]) == [1] * len(keys)


async def test_a_primary_killed_and_its_replica_promoted() -> None:
    """Its slots are refused until then, with nothing done; the others are not touched at all."""
    with RedisCluster(masters=3, replicas=1) as cluster:
        async with connected(cluster, deadline=2.0) as io:
            keys = [tagged(bucket, "k") for bucket in (0, BUCKETS - 1)]
            writers = [Writer(io, key, 1) for key in keys]
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(writer.run, over.is_set)
                await until(lambda: all(len(writer.acknowledged) > 50 for writer in writers))
                cluster.masters[0].kill()
                await until(lambda: not io.connected)
                await until(lambda: io.connected, FAILOVER_SECONDS)
                for writer in writers:
                    await _goes_on(writer)
                cluster.masters[0].start()
                await until(lambda: text(ask(cluster.masters[0], "ROLE")[0]) == "slave")
                for writer in writers:
                    await _goes_on(writer)
                over.set()
            assert writers[0].refused
            assert writers[1].refused == []
            for writer in writers:
                stored = [int(number) for number in await io.execute("LRANGE", writer.key, 0, -1)]
                assert inversions(stored) == 0
                assert len(stored) == len(set(stored))
            assert stored == list(range(len(stored)))


async def _goes_on(writer: Writer) -> None:
    count = len(writer.acknowledged)
    await until(lambda: len(writer.acknowledged) > count + 20)


async def test_a_replica_takes_over_in_order() -> None:
    """`CLUSTER FAILOVER` under writes: nothing is refused, lost or in another order."""
    with RedisCluster(masters=3, replicas=1) as cluster:
        async with connected(cluster) as io:
            writers = [Writer(io, tagged(bucket, "k")) for bucket in (0, 1, BUCKETS - 1)]
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(writer.run, over.is_set)
                    await _goes_on(writer)
                ask(cluster.replicas[0], "CLUSTER", "FAILOVER")
                await until(lambda: text(ask(cluster.masters[0], "ROLE")[0]) == "slave")
                for writer in writers:
                    await _goes_on(writer)
                over.set()
            for writer in writers:
                stored = [int(number) for number in await io.execute("LRANGE", writer.key, 0, -1)]
                assert writer.refused == []
                assert stored == writer.acknowledged == list(range(len(stored)))


async def test_the_target_of_a_slot_fails_over_while_it_moves() -> None:
    """Half of the keys are on a primary that hands over to its replica, which knows nothing of the
    move. Until that is put right their writes are refused, with nothing done; all that was
    acknowledged is there, once and in order."""
    bucket = 40
    slot, keys = slot_of(TAGS[bucket]), [tagged(bucket, f"k{at}") for at in range(4)]
    with RedisCluster(replicas=1) as cluster:
        source, target = cluster.owner(slot), cluster.masters[2]
        heir = cluster.replica_of(target)
        async with connected(cluster, deadline=1.0) as io:
            writers = [Writer(io, key) for key in keys]
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(writer.run, over.is_set)
                    await _goes_on(writer)
                cluster.begin_move(slot, source, target)
                for key in keys[:2]:
                    ask(source, "MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
                for writer in writers:
                    await _goes_on(writer)
                ask(heir, "CLUSTER", "FAILOVER")
                await until(lambda: text(ask(target, "ROLE")[0]) == "slave")
                await until(lambda: bool(writers[0].refused and writers[1].refused))
                cluster.begin_move(slot, source, heir)
                await trio.to_thread.run_sync(cluster.move_keys, slot, source, heir)
                cluster.end_move(slot, heir)
                for writer in writers:
                    await _goes_on(writer)
                over.set()
            for writer in writers:
                stored = [int(number) for number in await io.execute("LRANGE", writer.key, 0, -1)]
                assert inversions(stored) == 0
                assert len(stored) == len(set(stored))
                assert set(writer.acknowledged) <= set(stored)
                assert all(isinstance(one, StoreUnavailable) for one in writer.refused)
                assert len(stored) == len(writer.acknowledged)


async def test_a_primary_that_hangs_delays_nobody_else() -> None:
    """What was sent to it is not known; other slots are answered meanwhile."""
    with RedisCluster(masters=2) as cluster:
        async with connected(cluster) as io:
            hung, other = tagged(0, "k"), tagged(BUCKETS - 1, "k")
            cluster.masters[0].pause()
            late: list[Any] = []
            io.submit([plain("INCR", hung)], late.extend)
            for count in range(20):
                assert await io.execute("INCR", other) == count + 1
            assert late == []
            cluster.masters[0].resume()
            await until(lambda: late == [1])


async def test_a_slot_without_a_server() -> None:
    """It is refused by its name, and works once it is served again."""
    with RedisCluster(masters=2) as cluster:
        async with connected(cluster, deadline=1.0) as io:
            key = tagged(0, "k")
            ask(cluster.masters[0], "CLUSTER", "DELSLOTS", slot_of(TAGS[0]))
            with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                await io.execute("INCR", key)
            await until(lambda: "CLUSTERDOWN" in io.refusing)
            ask(cluster.masters[0], "CLUSTER", "ADDSLOTS", slot_of(TAGS[0]))
            await until(lambda: io.connected)
            assert await io.execute("INCR", key) == 1


async def test_another_database_is_refused(cluster: RedisCluster) -> None:
    """A cluster has database 0 alone."""
    async with RedisIO(cluster.url + "/3").running() as io:
        assert NO_DATABASE in io.refusing


async def test_valkey_moves_slots_itself() -> None:
    """CLUSTER MIGRATESLOTS under writes: order kept, nothing refused."""
    with RedisCluster(bundled(), masters=2) as cluster:
        async with connected(cluster) as io:
            writers = [Writer(io, tagged(bucket, "k")) for bucket in range(0, 64, 4)]
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(writer.run, over.is_set)
                target = cluster.id_of(cluster.masters[1])
                words = ("SLOTSRANGE", 0, 1_023, "NODE", target)
                ask(cluster.masters[0], "CLUSTER", "MIGRATESLOTS", *words)
                await until(lambda: cluster.owner(0) is cluster.masters[1], FAILOVER_SECONDS)
                for writer in writers:
                    await _goes_on(writer)
                over.set()
            for writer in writers:
                stored = [int(number) for number in await io.execute("LRANGE", writer.key, 0, -1)]
                assert writer.refused == []
                assert stored == writer.acknowledged == list(range(len(stored)))
