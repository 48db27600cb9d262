"""What a failover loses of what was acknowledged: nothing with `replicas:1`, surely some without.

`SYNCBRIDGE_FAILOVERS` makes the run longer than five failovers.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from support.counting import Counter
from support.history.places import is_primary
from support.redis_cluster import RedisCluster
from support.redis_sentinels import SentinelGroup
from support.redis_servers import RedisServer, until, wait_until
from support.server_kit import server_process
from support.tcp_proxy import TcpProxy
from support.ws_client import Device
from syncbridge.slots import TAGS, bucket_of, slot_of

FAILOVERS = int(os.environ.get("SYNCBRIDGE_FAILOVERS", "5"))
FAILOVER_SECONDS = 60.0
WRITERS = 6
BETWEEN = 20
AT_ONCE = ("--repl-diskless-sync-delay", 0)


async def more(counters: Sequence[Counter], count: int) -> None:
    """Wait until every writer has so many more acknowledgements."""
    wanted = [counter.acknowledged + count for counter in counters]
    pairs = list(zip(counters, wanted, strict=True))
    await until(lambda: all(c.acknowledged >= least for c, least in pairs), FAILOVER_SECONDS)


async def failovers(servers: SentinelGroup, counters: Sequence[Counter], count: int) -> None:
    """Kill the primary while everybody writes; the killed one comes back as a replica, empty."""
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        for counter in counters:
            nursery.start_soon(counter.run, over.is_set)
        for _ in range(count):
            await more(counters, BETWEEN)
            old = servers.primary()
            old.kill()
            await until(lambda old=old: servers.moved_from(old), FAILOVER_SECONDS)
            old.follow(servers.primary().port)
            old.start()
        await more(counters, BETWEEN)
        over.set()


@pytest.mark.slow
async def test_failovers_lose_nothing(tmp_path: Path) -> None:
    """One replica, `replicas:1`: primaries die by SIGKILL; each acknowledged 1 is there, once."""
    with SentinelGroup(replicas=1, timeout_ms=1_000) as servers:
        with server_process(tmp_path, servers.url, SYNCBRIDGE_DURABILITY="replicas:1") as node:
            counters = [Counter(node.port, f"d{at}") for at in range(WRITERS)]
            await failovers(servers, counters, FAILOVERS)
            stored = [await counter.stored() for counter in counters]
    told = [counter.acknowledged for counter in counters]
    unclear = sum(counter.unclear for counter in counters)
    print({"failovers": FAILOVERS, "acknowledged": sum(told), "asked again": unclear})
    assert stored == told
    assert unclear


class Timed(Counter):
    """A counter that knows for how long it was without an acknowledgement, at most, in seconds."""

    longest = last = 0.0

    async def _ask(self, device: Device, number: int) -> str:
        code = await super()._ask(device, number)
        if not code:
            now = trio.current_time()
            self.longest = max(self.longest, now - (self.last or now))
            self.last = now
        return code


def counters_of(cluster: RedisCluster, port: int) -> list[Timed]:
    """One whose session is on each primary, in their order."""
    found: dict[int, Timed] = {}
    while len(found) < len(cluster.masters):
        counter = Timed(port, "d1")
        owner = cluster.owner(slot_of(TAGS[bucket_of(counter.session)]))
        found.setdefault(cluster.masters.index(owner), counter)
    return [counter for _, counter in sorted(found.items())]


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["memory", "replicas:1"])
async def test_a_primary_of_a_cluster_dies(tmp_path: Path, durability: str) -> None:
    """With a node timeout of 2 s: its sessions are refused until the replica is promoted (and has a
    replica again, where that must confirm), the others not once; each acknowledged 1 is there."""
    with RedisCluster(replicas=1, timeout_ms=2_000) as cluster:
        kept = {"SYNCBRIDGE_DURABILITY": durability, "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false"}
        with server_process(tmp_path, cluster.url, **kept) as node:
            counters, old, over = counters_of(cluster, node.port), cluster.masters[0], trio.Event()
            async with trio.open_nursery() as nursery:
                for counter in counters:
                    nursery.start_soon(counter.run, over.is_set)
                await more(counters, BETWEEN)
                old.kill()
                killed, heir = trio.current_time(), cluster.replica_of(old)
                await until(lambda: is_primary(heir), FAILOVER_SECONDS)
                promoted = trio.current_time() - killed
                old.start()
                await more(counters, BETWEEN)
                over.set()
            stored = [await counter.stored() for counter in counters]
    away = [round(counter.longest, 2) for counter in counters]
    print({durability: "longest without an acknowledgement, s", "by primary": away})
    print({"of these until the promotion": round(promoted, 2)})
    assert stored == [counter.acknowledged for counter in counters]
    assert [True, False, False] == [counter.unclear > 0 for counter in counters]


class Lagging:
    """A primary, a replica that can be made to hear nothing, and the address that leads to one."""

    def __init__(self, primary: RedisServer, replica: RedisServer, line: TcpProxy) -> None:
        self.primary, self.replica = primary, replica
        self._line = line
        self.address = TcpProxy(primary.port)

    def cut_off(self) -> None:
        """The replica stays connected and hears nothing more."""
        self._line.deaf = True

    def promote(self) -> None:
        """Kill the primary; the address leads to the replica, which is the primary now."""
        self.primary.kill()
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        self.address.upstream = self.replica.port
        self.address.cut()


@contextmanager
def lagging() -> Iterator[Lagging]:
    """Whole when it is entered."""
    with RedisServer(tcp=True, options=AT_ONCE) as primary, TcpProxy(primary.port) as line:
        options = (*AT_ONCE, "--replicaof", "127.0.0.1", line.port)
        with RedisServer(tcp=True, options=options) as replica:
            found = Lagging(primary, replica, line)
            with found.address:
                wait_until(lambda: followers(primary) == 1, "the replica is in step", 30)
                yield found


def followers(server: RedisServer) -> int:
    """Replicas that are in step."""
    with server.client() as client:
        replication = client.info("replication")
    return sum(one.get("state") == "online" for one in replication.values() if type(one) is dict)


async def test_control_memory_loses_what_a_lagging_replica_lacks(tmp_path: Path) -> None:
    """The control: 20 acknowledged before it lags are there, 20 after that are lost."""
    with lagging() as servers:
        address = f"redis://127.0.0.1:{servers.address.port}"
        with server_process(tmp_path, address) as node:
            counter = Counter(node.port, "d1")
            assert await counter.add(20) == [""] * 20
            await until(lambda: caught_up(servers))
            servers.cut_off()
            assert await counter.add(20) == [""] * 20
            servers.promote()
            assert await counter.stored() == 20


async def test_replicas_leave_open_what_a_lagging_replica_lacks(tmp_path: Path) -> None:
    """The same with `replicas:1`: none after that is acknowledged; repeated, each counts once."""
    with lagging() as servers:
        address = f"redis://127.0.0.1:{servers.address.port}"
        with server_process(tmp_path, address, SYNCBRIDGE_DURABILITY="replicas:1") as node:
            counter = Counter(node.port, "d1")
            assert await counter.add(20) == [""] * 20
            servers.cut_off()
            assert set(await counter.add(4)) == {"store_unavailable"}
            assert counter.acknowledged == 20
            servers.promote()
            servers.primary.follow(servers.replica.port)
            servers.primary.start()
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(counter.run, over.is_set)
                await more([counter], 5)
                over.set()
            assert await counter.stored() == counter.acknowledged


def caught_up(servers: Lagging) -> bool:
    """Whether the replica has everything."""
    offsets = []
    for server, field in (
        (servers.primary, "master_repl_offset"),
        (servers.replica, "slave_repl_offset"),
    ):
        with server.client() as client:
            offsets.append(client.info("replication")[field])
    return offsets[0] == offsets[1]
