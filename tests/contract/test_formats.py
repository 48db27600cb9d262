"""Which releases may use a Redis together, and when data of the one before is looked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.redis_servers import RedisServer
from support.server_kit import ACCESS_SECRET, REFRESH_SECRET, bare_environment
from syncbridge_server.redis.formats import FORMAT, NODES, RECORD, FormatRefused, admit, old_data
from syncbridge_server.redis.link.client import RedisIO

HOUR = 3_600_000


async def test_empty_database_has_no_old_data(redis_server: RedisServer) -> None:
    """The first node notes the format; nobody looks for keys of format 1."""
    async with RedisIO(redis_server.url, deadline=8.0).running() as io:
        await admit(io)
        assert not await old_data(io, HOUR)
        assert await io.execute("HGETALL", RECORD) == [b"format", b"%d" % FORMAT]
        await io.execute("SET", "anything", "1")
        assert not await old_data(io, HOUR)


async def test_database_without_a_record_may_have_old_data(redis_server: RedisServer) -> None:
    """For as long as a session lives; also when a backup of format 1 is put back later."""
    async with RedisIO(redis_server.url, deadline=8.0).running() as io:
        await io.execute("SET", "anything", "1")
        assert await old_data(io, HOUR)
        until = int(await io.execute("HGET", RECORD, "old"))
        assert await old_data(io, HOUR)
        assert int(await io.execute("HGET", RECORD, "old")) == until
        await io.execute("HSET", RECORD, "old", 1)
        assert not await old_data(io, HOUR)
        await io.execute("DEL", RECORD)
        assert await old_data(io, HOUR)


async def test_cluster_has_no_old_data() -> None:
    """No cluster could run format 1."""
    with RedisServer(cluster=True) as server:
        async with RedisIO(server.url, deadline=8.0).running() as io:
            await io.execute("SET", "anything", "1")
            assert not await old_data(io, HOUR)


async def test_live_nodes_of_format_1_and_later_formats_are_refused(
    redis_server: RedisServer,
) -> None:
    """By name; a node that has gone is not in the way."""
    async with RedisIO(redis_server.url, deadline=8.0).running() as io:
        await io.execute("ZADD", "nodes", 1, "a1", 2, "b2")
        await admit(io)
        assert await io.execute("ZRANGE", "nodes", 0, -1) == []
        await io.execute("SET", "node:b2", "{}")
        await io.execute("ZADD", "nodes", 2, "b2")
        with pytest.raises(FormatRefused, match=r"format 1 \(b2\): stop all of them first"):
            await admit(io)
        await io.execute("DEL", "node:b2")
        await io.execute("HSET", RECORD, "format", FORMAT + 1)
        with pytest.raises(FormatRefused, match="data of format 3"):
            await admit(io)
        await io.execute("HSET", RECORD, "format", FORMAT)
        await io.execute("HSET", NODES, "n1", f"7 {FORMAT} 1", "broken", "x")
        await admit(io)
        await io.execute("HSET", NODES, "n2", f"7 {FORMAT + 1} 1")
        with pytest.raises(FormatRefused, match="nodes of format 3; this release knows 2"):
            await admit(io)


def test_start_beside_a_node_of_format_1(redis_server: RedisServer, tmp_path: Path) -> None:
    """One line and status 2, with workers and without."""
    with redis_server.client() as raw:
        raw.zadd("nodes", {"old-node": 1})
        raw.set("node:old-node", "{}")
    for workers in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "syncbridge_server", "serve", "--workers", workers],
            env=bare_environment()
            | {"SERVER_ADDR": "127.0.0.1:0", "REDIS_ADDR": redis_server.url}
            | {"JWT_SECRET": ACCESS_SECRET, "JWT_REFRESH_SECRET": REFRESH_SECRET}
            | {"SYNCBRIDGE_DATA_DIR": str(tmp_path)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (2, 1) == (done.returncode, done.stderr.count(b"\n")), done.stderr
        assert b"in use by nodes of format 1 (old-node): stop all of them first" in done.stderr
