"""An acknowledgement that a slow reader never gets, asked for again, and then the store is lost."""

from typing import Any

import anyio
import pytest
import redis

from support.client_kit import device, on, until
from support.redis_servers import RedisServer
from support.server_kit import new_session, running_node
from support.tcp_proxy import TcpProxy
from syncbridge_client import Session

BIG = "x" * 60_000
ENOUGH = 200
"""Writes of so many bytes, far more than sockets hold: the server has to fold what waits."""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_a_lost_answer_and_a_lost_store_end_no_update(backend: str) -> None:
    """Every update comes to an end, and what is told as lost is what the store does not have."""
    with RedisServer() as server:
        values: dict[str, Any] = {"rate_limit_enabled": False, "conflate_bytes": 4_096}
        async with running_node(server.url, **values) as node:
            with TcpProxy(node.port) as proxy:
                state = await on(backend, scenario, node.port, proxy, server.client())

    assert {"n": 1} == state


async def scenario(port: int, proxy: TcpProxy, raw: redis.Redis) -> dict[str, Any]:
    """The state in the end."""
    session = new_session()
    async with (
        device(proxy.port, "slow", session, ack_timeout=1) as slow,
        device(port, "other", session) as other,
    ):
        await slow.incr("n")
        await slow.synced(10)
        proxy.holding = frozenset({"deaf"})
        await pile_up(other)
        update = await slow.incr("n")
        await until(lambda: other.state["n"] == 2)
        proxy.holding = frozenset({"mute"})
        await until(lambda: slow.version == other.version)
        assert not update.done
        await until(lambda: proxy.held > 0)
        with raw:
            await anyio.to_thread.run_sync(raw.flushall)
        await until(lambda: "big" not in other.state)
        proxy.holding = frozenset()
        await slow.synced(20)
        return {"n": (await slow.snapshot())["n"]}


async def pile_up(other: Session) -> None:
    """More than the sockets on the way to the slow device hold."""
    for number in range(ENOUGH):
        await other.set("big", f"{number} {BIG}")
        await other.synced(10)
