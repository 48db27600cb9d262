"""A node without its hub: its connections to Redis, the watch over them, and what it hears."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from support.contract.requests import join, session_id, write
from support.redis_servers import until
from syncbridge.records.sessions import Commit
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.readiness import StoreReadiness
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

ARRIVE_SECONDS = 60.0


class Watched:
    """One node: its connections, the watch over them, and the commits that it has heard.

    `breaks`: how often messages may have been lost, counted once they arrive again.
    """

    def __init__(self, io: RedisIO, bus: RedisBus, readiness: StoreReadiness) -> None:
        self.io, self.bus, self.readiness = io, bus, readiness
        self.store = RedisStore(io, bus.node)
        self.heard: list[int] = []
        self.breaks = 0
        bus.on_commits(self._hear)
        bus.on_resync(self._missed)

    def _hear(self, commits: Sequence[Commit]) -> None:
        self.heard += [commit.version for commit in commits]

    def _missed(self) -> None:
        self.breaks += 1

    def on(self, port: int) -> bool:
        """Whether commands and bus are on the server at a port, and both work."""
        servers = (self.io.server, self.bus.server)
        return not self.readiness.reason and all(
            server is not None and server.address == ("127.0.0.1", port) for server in servers
        )


@asynccontextmanager
async def watched(url: str, node: str) -> AsyncIterator[Watched]:
    """A node without its hub."""
    io = RedisIO(url)
    async with io.running():
        bus = RedisBus(io, node)
        async with bus.running(), StoreReadiness(io, bus).running() as readiness:
            yield Watched(io, bus, readiness)


async def writes_arrive(one: Watched, other: Watched) -> None:
    """What one node writes and has acknowledged, the other hears, each once and in order.

    What is published while the bus has no connection is lost to a node without a hub, which would
    compare: that is tried again.
    """
    with trio.fail_after(ARRIVE_SECONDS):
        while not await _all_heard(one, other):
            await until(lambda: not other.readiness.reason, ARRIVE_SECONDS)


async def _all_heard(one: Watched, other: Watched) -> bool:
    """False when a connection of the bus broke meanwhile."""
    sid, breaks = session_id(), other.breaks
    await other.store.call(join(sid, node=other.bus.node))
    other.heard.clear()
    for number in range(20):
        assert (await one.store.call(write(sid, {"n": str(number)}))).version == number + 1
    await until(lambda: len(other.heard) >= 20 or other.breaks != breaks)
    if other.breaks != breaks:
        return False
    assert other.heard == list(range(1, 21))
    return True
