"""Messages that a client sends right behind AUTH, without waiting for its answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from support import protobuf_kit
from support.listener.listener_site import certificate
from support.listener.ws_raw import (
    BINARY,
    TEXT,
    Answer,
    Client,
    StreamLink,
    frame,
    handshake_headers,
    open_http2,
    open_plain,
    open_tls,
    read_answer,
    request_bytes,
)
from support.redis_servers import RedisServer
from support.server_kit import mint, new_session, running_node
from support.ws_client import Device
from syncbridge.protocol import BEHIND_AUTH_BYTES, BEHIND_AUTH_MESSAGES
from syncbridge_server.gateway.joining import Joining

HEARTBEAT, HEARTBEAT_ACK, SNAPSHOT_REQUEST, SNAPSHOT_RESPONSE, UPDATE, ERROR = 1, 2, 3, 4, 5, 6
AUTH, AUTH_SUCCESS, DEVICE_LIST = 7, 8, 12
Message = dict[str, Any]


def messages(session: str, token: str, *more: Message) -> list[Message]:
    """AUTH and what comes behind it, numbered by correlation ids."""
    auth = {"type": AUTH, "payload": {"token": token, "device_id": "d", "session_id": session}}
    return [one | {"correlation_id": f"c{n}"} for n, one in enumerate((auth, *more))]


def setting(key: str, value: Any) -> Message:
    return {"type": UPDATE, "payload": {"key": key, "value": value, "operation": "SET"}}


def written(sent: Sequence[Message], binary: bool) -> bytes:
    """All of them as frames, for one write."""
    if binary:
        return b"".join(frame(BINARY, protobuf_kit.encode(one)) for one in sent)
    return b"".join(frame(TEXT, json.dumps(one).encode()) for one in sent)


async def answers(client: Client, count: int, binary: bool = False) -> list[tuple[int, str]]:
    """Type and correlation id of the next answers; DEVICE_LEFT and the like have no id."""
    found: list[tuple[int, str]] = []
    while len(found) < count:
        data = await client.message()
        message = protobuf_kit.decode(data) if binary else json.loads(data)
        if message.get("correlation_id"):
            found.append((message["type"], message["correlation_id"]))
    return found


IN_ORDER = [(AUTH_SUCCESS, "c0"), (UPDATE, "c1"), (DEVICE_LIST, "c2")]


@pytest.mark.parametrize("binary", [False, True], ids=["json", "protobuf"])
@pytest.mark.parametrize("way", ["plain", "tls", "http2"])
async def test_three_messages_in_one_write(
    way: str, binary: bool, redis_url: str, tmp_path: Path
) -> None:
    """AUTH, a write and a request: all are answered, in order, and the write is stored."""
    values: dict[str, Any] = {}
    if way != "plain":
        cert, key = await trio.to_thread.run_sync(certificate, tmp_path)
        values = {"tls_cert": cert, "tls_key": key}
    opener = {"plain": open_plain, "tls": open_tls, "http2": open_http2}[way]
    offer = {"sec-websocket-protocol": "syncbridge.proto.v1" if binary else "syncbridge.json.v1"}
    session, token = new_session(), mint("ann")
    sent = messages(session, token, setting("k", 1), {"type": DEVICE_LIST, "payload": {}})
    async with running_node(redis_url, **values) as node:
        answer = await opener(node.port, "/ws", offer)
        await answer.link.send(written(sent, binary))
        got = await answers(answer.open, 3, binary)
        await answer.link.abort()
        again = await opener(node.port, "/ws", offer)
        await again.link.send(written(messages(session, token), binary))
        data = await again.open.message()
        welcome = protobuf_kit.decode(data) if binary else json.loads(data)
        await again.link.abort()

    assert IN_ORDER == got
    assert {"k": 1} == welcome["payload"]["state_data"]


async def test_all_of_it_in_the_write_of_the_handshake(redis_url: str) -> None:
    """A client may know that the handshake will be accepted."""
    sent = messages(new_session(), mint("ann"), setting("k", 1), {"type": DEVICE_LIST})
    head = request_bytes("/ws", handshake_headers())
    async with running_node(redis_url) as node:
        link = StreamLink(await trio.open_tcp_stream("127.0.0.1", node.port))
        await link.send(head + written(sent, False))
        answer: Answer = await read_answer(link)
        got = await answers(answer.open, 3)
        await link.abort()

    assert IN_ORDER == got


async def test_every_kind_and_every_fault_has_its_turn(redis_url: str) -> None:
    """Writes of one key follow each other; a heartbeat, a second AUTH, a message that is not
    acceptable and one of an unknown type are answered as they would be behind AUTH_SUCCESS."""
    token = mint("ann")
    sent = messages(
        new_session(),
        token,
        {"type": HEARTBEAT, "payload": {}},
        setting("k", 1),
        setting("k", 2),
        {"type": 99, "payload": {}},
        {"type": UPDATE, "payload": {"operation": "SET"}},
        {"type": AUTH, "payload": {"token": token}},
        setting("k", 3),
    )
    async with running_node(redis_url) as node:
        answer = await open_plain(node.port)
        await answer.link.send(written(sent, False))
        got = await answers(answer.open, 8)
        await answer.link.send(written([{"type": SNAPSHOT_REQUEST, "correlation_id": "s"}], False))
        snapshot = json.loads(await answer.open.message())
        await answer.link.abort()

    assert (AUTH_SUCCESS, "c0") == got[0]
    assert [(UPDATE, "c2"), (UPDATE, "c3"), (UPDATE, "c7")] == [a for a in got if a[0] == UPDATE]
    assert {(HEARTBEAT_ACK, "c1"), (ERROR, "c4"), (ERROR, "c5"), (AUTH_SUCCESS, "c6")} <= set(got)
    assert {"k": 3} == snapshot["payload"]["state_data"]


@pytest.mark.parametrize("token", ["not a token", "of another session"])
async def test_what_comes_behind_a_refused_auth_is_dropped(redis_url: str, token: str) -> None:
    """One refusal for AUTH, and the close; nothing is written, nothing else is said."""
    session = new_session()
    if token != "not a token":
        async with running_node(redis_url) as node, await Device.open(node.port) as owner:
            await owner.auth(mint("owner"), "o", session_id=session)
            await owner.set("k", 0)
        token = mint("ann")
    sent = messages(session, token, setting("k", 1), {"type": DEVICE_LIST})
    async with running_node(redis_url) as node:
        answer = await open_plain(node.port)
        await answer.link.send(written(sent, False))
        refused = json.loads(await answer.open.message())
        code, _ = await answer.open.closing()
        counters = node.server.gateway.counters
        await answer.link.abort()

    assert "c0" == refused["correlation_id"]
    assert code in (4002, 4003, 4011), code
    assert 0 == counters.writes


async def test_what_waits_is_bounded(redis_server: RedisServer) -> None:
    """Of many messages the first are handled, in order and without a gap; the rest are told so at
    once, also by bytes, and the connection goes on."""
    count = BEHIND_AUTH_MESSAGES + 5
    sent = messages(new_session(), mint("ann"), *(setting(f"k{n}", n) for n in range(count)))
    large = messages(new_session(), mint("ann"), *(setting("k", "x" * 60_000) for _ in range(5)))
    assert 5 * 60_000 > BEHIND_AUTH_BYTES
    async with running_node(redis_server.url) as node:
        for some in (sent, large):
            answer = await open_plain(node.port)
            redis_server.pause()
            await answer.link.send(written(some, False))
            refused = json.loads(await answer.open.message())
            redis_server.resume()
            rest = await answers(answer.open, len(some) - 1)
            assert (ERROR, "rate_limited") == (refused["type"], refused["payload"]["code"])
            done = [int(name[1:]) for kind, name in rest if kind == UPDATE]
            assert list(range(1, len(done) + 1)) == done
            assert f"c{len(done) + 1}" == refused["correlation_id"]
            await answer.link.send(written([{"type": HEARTBEAT, "correlation_id": "h"}], False))
            assert [(HEARTBEAT_ACK, "h")] == await answers(answer.open, 1)
            await answer.link.abort()


async def test_a_fault_in_one_of_them_ends_its_connection_only(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the tick: INTERNAL for that connection, and others are welcome."""

    def crash(*args: Any) -> None:
        raise LookupError("a bug")

    token = mint("ann")
    async with running_node(redis_url) as node:
        with monkeypatch.context() as patch:
            patch.setattr(Joining, "refresh", crash)
            sent = messages(new_session(), token, {"type": AUTH, "payload": {"token": token}})
            answer = await open_plain(node.port)
            await answer.link.send(written(sent, False))
            code, _ = await answer.open.closing()
        async with await Device.open(node.port) as other:
            await other.auth(token, "other")
        await answer.link.abort()

    assert 1011 == code
