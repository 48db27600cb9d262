"""StoreReadiness: "ready" means that a write is stored and that other nodes get messages."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from support.contract.requests import join, session_id, write
from support.redis_servers import RedisServer, until, wait_until
from support.server_kit import running_node
from support.tcp_proxy import TcpProxy
from syncbridge.errors import StoreTimeout, StoreUnavailable
from syncbridge.records.sessions import Notice, Status
from syncbridge_server.redis.bus import readiness as module
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.messages import encode_echo, notice_channel
from syncbridge_server.redis.bus.readiness import StoreReadiness, configuration_warnings
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steady pace of the probes is not what is tested."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)


@asynccontextmanager
async def watched(
    url: str, node: str = "n1"
) -> AsyncIterator[tuple[RedisIO, RedisBus, StoreReadiness]]:
    """Both connections, and the watch over them."""
    io = RedisIO(url)
    async with io.running():
        bus = RedisBus(io, node)
        async with bus.running(), StoreReadiness(io, bus).running() as readiness:
            yield io, bus, readiness


async def becomes(readiness: StoreReadiness, reason: str) -> None:
    """Wait for a verdict."""
    await until(lambda: readiness.reason == reason)


async def test_ready_from_the_first_probe(redis_server: RedisServer) -> None:
    """There is a verdict before anything is served, and it counts as one change."""
    async with watched(redis_server.url) as (_, _, readiness):
        assert readiness.reason == ""
        assert readiness.figures() == [("ready", 1.0), ("readiness_changes_total", 1)]


async def test_out_of_memory(redis_server: RedisServer) -> None:
    """noeviction at its bound is 503 `oom`, and 200 again when there is memory."""
    async with running_node(redis_server.url) as node, node.http() as http:
        readiness = node.server.readiness
        assert (await http.get("/health/ready")).status_code == 200
        with redis_server.client() as raw:
            raw.config_set("maxmemory", 1)
            await becomes(readiness, "oom")
            ready, health = await http.get("/health/ready"), await http.get("/health")
            metrics = (await http.get("/metrics")).text
            raw.config_set("maxmemory", 0)
        await becomes(readiness, "")
        assert (await http.get("/health/ready")).status_code == 200
    assert (ready.status_code, ready.json()["reason"]) == (503, "oom")
    assert (health.json()["status"], health.json()["reasons"]) == ("unhealthy", ["oom"])
    assert 'syncbridge_store_not_ready{reason="oom"} 1.0' in metrics


async def test_redis_away_and_back(redis_server: RedisServer) -> None:
    """`away` while it is killed; ready after its start without anybody asking."""
    async with watched(redis_server.url) as (_, _, readiness):
        redis_server.kill()
        await becomes(readiness, "away")
        redis_server.start()
        await becomes(readiness, "")


async def test_a_replica_is_not_ready(redis_server: RedisServer) -> None:
    """A demoted server is `readonly` for the commands, whatever the bus hears."""
    async with watched(redis_server.url) as (_, _, readiness):
        with redis_server.client() as raw:
            raw.replicaof("127.0.0.1", 1)
            await becomes(readiness, "readonly")
            raw.replicaof("NO", "ONE")
        await becomes(readiness, "")


@pytest.mark.parametrize("whole_looks", [1, 10**9])
@pytest.mark.parametrize("left", [b"", b"garbage", [b"a list"]], ids=["none", "text", "list"])
async def test_forgetting_without_a_break_is_a_break(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    whole_looks: int,
    left: bytes | list[bytes],
) -> None:
    """FLUSHALL on open connections: the sessions are compared, whichever look finds it, and
    whatever stands in the place of the witness then."""
    monkeypatch.setattr(module, "WHOLE_LOOKS", whole_looks)
    async with watched(redis_server.url) as (_, bus, readiness):
        resyncs: list[int] = []
        bus.on_resync(lambda: resyncs.append(1))
        await until(lambda: readiness._number > 2)
        with redis_server.client() as raw, raw.pipeline() as pipeline:
            witness = next(raw.scan_iter("w:*"))
            pipeline.flushall()
            if isinstance(left, list):
                pipeline.rpush(witness, *left)
            elif left:
                pipeline.set(witness, left)
            pipeline.execute()
        await until(lambda: bool(resyncs))
        await becomes(readiness, "")


async def test_old_primary_alive_behind_a_forwarder() -> None:
    """After a promotion no message is missed, though the old connections stay open."""
    with (
        RedisServer(tcp=True) as old,
        RedisServer(tcp=True) as new,
        TcpProxy(old.port) as forwarder,
        old.client() as old_raw,
        new.client() as new_raw,
    ):
        new_raw.replicaof("127.0.0.1", old.port)
        wait_until(lambda: new_raw.info()["master_link_status"] == "up", "replicated")
        async with watched(f"redis://127.0.0.1:{forwarder.port}") as (io, bus, readiness):
            heard: list[str] = []
            bus.on_notice("test", lambda notice: heard.append(notice.data.decode()))
            forwarder.upstream = new.port
            new_raw.replicaof("NO", "ONE")
            old_raw.replicaof("127.0.0.1", new.port)
            run_id = new_raw.info()["run_id"]
            await until(lambda: bus.server is not None and bus.server.run_id == run_id)
            await until(lambda: io.server is not None and io.server.run_id == run_id)
            await becomes(readiness, "")
            for number in range(8):
                new_raw.execute_command("SPUBLISH", notice_channel("n1"), encode_echo(0))
                bus.tell("n1", Notice("test", "", b"%d" % number))
            await until(lambda: len(heard) == 8)


async def test_bus_alone_on_the_old_server() -> None:
    """Two masters behind one address: never ready with commands here and the bus there."""
    with (
        RedisServer(tcp=True) as one,
        RedisServer(tcp=True) as two,
        TcpProxy(one.port) as forwarder,
        one.client() as raw,
    ):
        async with watched(f"redis://127.0.0.1:{forwarder.port}") as (io, bus, readiness):
            forwarder.upstream = two.port
            changes = readiness.changes
            raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda: readiness.changes >= changes + 2)
            await becomes(readiness, "")
            assert io.server is not None
            assert bus.server is not None
            assert io.server.run_id == bus.server.run_id


def _recipe() -> list[str]:
    found = re.search(r"^ACL SETUSER syncbridge (.*)$", OPERATIONS.read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1).replace("PASSWORD", "secret").split()


async def test_acl_recipe(redis_server: RedisServer) -> None:
    """With the user of docs/operations.md a node is ready, stores and tells."""
    with redis_server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "syncbridge", *_recipe())
    url = f"{redis_server.url}?username=syncbridge&password=secret"
    async with watched(url) as (io, _, readiness):
        assert readiness.reason == ""
        assert await configuration_warnings(io) == []
        store, sid = RedisStore(io, "n1"), session_id()
        await store.call(join(sid))
        assert (await store.call(write(sid, {"a": "1"}))).version == 1


@pytest.mark.parametrize("command", ["spublish", "time", "evalsha", "set", "hset", "rpush", "lset"])
async def test_acl_without_a_command(redis_server: RedisServer, command: str) -> None:
    """What a write or a message needs and an ACL forbids is `noperm`."""
    with redis_server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "syncbridge", *_recipe(), f"-{command}")
        url = f"{redis_server.url}?username=syncbridge&password=secret"
        async with watched(url) as (_, _, readiness):
            assert readiness.reason == "noperm"
            raw.execute_command("ACL", "SETUSER", "syncbridge", f"+{command}")
            await becomes(readiness, "")


@pytest.mark.parametrize("command", ["hset", "hdel", "hlen", "rpush", "pexpireat", "zcard"])
async def test_acl_without_a_command_of_a_script(redis_server: RedisServer, command: str) -> None:
    """No script is run that would stop in its middle: nothing is stored of what is refused.

    Where the right is taken from a user who is connected, the first writes may be half done, and
    are of unknown outcome; then no other follows.
    """
    with redis_server.client() as raw:
        raw.flushall()
        raw.execute_command("ACL", "SETUSER", "syncbridge", *_recipe(), f"-{command}")
        url = f"{redis_server.url}?username=syncbridge&password=secret"
        async with watched(url) as (io, _, readiness):
            store, sid, other = RedisStore(io, "n1"), session_id(), session_id()
            assert readiness.reason == "noperm"
            assert command.upper() in io.refusing
            with pytest.raises(StoreUnavailable):
                await store.call(write(sid, {"a": "1", "b": "2"}, create=True))
            assert raw.keys(f"s:*{sid}*") == []
            raw.execute_command("ACL", "SETUSER", "syncbridge", f"+{command}")
            await becomes(readiness, "")
            await store.call(write(sid, {"a": "1", "b": "2"}, create=True))

            raw.execute_command("ACL", "SETUSER", "syncbridge", f"-{command}")
            with suppress(StoreTimeout):
                await store.call(write(session_id(), {"a": "1"}, create=True))
                await store.call(write(sid, {"c": "3"}, deletes="b"))
            await becomes(readiness, "noperm")
            with pytest.raises(StoreUnavailable):
                await store.call(write(other, {"a": "1"}, create=True))
            assert raw.keys(f"s:*{other}*") == []


async def test_write_that_could_not_be_published(redis_server: RedisServer) -> None:
    """It is stored and says so; that nobody hears of it is why the node is not ready."""
    with redis_server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "syncbridge", *_recipe())
        url = f"{redis_server.url}?username=syncbridge&password=secret"
        async with watched(url) as (io, _, readiness):
            sid = session_id()
            await RedisStore(io, "n1").call(join(sid, "a"))
            await RedisStore(io, "n2").call(join(sid, "b", node="n2"))
            raw.execute_command("ACL", "SETUSER", "syncbridge", "-publish", "-spublish")
            outcome = await RedisStore(io, "n1").call(write(sid, {"a": "1"}))
            assert (outcome.status, outcome.version) == (Status.OK, 1)
            assert raw.keys(f"s:*{sid}*:d")
            await becomes(readiness, "noperm")


async def test_warnings_of_the_configuration() -> None:
    """A policy that evicts, and no persistence, are named."""
    with RedisServer() as server:
        async with RedisIO(server.url).running() as io:
            await io.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            found = [setting for setting, _ in await configuration_warnings(io)]
    assert found == ["maxmemory-policy allkeys-lru", "no persistence"]
