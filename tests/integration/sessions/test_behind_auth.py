"""What is sent right behind AUTH, by a client that does not wait for the answer, nor stays."""

import json
from typing import Any

import pytest
import trio

from support.redis_places import client_of
from support.redis_servers import RedisServer, until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.slots import session_key

AUTH, STATE_UPDATE, ERROR, AUTH_SUCCESS, AUTH_FAILURE = 7, 5, 6, 8, 9


def auth(session: str, user: str = "ann", device: str = "phone") -> str:
    payload = {"token": mint(user), "device_id": device, "session_id": session}
    return json.dumps({"type": AUTH, "payload": payload})


def write(number: int) -> str:
    payload = {"key": f"k{number}", "value": number, "operation": "SET"}
    return json.dumps({"type": STATE_UPDATE, "payload": payload, "correlation_id": f"c{number}"})


async def state(node: Node, session: str) -> dict[str, Any] | None:
    """The session's state; None while there is no such session."""
    async with node.http() as http:
        answer = await http.get(f"/session/{session}", headers=bearer(mint("r", Role.SERVICE)))
    found: dict[str, Any] | None = answer.json().get("state_data")
    return found


async def written(node: Node, session: str, wanted: dict[str, Any]) -> None:
    """Wait until a session has this state."""
    with trio.fail_after(10.0):
        while await state(node, session) != wanted:  # noqa: ASYNC110 - in another process
            await trio.sleep(0.01)


async def gone(node: Node) -> None:
    """Wait until the node has nobody, and knows of nobody who comes."""
    registry = node.server.gateway.registry
    await until(lambda: not registry.connections and not registry.sessions)


@pytest.mark.parametrize("how", ["close", "kill"])
async def test_what_came_before_the_close_is_done(redis_url: str, how: str) -> None:
    """Neither a close frame nor a dead socket takes back what had arrived before it."""
    session = new_session()
    async with running_node(redis_url) as node:
        watcher = await Device.open(node.port)
        async with watcher:
            await watcher.auth(mint("ann"), "watch", session_id=session)
            device = await Device.open(node.port)
            await device.send_many([auth(session), *map(write, range(5))])
            await getattr(device, how)()
            await written(node, session, {f"k{n}": n for n in range(5)})
            left = await watcher.receive(11)
        await gone(node)
    assert "phone" == left["payload"]["device_id"]


async def test_what_is_behind_a_refused_auth_is_not_done(redis_url: str) -> None:
    """The close changes nothing about that."""
    session = new_session()
    async with running_node(redis_url) as node, await Device.open(node.port) as ann:
        await ann.auth(mint("ann"), "watch", session_id=session)
        await ann.set("a", 1)
        bob = await Device.open(node.port)
        await bob.send_many([auth(session, "bob"), write(1)])
        await bob.close()
        await until(lambda: len(node.server.gateway.registry.connections) == 1)
        assert {"a": 1} == await state(node, session)
        assert 1 == len(node.server.gateway.registry.sessions)


async def test_a_token_revoked_meanwhile_does_nothing(redis_server: RedisServer) -> None:
    """The client has gone, Redis stands still, its token is taken back: what it sent is dropped."""
    session = new_session()
    async with running_node(redis_server.url) as node, await Device.open(node.port) as ann:
        await ann.auth(mint("ann"), "watch", session_id=session)
        await ann.set("a", 1)
        redis_server.pause()
        device = await Device.open(node.port)
        await device.send_many([auth(session), write(1)])
        await device.close()
        registry = node.server.gateway.registry
        await until(lambda: any(c.gone for c in registry))
        closed = node.server.gateway.close_revoked(lambda _, device_id: device_id == "phone")
        redis_server.resume()
        await until(lambda: len(registry.connections) == 1)
        assert ["ann"] == closed
        assert {"a": 1} == await state(node, session)


async def test_a_renewal_that_is_awaited_keeps_what_is_behind_it(redis_url: str) -> None:
    """After a handoff AUTH asks the store again; what comes behind it outlives the close, too."""
    session = new_session()
    async with running_node(redis_url) as node:
        phone = await Device.open(node.port)
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        async with node.http() as http:
            body = {"source_device": "phone", "target_device": "tablet"}
            path, headers = f"/session/{session}/handoff", bearer(mint("ann"))
            made = await http.post(path, json=body, headers=headers)
            token = made.json()["token"]
            redeemed = await http.get(
                f"{path}/{token}", headers=headers | {"X-Device-ID": "tablet"}
            )
            assert 200 == redeemed.status_code, redeemed.text
        await phone.receive(11)
        await phone.send_many([auth(session), write(1), write(2)])
        await phone.close()
        await written(node, session, {"a": 1, "k1": 1, "k2": 2})
        await gone(node)


DAMAGED_META = {
    "a negative version": {"v": "-5"},
    "a huge version": {"v": "9" * 30},
    "a version that is no number": {"v": "many"},
    "an epoch that would end its JSON text": {"e": 'x","y":"'},
    "an epoch that is not UTF-8": {"e": b"\xff"},
    "an owner that is not UTF-8": {"u": b"\xff"},
}


@pytest.mark.parametrize("damage", DAMAGED_META)
@pytest.mark.parametrize("protobuf", [False, True])
async def test_auth_to_a_damaged_session_is_answered(
    redis_url: str, damage: str, protobuf: bool
) -> None:
    """With the catalogue's error, at once; no count stays too high, and others are not held up."""
    raw = client_of(redis_url)
    bad, good = new_session(), new_session()
    async with running_node(redis_url) as node:
        async with await Device.open(node.port, protobuf=protobuf) as ann:
            await ann.auth(mint("ann"), "phone", session_id=bad)
            await ann.set("a", 1)
        await gone(node)
        raw.hset(session_key(bad, "m"), mapping=DAMAGED_META[damage])  # type: ignore[arg-type]
        async with (
            await Device.open(node.port, protobuf=protobuf) as ann,
            await Device.open(node.port) as bob,
        ):
            payload = {"token": mint("s", Role.SERVICE), "device_id": "d", "session_id": bad}
            await ann.send(AUTH, payload, "one")
            await bob.auth(mint("bob"), "d", session_id=good)
            answer = await ann.receive()
            closed = await ann.closed()
            await until(lambda: [good] == list(node.server.gateway.registry.sessions))
        await gone(node)
    raw.delete(session_key(bad, "m"))
    assert (AUTH_FAILURE, "one") == (answer["type"], answer["correlation_id"])
    assert ("state_damaged", False) == (answer["payload"]["code"], answer["payload"]["retryable"])
    assert 1011 == closed.code
