"""The process that delivers: it stops when another one may deliver, and has values written."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from support.events.receiver import receiving
from support.redis_servers import RedisServer, until
from support.server_kit import settings
from syncbridge.events.endpoints import Endpoint
from syncbridge.events.selection import Selection
from syncbridge_server.events import process
from syncbridge_server.events.process import Deliveries
from syncbridge_server.http.endpoints import new_secret
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints
from syncbridge_server.redis.stores.events import STATE


@asynccontextmanager
async def delivering(
    io: RedisIO, redis_url: str, configured: Sequence[Endpoint] = ()
) -> AsyncIterator[Deliveries]:
    """`syncbridge deliver`, in this process."""
    bus = RedisBus(io, "deliver-test")
    config = settings(redis_url, webhook_networks=("127.0.0.0/8",))
    async with bus.running(), trio.open_nursery() as nursery:
        deliveries = Deliveries(config, io, bus, configured)
        nursery.start_soon(deliveries.run)
        yield deliveries
        nursery.cancel_scope.cancel()


async def test_it_stops_when_the_lease_may_be_over(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis does not answer: another process, which it does answer, would send the same."""
    monkeypatch.setattr(process, "LEASE_MS", 2_000)
    monkeypatch.setattr(process, "KEEP_SECONDS", 0.2)
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(process, "SEEK_SECONDS", 0.1)
    async with RedisIO(redis_server.url, deadline=0.5).running() as io, receiving() as receiver:
        await RedisEndpoints(io).put(Endpoint("e", receiver.url(), [new_secret()]))
        async with delivering(io, redis_server.url) as deliveries:
            await until(lambda: bool(deliveries.workers))
            redis_server.pause()
            try:
                await until(lambda: not deliveries.workers)
            finally:
                redis_server.resume()
            await until(lambda: bool(deliveries.workers))


async def test_values_are_written_from_the_reading_of_a_file_that_wants_them(
    redis_server: RedisServer,
) -> None:
    """Not only with the next renewal, minutes later."""
    without = Endpoint("file-a", "http://127.0.0.1:9/", [new_secret()], configured=True)
    wanting = Endpoint(
        "file-a", without.url, without.secrets, Selection(values=True), configured=True
    )
    async with RedisIO(redis_server.url).running() as io:

        async def values() -> int:
            return int(await io.execute("HGET", STATE, "values") or -1)

        async with delivering(io, redis_server.url, [without]) as deliveries:
            with trio.fail_after(20):
                while await values() < 0:  # noqa: ASYNC110 - it says nothing
                    await trio.sleep(0.05)
            before = await values()
            deliveries.configure([wanting])
            with trio.fail_after(20):
                while not await values():  # noqa: ASYNC110 - it says nothing
                    await trio.sleep(0.05)

    assert 0 == before
