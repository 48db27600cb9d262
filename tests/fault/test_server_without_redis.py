"""Redis is stopped, hangs, restarts or forgets its scripts while clients are connected.

What holds in all cases: nothing acknowledged is lost, nobody waits without an answer, and when
Redis is back everything goes on without anybody reconnecting.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import redis
import trio

from support.redis_servers import RedisServer, until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device

STATE_UPDATE, ERROR = 5, 6
DEADLINE = 1.0


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[Node]:
    async with running_node(redis_server.url, store_deadline=DEADLINE) as running:
        yield running


async def insist(
    device: Device, payload: dict[str, object], correlation_id: str | None = None
) -> dict[str, Any]:
    """Send a STATE_UPDATE again, when the server says so, until it works; its acknowledgement."""
    with trio.fail_after(20):
        while True:
            answer = await device.request(5, payload, correlation_id)
            if answer["type"] == STATE_UPDATE:
                return answer
            assert answer["payload"]["retryable"]
            await trio.sleep(answer["payload"]["retry_after_ms"] / 1000)


async def recovered(device: Device, key: str) -> dict[str, Any]:
    """Write until it works; returns the acknowledgement."""
    return await insist(device, {"key": key, "value": "back"})


async def became_ready(http: httpx.AsyncClient) -> None:
    """Ask the readiness probe as a load balancer does, until it agrees."""
    with trio.fail_after(20):
        while True:
            if (await http.get("/health/ready")).status_code == 200:
                return
            await trio.sleep(0.05)


async def check_refusals(node: Node, device: Device, session: str) -> None:
    """What a client sees while Redis is away: quick, typed, retryable; the socket stays."""
    with trio.fail_after(3 * DEADLINE + 2):
        write = await device.set("lost", 1)
        beat = await device.request(1)
        snapshot = await device.request(3)
        async with node.http() as http:
            read = await http.get(f"/session/{session}", headers=bearer(mint("ann")))
            health = (await http.get("/health")).json()
            ready = await http.get("/health/ready")
            live = await http.get("/health/live")

    assert (ERROR, "store_unavailable", True) == (
        write["type"],
        write["payload"]["code"],
        write["payload"]["retryable"],
    )
    assert write["payload"]["retry_after_ms"] > 0
    assert 2 == beat["type"]
    assert {"a": 1} == snapshot["payload"]["state_data"], "the replica still answers"
    assert (503, "store_unavailable") == (read.status_code, read.json()["code"])
    assert int(read.headers["retry-after"]) >= 1
    assert ("unhealthy", ["away"]) == (health["status"], health["reasons"])
    assert (503, 200) == (ready.status_code, live.status_code)
    assert "away" == ready.json()["reason"]


async def test_redis_killed_and_started_again(node: Node, redis_server: RedisServer) -> None:
    """Refused meanwhile; afterwards the acknowledged state is there and versions go on."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        await trio.to_thread.run_sync(redis_server.kill)
        await check_refusals(node, phone, session)
        async with await Device.open(node.port) as late:
            payload = {"token": mint("ann"), "device_id": "late", "session_id": session}
            refused = await late.request(7, payload)
            closed = await late.closed()
        await trio.to_thread.run_sync(redis_server.start)
        ack = await recovered(phone, "b")
        state = (await phone.request(3))["payload"]["state_data"]
        async with node.http() as http:
            stored = (await http.get(f"/session/{session}", headers=bearer(mint("ann")))).json()

    assert "store_unavailable" == refused["payload"]["code"]
    assert 4012 == closed.code
    assert (2, 1) == (ack["payload"]["version"], ack["payload"]["prev_version"])
    assert {"a": 1, "b": "back"} == state == stored["state_data"]


async def test_redis_hangs(node: Node, redis_server: RedisServer) -> None:
    """SIGSTOP: a write is answered within the deadline; its fate is told by sending it again."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        redis_server.pause()
        try:
            with trio.fail_after(5 * DEADLINE):
                answer = await phone.request(5, {"key": "b", "value": 2}, "unknown-fate")
        finally:
            redis_server.resume()
        again = await insist(phone, {"key": "b", "value": 2}, "unknown-fate")
        last = await recovered(phone, "c")
        state = (await phone.request(3))["payload"]["state_data"]

    assert "store_unavailable" == answer["payload"]["code"]
    assert 2 == again["payload"]["version"]
    assert 3 == last["payload"]["version"]
    assert {"a": 1, "b": 2, "c": "back"} == state


async def test_scripts_flushed(node: Node, redis_server: RedisServer) -> None:
    """SCRIPT FLUSH between writes: nobody notices."""
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=new_session())
        versions = []
        for n in range(20):
            if n % 5 == 0:
                with redis.Redis.from_url(redis_server.url) as admin:
                    admin.script_flush()
            versions.append((await phone.set("n", n))["payload"]["version"])

    assert list(range(1, 21)) == versions


async def test_redis_away_at_the_start(redis_server: RedisServer) -> None:
    """The server starts, says that it is not ready, and works when Redis comes."""
    redis_server.kill()
    async with running_node(redis_server.url, store_deadline=DEADLINE) as node:
        async with node.http() as http:
            before = (await http.get("/health/ready")).status_code
            redis_server.start()
            await became_ready(http)
        async with await Device.open(node.port) as phone:
            await until(lambda: node.server.auth.revocations.ready)
            await phone.auth(mint("ann"), "phone", session_id=new_session())
            ack = await phone.set("a", 1)

    assert 503 == before
    assert 1 == ack["payload"]["version"]


async def test_commit_whose_message_was_lost_is_found(redis_server: RedisServer) -> None:
    """The bus connection is cut while another node writes: the device still gets the change."""
    session = new_session()
    async with running_node(redis_server.url) as one, running_node(redis_server.url) as two:
        async with await Device.open(one.port) as phone, await Device.open(two.port) as tablet:
            await phone.auth(mint("ann"), "phone", session_id=session)
            await tablet.auth(mint("ann"), "tablet", session_id=session)
            with redis.Redis.from_url(redis_server.url) as admin:
                admin.client_kill_filter(_type="pubsub")
                for n in range(5):
                    await tablet.set("n", n)
            version, state = 0, {}
            while version < 5:
                payload = (await phone.receive(STATE_UPDATE))["payload"]
                assert payload["prev_version"] <= version
                version, state = payload["version"], state | payload["changes"]

    assert {"n": 4} == state
