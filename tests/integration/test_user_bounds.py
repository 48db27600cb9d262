"""What one user, one device, or one socket that nobody knows may cost the others."""

import json
import zlib
from contextlib import AsyncExitStack, suppress
from typing import Any

import trio

from integration.listener.test_ws_compression import read_compressed
from support.listener.ws_raw import (
    CLOSE,
    CONTINUATION,
    PONG,
    TEXT,
    Client,
    close_payload,
    frame,
    open_plain,
)
from support.redis_servers import until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Closed, Device
from syncbridge.identity import Role

AUTH, AUTH_SUCCESS, AUTH_FAILURE, LEFT, JOINED = 7, 8, 9, 11, 10
DEFLATE = {"sec-websocket-extensions": "permessage-deflate"}


def snapshot(session_id: str, **state: Any) -> dict[str, Any]:
    return {"session_id": session_id, "user_id": "ann", "device_id": "d", "state_data": state}


def packed(message: object) -> bytes:
    """A message as its compressed payload."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = stream.compress(json.dumps(message).encode()) + stream.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\0\0\xff\xff")


async def refused_auth(node: Node, token: str, device_id: str, **extra: Any) -> tuple[str, int]:
    """Error code and close code of an AUTH that fails."""
    async with await Device.open(node.port) as device:
        await device.send(AUTH, {"token": token, "device_id": device_id, **extra})
        answer = await device.receive(AUTH_FAILURE)
        return answer["payload"]["code"], (await device.closed()).code


async def test_sessions_of_a_user_have_a_bound(redis_url: str) -> None:
    """However many are asked for, on two nodes, by REST and by socket; other users do not feel it,
    and what is there can be written."""
    tight = {"user_sessions": 8}
    async with (
        running_node(redis_url, **tight) as one,
        running_node(redis_url, **tight) as two,
        one.http() as http,
        two.http() as http_two,
    ):
        ids = [new_session() for _ in range(40)]
        token, other = bearer(mint("ann")), bearer(mint("bob"))
        made = [
            await client.post("/session/snapshot", json=snapshot(sid, a=1), headers=token)
            for sid in ids
            for client in (http, http_two)
        ]
        change = {"session_id": ids[0], "base_version": 1, "changes": {"a": 2}}
        again = await http.post("/session/incremental", json=change, headers=token)
        joined = await refused_auth(one, mint("ann"), "d", session_id=new_session())
        fine = snapshot(new_session(), a=1) | {"user_id": "bob"}
        welcome = await http.post("/session/snapshot", json=fine, headers=other)

    created = [answer for answer in made if answer.status_code == 201]
    refused = [answer.json() for answer in made if answer.status_code == 403]
    assert 8 == len(created)
    assert 64 == len(refused)
    assert {("quota_exceeded", "sessions", 8)} == {
        (body["code"], body["budget"], body["most"]) for body in refused
    }
    assert (200, 201) == (again.status_code, welcome.status_code)
    assert ("quota_exceeded", 4003) == joined


async def test_bytes_of_a_user_have_a_bound(redis_url: str) -> None:
    """Above it writes are refused; what only replaces is let on when it has been counted."""
    async with running_node(redis_url, user_bytes=100_000) as node:
        async with await Device.open(node.port) as device:
            await device.auth(mint("ann"), "phone")
            answers = [await device.set("key", "x" * 30_000) for _ in range(4)]
            async with node.http() as http:
                body = snapshot(new_session(), a="x" * 30_000)
                over = await http.post("/session/snapshot", json=body, headers=bearer(mint("ann")))
            usage = node.server.gateway.quota.budgets
            await until(lambda: usage.charge("ann", new_session(), 30_000, now=0.0) == "", 60)
            later = await device.set("key", "y" * 30_000)

    assert [5, 5, 5, 6, 5] == [answer["type"] for answer in (*answers, later)]
    assert "quota_exceeded" == answers[3]["payload"]["code"]
    assert "stored_bytes" == answers[3]["payload"]["details"]["budget"]
    assert (403, "quota_exceeded") == (over.status_code, over.json()["code"])


async def test_sockets_of_a_user_have_a_bound(redis_url: str) -> None:
    """In however many sessions they are; a place that is left can be taken again."""
    tight = {"user_sockets": 4, "max_devices_per_session": 4}
    async with running_node(redis_url, **tight) as node, AsyncExitStack() as stack:
        devices = []
        for n in range(4):
            device = await stack.enter_async_context(await Device.open(node.port))
            await device.auth(mint("ann"), f"d{n}", session_id=new_session())
            devices.append(device)
        refused = await refused_auth(node, mint("ann"), "d4", session_id=new_session())
        async with await Device.open(node.port) as other, await Device.open(node.port) as robot:
            await other.auth(mint("bob"), "d")
            await robot.auth(mint("ann", Role.SERVICE), "robot", session_id=new_session())
        await devices[0].close()
        await until(lambda: node.server.gateway.registry.sockets.get("ann") == 3, 60)
        async with await Device.open(node.port) as newest:
            await newest.auth(mint("ann"), "d5", session_id=new_session())

    assert ("rate_limited", 4007) == refused


async def fight(node: Node, joined: list[str], session_id: str) -> None:
    """A tab that comes back at once whenever the other one throws it out."""
    while True:
        try:
            async with await Device.open(node.port) as tab:
                await tab.send(
                    AUTH, {"token": mint("ann"), "device_id": "tab", "session_id": session_id}
                )
                answer = await tab.receive(AUTH_SUCCESS, AUTH_FAILURE)
                joined.append(answer["payload"].get("code", ""))
                await tab.closed(within=120)  # the last one in is not thrown out any more
        except Closed:
            continue


async def test_two_tabs_that_throw_each_other_out_are_damped(redis_url: str) -> None:
    """On two nodes; a third device hears of each join, and so of few."""
    session_id, joined = new_session(), list[str]()
    tight = {"device_joins_per_minute": 1}
    async with (
        running_node(redis_url, **tight) as one,
        running_node(redis_url, **tight) as two,
        await Device.open(one.port) as third,
    ):
        await third.auth(mint("ann"), "third", session_id=session_id)
        async with trio.open_nursery() as nursery:
            for node in (one, two):
                nursery.start_soon(fight, node, joined, session_id)
                nursery.start_soon(fight, node, joined, session_id)
            await until(lambda: joined.count("rate_limited") >= 300, 60)
            nursery.cancel_scope.cancel()
        await third.set("still", "served")

    heard = [message for message in third.seen if message["type"] in (JOINED, LEFT)]
    assert joined.count("") <= 2 * 11
    assert 0 < len(heard) <= 2 * 2 * 11


async def open_compressing(node: Node) -> Client:
    answer = await open_plain(node.port, "/ws", DEFLATE)
    assert answer.status == 101
    return answer.open


async def test_a_compressed_flood_before_auth_is_not_unfolded(redis_url: str) -> None:
    """40 sockets send 100 bombs each: each unfolds three at most, and is closed with 4007."""
    bomb = packed({"type": 1, "payload": "x" * 60_000})
    async with running_node(redis_url, message_burst=1000) as node:
        codes = set()
        for _ in range(40):
            client = await open_compressing(node)
            await client.link.send(frame(TEXT, bomb, rsv=4) * 100)
            codes.add((await client.closing())[0])
            await client.link.abort()
        inflated = node.server.gateway.hub.statistics().inflated
        client = await open_compressing(node)
        hello = {"type": AUTH, "payload": {"token": mint("ann"), "device_id": "d"}}
        await client.send(TEXT, packed(hello), rsv=4)
        welcome = await read_compressed(client)
        await client.link.abort()

    assert {4007} == codes
    assert inflated <= 40 * 3
    assert AUTH_SUCCESS == json.loads(welcome)["type"]


async def trickle(client: Client) -> None:
    """Fragments and pongs of a message that never ends."""
    with suppress(trio.BrokenResourceError):
        while True:
            await client.link.send(frame(CONTINUATION, b" ", fin=False) + frame(PONG))
            await trio.sleep(0.05)


async def test_a_message_that_never_ends_is_closed(redis_url: str) -> None:
    """More fragments, and pongs between them, change nothing: 4006 after the timeout."""
    async with running_node(redis_url, message_timeout=0.5) as node:
        client = (await open_plain(node.port)).open
        hello = {"type": AUTH, "payload": {"token": mint("ann"), "device_id": "d"}}
        await client.text(json.dumps(hello))
        await client.frame()
        await client.send(TEXT, b"{", fin=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, client)
            ended = await client.frame()
            nursery.cancel_scope.cancel()
        await client.link.abort()

    assert (CLOSE, close_payload(4006, "message not ended in time")) == ended
