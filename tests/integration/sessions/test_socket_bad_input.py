"""Whatever a client sends or does not send, the others are served and it is told what is wrong."""

import json
from collections.abc import AsyncIterator

import pytest
import trio
from wsproto.frame_protocol import CloseReason

from support.server_kit import Node, mint, new_session, running_node
from support.ws_client import Closed, Device, Refused

STATE_UPDATE, ERROR = 5, 6


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


@pytest.fixture
async def phone(node: Node) -> AsyncIterator[Device]:
    async with await Device.open(node.port) as device:
        await device.auth(mint("ann"), "phone", session_id=new_session())
        yield device


BAD_MESSAGES = {
    "empty": ("", "invalid_json"),
    "half an object": ('{"type":', "invalid_json"),
    "two values": ('{"type":1}{"type":1}', "invalid_json"),
    "an array": ("[1]", "invalid_message"),
    "no type": ("{}", "invalid_message"),
    "unknown type": ('{"type":99}', "unknown_type"),
    "server's type": ('{"type":8,"payload":{}}', "unknown_type"),
    "voice event": ('{"type":"voice_state"}', "unknown_type"),
    "no voice here": ('{"type":"voice_join","channelId":"c"}', "unsupported"),
    "payload a list": ('{"type":5,"payload":[]}', "invalid_message"),
    "deep": ('{"type":5,"payload":{"key":"a","value":' + "[" * 5000, "invalid_json"),
    "deep value": (
        '{"type":5,"payload":{"key":"a","value":' + "[" * 70 + "]" * 70 + "}}",
        "too_deep",
    ),
    "long correlation id": ('{"type":1,"correlation_id":"%s"}' % ("x" * 65), "invalid_field"),
    "operation of later": (
        '{"type":5,"payload":{"key":"a","value":1,"operation":"FROB"}}',
        "unknown_operation",
    ),
    "NaN": ('{"type":5,"payload":{"key":"a","value":NaN}}', "invalid_json"),
    "since ahead": ('{"type":3,"payload":{"since":{"epoch":"e","version":-1}}}', "invalid_field"),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_bad_message_is_an_error_and_the_socket_stays(phone: Device, name: str) -> None:
    """ERROR with the code; the next message works."""
    text, code = BAD_MESSAGES[name]

    await phone.send_text(text)
    answer = await phone.receive()
    ack = await phone.set("a", 1)

    assert (ERROR, code) == (answer["type"], answer["payload"]["code"])
    assert answer["payload"]["message"]
    assert STATE_UPDATE == ack["type"]


async def test_binary_message_is_refused(phone: Device) -> None:
    """Protobuf was not agreed on."""
    await phone.send_binary(b"\x08\x01")

    assert "unsupported" == (await phone.receive())["payload"]["code"]


async def test_message_too_large_closes_with_1009(phone: Device) -> None:
    """Above 64 KiB."""
    await phone.send_text('{"type":1,"payload":{"x":"%s"}}' % ("y" * 70_000))

    assert CloseReason.MESSAGE_TOO_BIG == (await phone.closed()).code


async def test_flood_is_limited_then_closed(phone: Device) -> None:
    """Above the rate: ERROR with a time for each message, then 4007; others are served."""
    await phone.send_many(
        [json.dumps({"type": 1, "payload": {}, "correlation_id": str(n)}) for n in range(500)]
    )
    answers = []
    try:
        while True:
            answers.append(await phone.receive())
    except Closed as closed:
        end = closed
    limited = [a for a in answers if a["type"] == ERROR]

    assert 4007 == end.code
    assert {"rate_limited"} == {a["payload"]["code"] for a in limited}, limited[-1]
    assert all(a["payload"]["retry_after_ms"] > 0 and a["correlation_id"] for a in limited)
    assert 90 <= sum(a["type"] == 2 for a in answers) <= 150


async def test_state_limits(redis_url: str) -> None:
    """Keys and bytes of a state are bounded; a refused update changes nothing."""
    async with running_node(redis_url, state_keys=3, state_bytes=1000, value_bytes=900) as node:
        async with await Device.open(node.port) as phone:
            await phone.auth(mint("ann"), "phone", session_id=new_session())
            await phone.request(5, {"changes": {"a": 1, "b": 2, "c": 3}})
            keys = await phone.set("d", 4)
            await phone.set("a", "x" * 800)
            size = await phone.set("b", "x" * 800)
            swapped = await phone.request(5, {"changes": {"d": 4}, "deleted_keys": ["c"]})
            state = (await phone.request(3))["payload"]["state_data"]

    assert "too_many_keys" == keys["payload"]["code"]
    assert "too_large" == size["payload"]["code"]
    assert STATE_UPDATE == swapped["type"]
    assert {"a": "x" * 800, "b": 2, "d": 4} == state


async def test_devices_of_a_session_are_bounded(redis_url: str) -> None:
    """The device too many is told and closed with 4011; a known one may come again."""
    session = new_session()
    async with running_node(redis_url, max_devices_per_session=2) as node:
        async with (
            await Device.open(node.port) as one,
            await Device.open(node.port) as two,
            await Device.open(node.port) as three,
            await Device.open(node.port) as again,
        ):
            await one.auth(mint("ann"), "one", session_id=session)
            await two.auth(mint("ann"), "two", session_id=session)
            payload = {"token": mint("ann"), "device_id": "three", "session_id": session}
            refused = await three.request(7, payload)
            closed = await three.closed()
            await again.auth(mint("ann"), "one", session_id=session)

    assert "too_many_devices" == refused["payload"]["code"]
    assert 4011 == closed.code


async def test_connections_of_a_node_are_bounded(redis_url: str) -> None:
    """Above the bound the handshake is 503 with a problem document."""
    async with running_node(redis_url, max_connections=1) as node:
        async with await Device.open(node.port) as first:
            await first.auth(mint("ann"), "phone")
            with pytest.raises(Refused) as caught:
                await Device.open(node.port)
            assert 2 == (await first.request(1))["type"]

    assert 503 == caught.value.status
    assert "overloaded" == json.loads(caught.value.body)["code"]


async def test_byte_at_a_time(node: Node) -> None:
    """A message that trickles in is read like any other."""
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=new_session())
        message = '{"type":5,"correlation_id":"slow","payload":{"key":"ü","value":"ä"}}'
        for byte in phone.frame(message):
            await phone.send_raw(bytes([byte]))
        ack = await phone.receive(STATE_UPDATE)

    assert ("slow", "ü", "ä") == (
        ack["correlation_id"],
        ack["payload"]["key"],
        ack["payload"]["value"],
    )


async def test_silent_device_is_closed_after_the_presence_timeout(redis_url: str) -> None:
    """Whoever answers no ping is closed with 4006 and is offline for the others."""
    async with running_node(
        redis_url, heartbeat_interval=0.5, presence_timeout=1.5, close_timeout=0.5
    ) as node:
        session = new_session()
        async with await Device.open(node.port) as phone, await Device.open(node.port) as dead:
            await dead.auth(mint("ann"), "dead", session_id=session)
            await phone.auth(mint("ann"), "phone", session_id=session)
            left = await phone.receive(11)  # answers pings meanwhile

    assert ("dead", "timeout") == (left["payload"]["device_id"], left["payload"]["reason"])


async def test_slow_reader_gets_the_newest_state_and_costs_nobody_else(redis_url: str) -> None:
    """A device that reads nothing misses steps, not state; the writer is never held up."""
    session = new_session()
    async with running_node(
        redis_url, rate_limit_enabled=False, conflate_bytes=20_000, outbox_bytes=100_000
    ) as node:
        async with await Device.open(node.port) as writer, await Device.open(node.port) as slow:
            await slow.auth(mint("ann"), "slow", session_id=session)
            await writer.auth(mint("ann"), "writer", session_id=session)
            for n in range(1500):
                await writer.set(f"k{n % 20}", {"n": n, "x": "y" * 4000})
            final = (await writer.request(3))["payload"]
            version, state, frames = 0, {}, 0
            with trio.fail_after(20):
                while version < final["version"]:
                    payload = (await slow.receive(STATE_UPDATE))["payload"]
                    assert payload["prev_version"] <= version
                    state.update(payload["changes"])
                    version, frames = payload["version"], frames + 1
            dropped = node.server.hub.statistics().state_dropped

    assert final["state_data"] == state
    assert dropped > 0
    assert frames < 1500
