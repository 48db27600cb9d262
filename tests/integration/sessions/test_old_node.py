"""A node of format 1 that starts beside ours: it cannot be kept from it, so ours stop writing."""

from typing import Any

import httpx
import pytest
import redis
import trio

from support.redis_servers import RedisServer
from support.server_kit import bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge_server.redis import formats
from syncbridge_server.redis.formats import FORMAT, RECORD

OLD = "an-old-node"


def starts(raw: redis.Redis) -> None:
    """What a node of format 1 writes at its start, and every five seconds."""
    raw.set(f"node:{OLD}", "{}", px=15_000)
    raw.zadd("nodes", {OLD: 1})


def ends(raw: redis.Redis) -> None:
    """As its lease does; it is still listed."""
    raw.delete(f"node:{OLD}")


def old_session(raw: redis.Redis, sid: str) -> None:
    """A session that it has written."""
    now = int(raw.time()[0]) * 1000
    meta = {"v": 1, "n": 4, "e": "0123456789ab", "u": "ann", "w": "d", "c": now, "m": now, "t": now}
    raw.hset(f"s:{{{sid}}}:m", mapping=meta | {"f": 0})
    raw.hset(f"s:{{{sid}}}:d", mapping={"old": "1"})
    raw.zadd(f"s:{{{sid}}}:k", {"old": 1})


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LOOK_SECONDS", 0.1)


async def becomes(http: httpx.AsyncClient, reason: str | None) -> None:
    """Until the node is ready, or not ready for a reason."""
    with trio.fail_after(10):
        while (await http.get("/health/ready")).json().get("reason") != reason:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def put(http: httpx.AsyncClient, sid: str, value: int) -> httpx.Response:
    """A snapshot on version 1."""
    body: dict[str, Any] = {
        "session_id": sid,
        "user_id": "ann",
        "device_id": "d",
        "app_version": "1",
        "version": 1,
    }
    body["state_data"] = {"k": value}
    return await http.post("/session/snapshot", json=body, headers=bearer(mint("ann")))


async def test_beside_an_old_node_nobody_of_ours_writes(redis_server: RedisServer) -> None:
    """Refused and not ready while it lives, by name; afterwards what it wrote is moved."""
    ours, theirs = new_session(), new_session()
    with redis_server.client() as raw:
        async with (
            running_node(redis_server.url) as node,
            node.http() as http,
            await Device.open(node.port) as device,
            await Device.open(node.port) as late,
        ):
            await device.auth(mint("ann"), "d", session_id=ours)
            await device.set("k", 1)
            starts(raw)
            await becomes(http, "old_node")
            assert "unhealthy" == (await http.get("/health")).json()["status"]
            assert 'not_ready{reason="old_node"} 1' in (await http.get("/metrics")).text

            refused = await device.set("k", 2)
            assert "store_unavailable" == refused["payload"]["code"]
            hello = {"token": mint("ann"), "device_id": "e", "session_id": ours}
            refused = await late.request(7, hello)
            assert "store_unavailable" == refused["payload"]["code"]
            answer = await put(http, ours, 3)
            assert (503, "store_unavailable") == (answer.status_code, answer.json()["code"])
            old_session(raw, theirs)
            answer = await http.get(f"/session/{theirs}", headers=bearer(mint("ann")))
            assert 503 == answer.status_code
            assert raw.exists(f"s:{{{theirs}}}:m")
            answer = await http.get(f"/session/{ours}", headers=bearer(mint("ann")))
            assert {"k": 1} == answer.json()["state_data"]

            ends(raw)
            await becomes(http, None)
            assert 200 == (await put(http, ours, 4)).status_code
            answer = await http.get(f"/session/{theirs}", headers=bearer(mint("ann")))
            assert {"old": 1} == answer.json()["state_data"]
        assert (0, False) == (raw.zcard("nodes"), raw.exists(f"s:{{{theirs}}}:m"))
        record = raw.hgetall(RECORD)
        assert (b"%d" % FORMAT, True) == (record[b"format"], b"old" in record)
