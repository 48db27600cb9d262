"""Redis away while gateways report their calls: 503 in time, and nothing that was told is lost."""

import uuid

import trio

from support.redis_servers import RedisServer, until
from support.server_kit import bearer, mint, running_node
from syncbridge.identity import Role
from syncbridge_client import SessionManagerClient


async def test_every_request_is_503_and_the_calls_are_there_afterwards(
    redis_server: RedisServer,
) -> None:
    """503 with Retry-After for each route; a restarted Redis has the call as it was told."""
    call_id = uuid.uuid4().hex
    path, state = f"/sessions/{call_id}", {"state": "terminated"}
    async with running_node(redis_server.url, store_deadline=1.0) as node, node.http() as http:
        http.headers.update(bearer(mint("gw", Role.SERVICE)))
        await http.post("/sessions", json={"id": call_id, "type": "SIP"})
        await http.put(f"{path}/state", json={"state": "active"})
        before = (await http.get(path)).json()
        await trio.to_thread.run_sync(redis_server.kill)
        refused = [
            await http.post("/sessions", json={"id": "b", "type": "SIP"}),
            await http.get("/sessions"),
            await http.get(path),
            await http.get(f"{path}/history"),
            await http.put(f"{path}/state", json=state),
            await http.put(f"{path}/details", json={"details": {"a": "1"}}),
            await http.delete(path),
        ]
        await trio.to_thread.run_sync(redis_server.start)
        await until(lambda: node.server.io.connected)
        after = (await http.get(path)).json()

    assert [(503, "store_unavailable")] * 7 == [(r.status_code, r.json()["code"]) for r in refused]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert before == after


async def test_a_gateway_that_asks_again_is_answered_once(redis_server: RedisServer) -> None:
    """Redis hangs while a call is made and comes back: the client has it, made once."""
    call_id = uuid.uuid4().hex
    async with running_node(redis_server.url, store_deadline=0.5) as node:
        token = mint("gw", Role.SERVICE)
        made = []
        async with SessionManagerClient(node.url, token, backoff_cap=0.2) as calls:

            async def create() -> None:
                made.append(await calls.create(call_id, "SIP"))

            redis_server.pause()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(create)
                await until(lambda: not node.server.io.connected)
                redis_server.resume()
            listed = [call async for call in calls.all()]

    assert [call_id] == [call.id for call in made]
    assert made == listed
