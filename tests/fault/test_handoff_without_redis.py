"""Redis away while devices are listed, removed and handed over: 503, and nothing is burnt."""

from collections.abc import AsyncIterator
from unittest.mock import patch

import httpx
import pytest
import redis
import trio

from support.redis_servers import RedisServer, until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device

JOINED, LEFT, DEVICE_LIST, ERROR = 10, 11, 12, 6
PAIR = {"source_device": "phone", "target_device": "tablet"}


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[Node]:
    async with running_node(redis_server.url, store_deadline=2.0) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        client.headers.update(bearer(mint("ann")))
        yield client


async def test_redis_killed_between_creation_and_redemption(
    node: Node, http: httpx.AsyncClient, redis_server: RedisServer
) -> None:
    """503 with Retry-After meanwhile; afterwards the token works, once."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        token = (await http.post(f"/session/{session}/handoff", json=PAIR)).json()["token"]
        path = f"/session/{session}/handoff/{token}"
        await trio.to_thread.run_sync(redis_server.kill)
        refused = [
            await http.get(path),
            await http.post(f"/session/{session}/handoff", json=PAIR),
            await http.get(f"/session/{session}/devices"),
            await http.delete(f"/session/{session}/device/phone"),
            await http.get("/users/ann/sessions"),
            await http.get("/users/ann/status"),
        ]
        listed = await phone.request(DEVICE_LIST)
        await trio.to_thread.run_sync(redis_server.start)
        await until(lambda: node.server.io.connected and node.server.bus.connected)
        redeemed = await http.get(path, headers={"X-Device-ID": "tablet"})
        left = await phone.receive(LEFT)

    assert [503] * 6 == [answer.status_code for answer in refused]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert (ERROR, "store_unavailable") == (listed["type"], listed["payload"]["code"])
    assert (200, {"a": 1}) == (redeemed.status_code, redeemed.json()["state_data"])
    assert "handoff" == left["payload"]["reason"]


async def test_a_redemption_whose_answer_was_lost_is_repeated(
    node: Node, http: httpx.AsyncClient, redis_server: RedisServer
) -> None:
    """Redis hangs after it was sent: 503; asking again gives the state, and releases once."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        token = (await http.post(f"/session/{session}/handoff", json=PAIR)).json()["token"]
        path = f"/session/{session}/handoff/{token}"
        redis_server.pause()
        try:
            unknown = await http.get(path)
            await until(lambda: not node.server.io.connected)
        finally:
            redis_server.resume()
        await until(lambda: node.server.io.connected)
        answers = [await http.get(path) for _ in range(2)]
        assert [200, 200] == [answer.status_code for answer in answers]
        await phone.receive(LEFT)
        await phone.request(1)

    assert 503 == unknown.status_code
    assert 1 == sum('"type":11' in text for text in phone.raw)


async def test_departures_that_were_not_heard_are_found(redis_server: RedisServer) -> None:
    """The bus breaks while devices come and go elsewhere: the lists are compared afterwards."""
    session = new_session()
    async with (
        running_node(redis_server.url) as one,
        running_node(redis_server.url) as two,
        await Device.open(one.port) as watch,
        await Device.open(two.port) as stays,
    ):
        await watch.auth(mint("ann"), "watch", session_id=session)
        await stays.auth(mint("ann"), "stays", session_id=session)
        leaves = await Device.open(two.port)
        await leaves.auth(mint("ann"), "leaves", session_id=session)
        await watch.receive(JOINED)
        await watch.receive(JOINED)
        unheard: list[bytes] = []
        with patch.object(one.server.bus, "receive", unheard.extend):
            await leaves.close()
            await until(lambda: any(b"leaves" in payload for payload in unheard))
        with redis.Redis.from_url(redis_server.url) as admin:
            admin.client_kill_filter(_type="pubsub")
        left = await watch.receive(LEFT)

    assert ("leaves", "disconnected") == (left["payload"]["device_id"], left["payload"]["reason"])
