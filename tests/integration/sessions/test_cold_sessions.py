"""A session that was packed away, as devices and HTTP clients see it: not at all."""

import trio

from support.redis_servers import RedisServer, until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.slots import session_key

STATE = {f"key-{number}": {"text": "some text " * 5, "n": number} for number in range(30)}


async def packed(node: Node, redis: RedisServer, session: str) -> None:
    """Let the node's freezer work until the session is packed."""
    with redis.client() as raw, trio.fail_after(10):
        while not raw.exists(session_key(session, "z")):
            await node.server.freezer.sweep()
            await trio.sleep(0.05)


async def test_devices_come_back_to_a_packed_session(redis_server: RedisServer) -> None:
    """Resume, join, write, read: the answers are those of a session that was never packed."""
    session = new_session()
    token = mint("user-1", session=session)
    async with running_node(redis_server.url, freeze_after=0.1, freeze_bytes=500) as node:
        async with await Device.open(node.port) as first:
            await first.auth(token, "one")
            for key, value in STATE.items():
                await first.set(key, value)
            epoch = (await first.request(3))["payload"]["epoch"]
            version = 30
            await first.close()
        await until(lambda: not node.server.gateway.registry.connections)
        await packed(node, redis_server, session)

        async with await Device.open(node.port) as again:
            resume = {"epoch": epoch, "version": version - 1}
            welcome = await again.auth(token, "one", resume=resume)
            assert (True, {"key-29": STATE["key-29"]}) == (welcome["resumed"], welcome["changes"])
            await again.close()
        await until(lambda: not node.server.gateway.registry.connections)
        await packed(node, redis_server, session)

        async with node.http() as http:
            http.headers.update(bearer(token))
            answer = await http.get(f"/session/{session}")
            assert (STATE, version) == (answer.json()["state_data"], answer.json()["version"])
            tag = {"If-None-Match": answer.headers["etag"]}
            await packed(node, redis_server, session)
            assert 304 == (await http.get(f"/session/{session}", headers=tag)).status_code
            with redis_server.client() as raw:
                assert raw.exists(session_key(session, "z"))

        async with await Device.open(node.port) as new:
            welcome = await new.auth(token, "two")
            assert STATE == welcome["state_data"]
            await new.set("another", 1)
            await new.close()
        async with node.http() as http:
            text = (await http.get("/metrics")).text.splitlines()
        counts = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text if line[0] != "#"}
        assert counts["syncbridge_cold_frozen_total"] >= 3
        assert counts["syncbridge_cold_thawed_total"] >= 3


async def test_a_damaged_session_is_told_to_its_users_only(redis_server: RedisServer) -> None:
    """HTTP 500 `state_damaged` and AUTH_FAILURE for that session; another one is served."""
    session, other = new_session(), new_session()
    async with running_node(redis_server.url, freeze_after=0.1, freeze_bytes=500) as node:
        async with node.http() as http:
            http.headers.update(bearer(mint("user-1")))
            for sid in (session, other):
                body = {"session_id": sid, "user_id": "user-1", "state_data": STATE}
                assert 201 == (await http.post("/session/snapshot", json=body)).status_code
            await packed(node, redis_server, session)
            with redis_server.client() as raw:
                raw.set(session_key(session, "z"), b"junk")
            bad, good = await http.get(f"/session/{session}"), await http.get(f"/session/{other}")
            async with await Device.open(node.port) as device:
                refused = await device.request(
                    7, {"token": mint("user-1", session=session), "device_id": "one"}
                )

    assert (500, "state_damaged") == (bad.status_code, bad.json()["code"])
    assert (200, STATE) == (good.status_code, good.json()["state_data"])
    assert (9, "state_damaged") == (refused["type"], refused["payload"]["code"])
