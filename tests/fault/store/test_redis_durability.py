"""`replicas:N` and `fsync` on real servers: what is acknowledged, refused, left open; and reads."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from support.contract.requests import join, session_id, write
from support.redis_cluster import RedisCluster
from support.redis_servers import PATIENCE, RedisServer, bundled, default_binary, until, wait_until
from support.server_kit import mint, running_node, serve_once
from support.tcp_proxy import TcpProxy
from support.ws_client import Device
from syncbridge.errors import StoreError, StoreTimeout, StoreUnavailable
from syncbridge.records.sessions import Apply, Read, Snapshot, Status
from syncbridge_server import start
from syncbridge_server.redis.bus import readiness as module
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.readiness import StoreReadiness
from syncbridge_server.redis.durability import Durability
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.wire import NO_DATABASE
from syncbridge_server.redis.stores.store import RedisStore
from syncbridge_server.settings import ConfigError

AT_ONCE = ("--repl-diskless-sync-delay", 0)
REPLICAS = Durability(replicas=1)
FSYNC = Durability(fsync=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steady pace of the probes is not what is tested."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)


class Pair:
    """A primary and a replica, which hears it through a proxy."""

    def __init__(self, primary: RedisServer, replica: RedisServer, proxy: TcpProxy) -> None:
        self.primary, self.replica, self.proxy = primary, replica, proxy

    def online(self) -> bool:
        with self.primary.client() as client:
            return bool(client.info("replication").get("slave0", {}).get("state") == "online")


@contextmanager
def pair(kind: str = "redis") -> Iterator[Pair]:
    """Whole when it is entered."""
    binary = bundled() if kind == "valkey" else default_binary()
    with RedisServer(binary, tcp=True, options=AT_ONCE) as primary, TcpProxy(primary.port) as proxy:
        options = ("--replicaof", "127.0.0.1", proxy.port)
        with RedisServer(binary, tcp=True, options=options) as replica:
            found = Pair(primary, replica, proxy)
            wait_until(found.online, "the replica is in step", 30)
            yield found


class Node:
    """Connections, their watch and a store."""

    def __init__(self, io: RedisIO, readiness: StoreReadiness) -> None:
        self.io, self.readiness = io, readiness
        self.store = RedisStore(io, "n1")


@asynccontextmanager
async def node(url: str, durability: Durability, deadline: float = PATIENCE) -> AsyncIterator[Node]:
    """A node without its hub."""
    io = RedisIO(url, durability=durability, deadline=deadline)
    async with io.running():
        bus = RedisBus(io, "n1")
        async with bus.running(), StoreReadiness(io, bus).running() as readiness:
            yield Node(io, readiness)


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_silent_replica_leaves_writes_open_and_delays_no_read(kind: str) -> None:
    """Acknowledged; then unknown, a repetition too, and refused; reads go on; all is well again."""
    with pair(kind) as servers:
        async with node(servers.primary.url, REPLICAS, deadline=3.0) as one:
            await until(lambda: not one.readiness.reason)
            sid = session_id()
            first = write(sid, {"n": "1"}, stream="one", seq=1)
            assert (await one.store.call(first)).version == 1
            servers.replica.pause()
            second = write(sid, {"n": "2"}, mutation_id="m2")
            for _ in range(2):
                with pytest.raises((StoreTimeout, StoreUnavailable), match="DURABILITY"):
                    await one.store.call(second)
            await until(lambda: one.readiness.reason == "durability")
            with pytest.raises(StoreUnavailable, match="DURABILITY"):
                await one.store.call(write(sid, {"n": "3"}, mutation_id="m3"))
            assert (await one.store.call(Read(sid, owner_check=False))).version == 2
            welcome = await one.store.call(join(sid, node="n1", stream="one"))
            assert (welcome.status, welcome.applied) == (Status.OK, -1)
            servers.replica.resume()
            await until(lambda: not one.readiness.reason)
            again = await one.store.call(second)
            assert (again.status, again.version) == (Status.DUPLICATE, 2)
            assert (await one.store.call(join(sid, node="n1", stream="one"))).applied == 1


async def test_a_repetition_on_a_new_connection_is_not_acknowledged() -> None:
    """It finds "done before"; but no replica has that, and the connection itself wrote nothing.

    WAIT alone would say "enough" then, on Valkey: see `test_wait_looks_at_its_own_connection`.
    """
    with pair("valkey") as servers:
        async with node(servers.primary.url, REPLICAS, deadline=3.0) as one:
            await until(lambda: not one.readiness.reason)
            sid = session_id()
            servers.replica.pause()
            only = write(sid, {"n": "1"}, mutation_id="m1")
            with pytest.raises(StoreTimeout, match="DURABILITY"):
                await one.store.call(only)
            before = one.io.connections.writers[None]
            one.io.renew()
            await until(lambda: one.io.connections.writers[None] is not before)
            await until(lambda: one.io.connected)
            with pytest.raises((StoreTimeout, StoreUnavailable), match="DURABILITY"):
                await one.store.call(only)


def test_wait_looks_at_its_own_connection() -> None:
    """Why a SET stands before each WAIT: without one, a stopped replica is no obstacle."""
    with pair("valkey") as servers:
        servers.replica.pause()
        with servers.primary.client() as one, servers.primary.client() as other:
            one.set("k", "1")
            assert other.get("k") == b"1"
            assert other.wait(1, 100) == 1
            other.set("wait", "")
            assert other.wait(1, 100) == 0


async def test_a_read_does_not_wait_for_replicas() -> None:
    """Asked behind a write that waits for a silent replica, it is answered before that."""
    with pair() as servers:
        async with node(servers.primary.url, REPLICAS, deadline=3.0) as one:
            await until(lambda: not one.readiness.reason)
            sid = session_id()
            assert (await one.store.call(write(sid, {"n": "1"}))).version == 1
            servers.replica.pause()
            order: list[object] = []
            one.store.submit([write(sid, {"n": "2"}, mutation_id="m")], order.extend)
            one.store.submit([Read(sid, owner_check=False)], order.extend)
            await until(lambda: len(order) == 2)
            assert [type(answer) for answer in order] == [Snapshot, StoreTimeout]


async def test_too_few_replicas_at_connect() -> None:
    """Not ready from the start, and writes are refused at once; a replica that comes mends it."""
    with RedisServer(tcp=True, options=AT_ONCE) as primary:
        async with node(primary.url, REPLICAS) as one:
            assert one.readiness.reason == "durability"
            sid = session_id()
            with pytest.raises(StoreUnavailable, match="0 replicas are connected: DURABILITY"):
                await one.store.call(write(sid, {"n": "1"}))
            with RedisServer(options=("--replicaof", "127.0.0.1", primary.port)):
                await until(lambda: not one.readiness.reason)
                assert (await one.store.call(write(sid, {"n": "1"}))).version == 1


async def test_fsync_lost_and_mended(redis_server: RedisServer) -> None:
    """`appendfsync` is changed while it runs: not ready, writes refused; then all is well again."""
    async with node(redis_server.url, FSYNC) as one:
        assert not one.readiness.reason
        sid = session_id()
        assert (await one.store.call(write(sid, {"n": "1"}))).version == 1
        with redis_server.client() as raw:
            raw.config_set("appendfsync", "everysec")
            await until(lambda: one.readiness.reason == "durability")
            await until(lambda: one.io.server is not None and one.io.server.lacks != "")
            with pytest.raises(StoreUnavailable, match="appendfsync everysec in place of always"):
                await one.store.call(write(sid, {"n": "2"}))
            assert (await one.store.call(Read(sid, owner_check=False))).version == 1
            raw.config_set("appendfsync", "always")
        await until(lambda: not one.readiness.reason)
        assert (await one.store.call(write(sid, {"n": "2"}))).version == 2


async def test_health_and_metrics(redis_server: RedisServer) -> None:
    """503 with the reason, `unhealthy`, and the metric."""
    async with running_node(redis_server.url, durability="fsync") as whole, whole.http() as http:
        assert (await http.get("/health/ready")).status_code == 200
        with redis_server.client() as raw:
            raw.config_set("appendonly", "no")
        await until(lambda: whole.server.readiness.reason == "durability")
        ready, health = await http.get("/health/ready"), await http.get("/health")
        metrics = (await http.get("/metrics")).text
    assert (ready.status_code, ready.json()["reason"]) == (503, "durability")
    assert (health.json()["status"], health.json()["reasons"]) == ("unhealthy", ["durability"])
    assert 'syncbridge_store_not_ready{reason="durability"} 1.0' in metrics


async def test_cluster_each_primary() -> None:
    """Three primaries with a replica each: all are confirmed; one that lacks its own makes 503."""
    with RedisCluster(replicas=1) as cluster:
        async with node(cluster.url, REPLICAS) as one:
            await until(lambda: not one.readiness.reason)
            sids = [session_id() for _ in range(30)]
            written = [write(sid, {"n": "1"}, mutation_id="m") for sid in sids]
            assert [(await one.store.call(each)).version for each in written] == [1] * 30
            cluster.replicas[1].kill()
            await until(lambda: one.readiness.reason == "durability")
            answers = [await answered(one.store, write(sid, {"n": "2"})) for sid in sids]
            refused = [answer for answer in answers if isinstance(answer, StoreError)]
            assert 0 < len(refused) < len(sids)
            assert all("DURABILITY" in error.detail for error in refused)
            cluster.replicas[1].start()
            await until(lambda: not one.readiness.reason)


async def answered(store: RedisStore, request: Apply) -> object:
    """The answer or the error."""
    try:
        return await store.call(request)
    except StoreError as error:
        return error


@pytest.mark.parametrize(
    ("options", "durability", "words"),
    [
        ((), FSYNC, "fsync is set, and Redis has appendonly no in place of yes"),
        (("--appendonly", "yes"), FSYNC, "appendfsync everysec in place of always"),
        (("--rename-command", "CONFIG", ""), FSYNC, "CONFIG GET is refused"),
        ((), REPLICAS, "replicas:1 is set, and 0 replicas are connected"),
    ],
)
async def test_who_may_not_start(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], durability: Durability, words: str
) -> None:
    """The reason names what is set and what was found."""
    monkeypatch.setattr(start, "REPLICA_SECONDS", 0.3)
    with RedisServer(options=options) as server:
        with pytest.raises(ConfigError, match=f"SYNCBRIDGE_DURABILITY: .*{words}"):
            await start.admit(server.url, durability)


async def test_a_start_waits_for_replicas() -> None:
    """One that comes a moment later is no reason to refuse."""
    with RedisServer(tcp=True, options=AT_ONCE) as primary, RedisServer(tcp=True) as other:

        async def follow() -> None:
            await until(lambda: connections(primary) > 0)
            with other.client() as client:
                client.replicaof("127.0.0.1", primary.port)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await start.admit(primary.url, REPLICAS)


def connections(server: RedisServer) -> int:
    """How many of ours there are."""
    with server.client() as client:
        return sum(one["name"] == "syncbridge" for one in client.client_list())


@pytest.mark.parametrize(
    ("cluster", "variables", "words"),
    [
        (False, {"SYNCBRIDGE_DURABILITY": "fsync"}, "Redis has appendonly no in place of yes"),
        (True, {"REDIS_DB": "3"}, f"REDIS_DB: {NO_DATABASE}"),
    ],
)
def test_start_is_refused_with_one_line(
    tmp_path: Path, cluster: bool, variables: dict[str, str], words: str
) -> None:
    """On standard error; exit code 2. The number of a database is 0 in a cluster."""
    with RedisServer(cluster=cluster) as server:
        ended = serve_once(tmp_path, server.url, **variables)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("durability", ["memory", "replicas:1"])
async def test_what_the_bus_tells_a_writer(durability: str) -> None:
    """A device that has moved hears of its write from its new node before replicas may have it."""
    with pair() as servers:
        url, sid = servers.primary.url, session_id()
        async with (
            running_node(url, durability=durability) as one,
            running_node(url, durability=durability) as other,
            await Device.open(other.port) as device,
        ):
            await device.auth(mint("ann"), "d1", session_id=sid)
            # A node whose subscription had to be made anew catches up, without word of the writer.
            for number in range(1, 4):
                request = write(
                    sid, {"n": f"{number}"}, user_id="ann", device_id="d1", mutation_id=f"m{number}"
                )
                await one.server.store.call(request)
                news = await device.receive(5)
                assert news["payload"]["changes"] == {"n": number}
                if news["payload"]["device_id"]:
                    break
    assert news["payload"]["device_id"] == "d1"
    assert news.get("correlation_id") == (f"m{number}" if durability == "memory" else None)
