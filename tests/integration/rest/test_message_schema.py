"""The published schema of the WebSocket messages holds for what really travels."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Validator, validator_for

from support.redis_servers import RedisServer
from support.server_kit import bearer, mint, new_session, running_node
from support.source_tree import text
from support.voice import calls_kit
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.messages import MessageType
from syncbridge.protocol import INBOUND as ACCEPTED
from syncbridge_server import message_schemas, protocol_docs

DOCUMENT = Path("docs/messages.schema.json")
LATER = {"recording_ready", "recording_failed", "transcript_ready", "summary_ready"}
PROTOCOL = Path("docs/protocol.md")
SCHEMAS = message_schemas.message_schemas()


def validator(name: str) -> Validator:
    return validator_for({"$ref": f"#/$defs/{name}", "$defs": SCHEMAS["$defs"]})


def test_the_document_is_current() -> None:
    """`python -m syncbridge_server.message_schemas > docs/messages.schema.json` was run."""
    assert SCHEMAS == json.loads(text(DOCUMENT))


def test_the_diagram_is_current() -> None:
    """`python -m syncbridge_server.protocol_docs docs/protocol.md` was run."""
    assert protocol_docs.renewed(text(PROTOCOL)) == text(PROTOCOL)
    assert protocol_docs.diagram() in text(PROTOCOL)


def test_every_type_has_a_schema() -> None:
    """What is accepted in some state can be sent; every number but 0 goes in one direction."""
    both = message_schemas.INBOUND.keys() | message_schemas.OUTBOUND.keys()

    assert {k for k in ACCEPTED if isinstance(k, int)} <= set(message_schemas.INBOUND)
    assert set(MessageType) - {MessageType.UNKNOWN} == both


async def exchange(redis_url: str) -> tuple[list[str], list[str]]:
    """What two devices and an admin send and receive, with errors, resumption and a failure."""
    session, sent, received = new_session(), [], []
    async with running_node(redis_url, admin_update=0.05) as node:
        async with (
            await Device.open(node.port) as phone,
            await Device.open(node.port) as console,
            await Device.open(node.port) as nobody,
            node.http() as http,
        ):
            devices = [phone, console, nobody]
            for device in devices:
                record(device, sent)
            await nobody.request(7, {"token": "wrong", "device_id": "x"})
            await phone.auth(mint("ann"), "phone", session_id=session, device_type="mobile")
            await console.auth(mint("root", Role.ADMIN), "console")
            await talk(phone)
            position = {"epoch": phone.epoch, "version": 1}
            async with await Device.open(node.port) as tablet:
                record(tablet, sent)
                devices.append(tablet)
                token = mint("ann")
                await tablet.auth(token, "tablet", session_id=session, resume=position)
                await phone.receive(10)
                await tablet.request(3, {"since": position})
                await tablet.request(7, {"token": token})
            await phone.receive(11)
            await http.post(
                "/admin/broadcast",
                json={"message": "hi", "data": [1], "audience": "all"},
                headers=bearer(mint("root", Role.ADMIN)),
            )
            await phone.receive(13)
            await console.receive(14)
            received = [message for device in devices for message in device.raw]
    return sent, received


async def talk(phone: Device) -> None:
    """Updates, a snapshot, a heartbeat, and something that is refused."""
    phone.epoch = (await phone.set("a", 1))["payload"]["epoch"]
    await phone.set("b", {"deep": [1.5, None, "x"]})
    await phone.request(5, {"key": "b", "operation": "DELETE"})
    await phone.request(5, {"changes": {"c": 1, "d": 2}, "deleted_keys": ["a"]})
    await phone.request(5, {"key": "c", "value": 2, "base_version": 1})
    await phone.request(5, {"key": "c", "value": 2, "base_version": 999})
    await phone.request(3)
    await phone.request(1, {"client_time": 1.5})
    await phone.request(1)
    await phone.request(12)


def record(device: Device, sent: list[str]) -> None:
    """Keep what a device sends."""
    send = device.send_text

    async def recording(message: str) -> None:
        sent.append(message)
        await send(message)

    device.send_text = recording  # type: ignore[method-assign]


async def test_real_traffic_fits_the_schema(redis_url: str) -> None:
    """Every message is valid as its own type, and all types but the two-sided rest are seen."""
    sent, received = await exchange(redis_url)
    outgoing, incoming = validator("ServerMessage"), validator("ClientMessage")
    kinds = [message["type"] for message in map(json.loads, received)]

    for message in map(json.loads, received):
        validator(MessageType(message["type"]).name).validate(message)
        outgoing.validate(message)
    for message in map(json.loads, sent):
        incoming.validate(message)
    assert {2, 4, 5, 6, 8, 9, 10, 11, 13, 14} <= set(kinds)
    assert {1, 3, 5, 7} <= {message["type"] for message in map(json.loads, sent)}


async def test_voice_fits_the_schema(redis_server: RedisServer) -> None:
    """Every message about a call is valid as its own type, in both directions."""
    sent: list[str] = []
    async with running_node(redis_server.url, **calls_kit.NOWHERE) as node:
        await calls_kit.open_call(node, "c")
        async with (
            await calls_kit.device_of(node, "ann", "phone") as ann,
            await calls_kit.device_of(node, "bob", "pc") as bob,
        ):
            record(ann, sent)
            await calls_kit.join(ann, "c", connectionId="c1", muted=False)
            await calls_kit.join(bob, "c")
            await ann.request("voice_watch", {"channelId": "c", "waddleId": calls_kit.WADDLE})
            await ann.request("voice_unwatch", {"channelId": "c"})
            await ann.send("speaking", {"channelId": "c", "isSpeaking": True})
            await ann.receive("speaking_update")
            await ann.request("voice_leave", {"channelId": "c"})
            await ann.request(3)
            writer = calls_kit.desk_of(node)
            await writer.change("c", lambda channel, now: channel.migrate(now, "too_old"))
            await writer.change("c", lambda channel, now: channel.moved("s2", now))
            await writer.change("c", lambda channel, now: channel.end(now, "ended"))
            await ann.receive("session_ended")
            received = [json.loads(message) for message in ann.raw]

    for message in received:
        name = message["type"]
        validator(MessageType(name).name if isinstance(name, int) else name).validate(message)
        validator("ServerMessage").validate(message)
    for text_sent in sent:
        validator("ClientMessage").validate(json.loads(text_sent))
    kinds = {message["type"] for message in received}
    assert set(message_schemas.VOICE_OUT) - LATER <= kinds
    assert set(message_schemas.VOICE_IN) <= {json.loads(one)["type"] for one in sent}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AUTH", {"type": 7, "payload": {"device_id": "x"}}),
        ("AUTH", {"type": 8, "payload": {"token": "x"}}),
        ("STATE_UPDATE_in", {"type": 5, "payload": {"key": 1}}),
        ("STATE_UPDATE_in", {"type": 5, "payload": {"base_version": "1"}}),
        ("STATE_UPDATE_in", {"type": 5, "payload": {"changes": []}}),
        ("STATE_UPDATE_in", {"type": 5, "payload": {"key": "a", "operation": "FROB"}}),
        ("STATE_UPDATE", {"type": 5, "payload": {"version": 1}}),
        ("HEARTBEAT", {"type": 1, "correlation_id": "x" * 65}),
        ("ClientMessage", {"type": 99}),
        ("voice_join", {"type": "voice_join"}),
        ("voice_join", {"type": "voice_join", "channelId": 1}),
        ("speaking", {"type": "speaking", "channelId": "c"}),
        ("ClientMessage", {"type": "voice_dance", "channelId": "c"}),
    ],
)
def test_what_does_not_fit_is_refused(name: str, message: dict[str, Any]) -> None:
    """The schema says no to what the server says no to."""
    assert not validator(name).is_valid(message)


async def test_the_schema_is_served(redis_url: str) -> None:
    """`GET /schemas/messages.json` gives the document."""
    async with running_node(redis_url) as node, node.http() as http:
        answer = await http.get("/schemas/messages.json")

    assert SCHEMAS == answer.json()
    assert "application/schema+json" == answer.headers["content-type"]
