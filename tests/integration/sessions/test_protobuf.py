"""JSON and protobuf devices in one session: the same messages, each in its own encoding."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb

HEARTBEAT, HEARTBEAT_ACK, SNAPSHOT_REQUEST, SNAPSHOT_RESPONSE, STATE_UPDATE = range(1, 6)
ERROR, AUTH, AUTH_SUCCESS, AUTH_FAILURE, JOINED, LEFT = range(6, 12)
DEVICE_LIST, BROADCAST, ADMIN_UPDATE = range(12, 15)

# httpx leaves the generator of a request body to the collector when the answer comes first.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object ByteStream:"
    "pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


async def join(node: Node, session: str, device_id: str, **extra: Any) -> Device:
    """A device whose id says what it speaks: `p...` for protobuf, `j...` for JSON."""
    device = await Device.open(node.port, protobuf=device_id.startswith("p"))
    await device.auth(mint("ann"), device_id, session_id=session, **extra)
    return device


async def both(node: Node, session: str, stack: AsyncExitStack) -> tuple[Device, Device]:
    """A JSON and a protobuf device that have seen each other."""
    json = await stack.enter_async_context(await join(node, session, "json"))
    proto = await stack.enter_async_context(await join(node, session, "proto"))
    await json.receive(JOINED)
    return json, proto


@pytest.fixture
async def pair(node: Node) -> AsyncIterator[tuple[Device, Device]]:
    async with AsyncExitStack() as stack:
        yield await both(node, new_session(), stack)


UPDATES = [
    {"key": "mood", "value": "calm"},
    {"key": "mood", "operation": "DELETE"},
    {"changes": {"zähler": 1, "a": [1, {"b": None}]}, "deleted_keys": []},
    {"changes": {"z": 1.5}, "deleted_keys": ["a"]},
]


async def test_updates_say_the_same_to_both(pair: tuple[Device, Device]) -> None:
    """Whoever writes: the writer's acknowledgement and the other's copy are one message."""
    json, proto = pair
    for writer, reader in ((json, proto), (proto, json)):
        for update in [*UPDATES, {"changes": {"a": 0, "mood": writer.device_id}}]:
            ack = await writer.request(STATE_UPDATE, update)
            seen = await reader.receive(STATE_UPDATE)
            assert ack == seen

    states = [(await d.request(SNAPSHOT_REQUEST))["payload"] for d in pair]
    assert states[0] == states[1]
    assert {"zähler": 1, "a": 0, "mood": "proto", "z": 1.5} == states[0]["state_data"]


async def welcomes(node: Node, session: str, **extra: Any) -> list[dict[str, Any]]:
    """What a protobuf and a JSON device are told on joining, but for their own names."""
    found = []
    for name in ("phone", "jay"):
        async with await join(node, session, name, device_type="t", **extra) as device:
            welcome = device.welcome
        own = {"device_id", "token_expires_at", "devices"}
        assert own <= welcome.keys()
        assert any(d["device_id"] == name and d["device_type"] == "t" for d in welcome["devices"])
        found.append({k: v for k, v in welcome.items() if k not in own})
    return found


async def test_welcome_says_the_same_to_both(node: Node) -> None:
    """AUTH_SUCCESS, whole and resumed, has the same members in both encodings."""
    session = new_session()
    async with await join(node, session, "json") as first:
        await first.request(STATE_UPDATE, {"changes": {"b": 1, "a": {"deep": [1.5, "ü"]}}})
        ack = await first.request(STATE_UPDATE, {"changes": {"c": 2}, "deleted_keys": ["b"]})
        whole = await welcomes(node, session)
        position = {"epoch": ack["payload"]["epoch"], "version": 1}
        resumed = await welcomes(node, session, resume=position)

    assert whole[0] == whole[1]
    assert resumed[0] == resumed[1]
    assert {"a": {"deep": [1.5, "ü"]}, "c": 2} == whole[0]["state_data"]
    assert resumed[0]["resumed"] is True
    assert ({"c": 2}, ["b"]) == (resumed[0]["changes"], resumed[0]["deleted_keys"])


async def test_every_reply_over_protobuf(pair: tuple[Device, Device]) -> None:
    """Heartbeat, snapshot whole and since, a new token, a conflict with its details."""
    _, proto = pair
    await proto.set("a", 1)
    epoch = (await proto.set("a", 2))["payload"]["epoch"]
    beat = await proto.request(HEARTBEAT, {"client_time": 1234567890123.5})
    silent = await proto.request(HEARTBEAT)
    whole = await proto.request(SNAPSHOT_REQUEST)
    since = await proto.request(SNAPSHOT_REQUEST, {"since": {"epoch": epoch, "version": 1}})
    again = await proto.request(AUTH, {"token": mint("ann")})
    conflict = await proto.set("a", 3, base_version=1)

    assert HEARTBEAT_ACK == beat["type"]
    assert (1234567890123.5, 2) == (beat["payload"]["client_time"], beat["payload"]["version"])
    assert silent["payload"]["client_time"] is None
    assert {"a": 2} == whole["payload"]["state_data"]
    assert ({"a": 2}, []) == (since["payload"]["changes"], since["payload"]["deleted_keys"])
    assert (AUTH_SUCCESS, True) == (again["type"], again["payload"]["resumed"])
    assert (ERROR, "version_conflict", False) == (
        conflict["type"],
        conflict["payload"]["code"],
        conflict["payload"]["retryable"],
    )
    conflicts = conflict["payload"]["details"]["conflicts"]
    assert [{"key": "a", "server_value": 2}] == conflicts


async def test_device_list_says_the_same_to_both(pair: tuple[Device, Device]) -> None:
    """DEVICE_LIST, asked for in either encoding."""
    lists = [(await device.request(DEVICE_LIST))["payload"] for device in pair]

    assert lists[0] == lists[1]
    assert ({"json", "proto"}, 2) == (
        {d["device_id"] for d in lists[0]["devices"]},
        lists[0]["total"],
    )


async def test_failed_auth_over_protobuf(node: Node) -> None:
    """AUTH_FAILURE as protobuf, then the close code."""
    async with await Device.open(node.port, protobuf=True) as device:
        first = await device.request(STATE_UPDATE, {"key": "a", "value": 1})
        failure = await device.request(AUTH, {"token": "nonsense", "device_id": "phone"})
        closed = await device.closed()

    assert (ERROR, "auth_required") == (first["type"], first["payload"]["code"])
    assert (AUTH_FAILURE, "token_invalid") == (failure["type"], failure["payload"]["code"])
    assert 4002 == closed.code


async def test_renewal_without_a_token_ends_the_socket(pair: tuple[Device, Device]) -> None:
    """AUTH_FAILURE as protobuf, not ERROR, whatever is wrong with an AUTH."""
    _, proto = pair
    await proto.send_binary(envelope(type=7, auth=pb.Auth()))
    failure = await proto.receive(AUTH_FAILURE)
    closed = await proto.closed()

    assert ("invalid_message", "c") == (failure["payload"]["code"], failure["correlation_id"])
    assert 4002 == closed.code


async def test_text_on_a_protobuf_connection_is_refused(pair: tuple[Device, Device]) -> None:
    """ERROR `unsupported`, in a binary message; the connection goes on."""
    _, proto = pair
    await proto.send_text('{"type":1}')
    refused = await proto.receive(ERROR)
    ack = await proto.set("a", 1)

    assert "unsupported" == refused["payload"]["code"]
    assert STATE_UPDATE == ack["type"]


def envelope(**fields: Any) -> bytes:
    return pb.Envelope(correlation_id="c", **fields).SerializeToString()


BAD_MESSAGES = {
    "not protobuf": (b"\xff\xff", "invalid_protobuf", None),
    "empty": (b"", "unknown_type", None),
    "no type": (envelope(heartbeat=pb.Heartbeat()), "unknown_type", "c"),
    "server's type": (envelope(type=8, auth_success=pb.AuthSuccess()), "unknown_type", "c"),
    "other payload": (envelope(type=5, heartbeat=pb.Heartbeat()), "invalid_message", "c"),
    "no payload": (envelope(type=5), "invalid_message", "c"),
    "bad value": (
        envelope(type=5, state_update=pb.StateUpdate(key="k", value_json=b'1,"x":2')),
        "invalid_json",
        "c",
    ),
    "long correlation id": (
        pb.Envelope(type=1, correlation_id="c" * 65).SerializeToString(),
        "invalid_field",
        None,
    ),
    "named event": (envelope(event=pb.Event(json=b'{"type":"frob"}')), "unknown_type", None),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_bad_message_is_an_error_and_the_socket_stays(
    pair: tuple[Device, Device], name: str
) -> None:
    """ERROR with the code, and the correlation id where it can be read; the next one works."""
    _, proto = pair
    data, code, correlation_id = BAD_MESSAGES[name]
    await proto.send_binary(data)
    answer = await proto.receive(ERROR)
    ack = await proto.set("a", 1)

    assert (code, correlation_id) == (answer["payload"]["code"], answer["correlation_id"])
    assert STATE_UPDATE == ack["type"]


async def test_flood_is_answered_with_the_correlation_id(redis_url: str) -> None:
    """A message above the rate is refused by name, in protobuf too."""
    async with running_node(redis_url, messages_per_second=1, message_burst=3) as node:
        async with await join(node, new_session(), "phone") as phone:
            answers = [await phone.request(HEARTBEAT) for _ in range(4)]

    assert (ERROR, "rate_limited") == (answers[-1]["type"], answers[-1]["payload"]["code"])
    assert 0 < answers[-1]["payload"]["retry_after_ms"] <= 1000


async def test_both_kinds_across_two_nodes(redis_url: str) -> None:
    """Updates, arrivals and departures of one node reach both kinds of devices of the other."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with AsyncExitStack() as stack:
            here = await both(one, session, stack)
            there = [
                await stack.enter_async_context(await join(two, session, name))
                for name in ("jay", "phone")
            ]
            joined = [[await d.receive(JOINED) for _ in there] for d in here]
            acks = [await device.set(device.device_id, 1) for device in there]
            seen = [[await device.receive(STATE_UPDATE) for _ in there] for device in here]
            await there[1].close()
            left = [await d.receive(LEFT) for d in (*here, there[0])]

    assert joined[0] == joined[1]
    assert ["jay", "phone"] == [m["payload"]["device_id"] for m in joined[0]]
    assert [1, 2] == [m["payload"]["version"] for m in acks]
    assert [[m["payload"] for m in acks]] * 2 == [[m["payload"] for m in ms] for ms in seen]
    assert [left[0]] * 3 == left
    assert ("phone", "closed") == (left[0]["payload"]["device_id"], left[0]["payload"]["reason"])


async def test_broadcast_reaches_both_kinds_on_both_nodes(redis_url: str) -> None:
    """What an operator sends is the same object for everybody."""
    message = {"message": "Maintenance at 10", "type": "notification"}
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with AsyncExitStack() as stack:
            pairs = [await both(n, new_session(), stack) for n in (one, two)]
            async with one.http() as http:
                headers = bearer(mint("root", Role.ADMIN))
                asked = message | {"audience": "all"}
                answer = await http.post("/admin/broadcast", json=asked, headers=headers)
            seen = [await device.receive(BROADCAST) for pair in pairs for device in pair]

    assert 200 == answer.status_code
    assert [message] * 4 == [m["payload"] for m in seen]


async def test_administrators_get_metrics_in_either_encoding(redis_url: str) -> None:
    """ADMIN_UPDATE comes by itself, with the same members."""
    async with running_node(redis_url, admin_update=0.05) as node:
        members = []
        for protobuf in (False, True):
            async with await Device.open(node.port, protobuf=protobuf) as device:
                await device.auth(mint("root", Role.ADMIN), "writer", session_id=new_session())
                update = (await device.receive(ADMIN_UPDATE))["payload"]
                members.append((update["kind"], update["metrics"].keys()))

    assert members[0] == members[1]
    assert "metrics" == members[0][0]


async def test_write_over_rest_reaches_a_protobuf_device(node: Node) -> None:
    """A commit that no socket made is encoded for whoever is there."""
    session = new_session()
    async with await join(node, session, "phone") as phone, node.http() as http:
        body = {"session_id": session, "user_id": "ann", "state_data": {"a": 1, "b": [2]}}
        answer = await http.post("/session/snapshot", json=body, headers=bearer(mint("ann")))
        seen = await phone.receive(STATE_UPDATE)

    assert 201 == answer.status_code
    assert {"a": 1, "b": [2]} == seen["payload"]["changes"]


async def test_nothing_is_encoded_for_nobody(node: Node) -> None:
    """The counts of protobuf receivers follow devices that leave, and change what they speak."""
    session = new_session()
    registry = node.server.gateway.registry
    async with await join(node, session, "json") as watcher:
        local = registry.sessions[session]
        counts = [(registry.binary, local.binary)]
        async with await Device.open(node.port, protobuf=True) as old:
            await old.auth(mint("ann"), "tablet", session_id=session)
            counts.append((registry.binary, local.binary))
            async with await Device.open(node.port) as new:
                await new.auth(mint("ann"), "tablet", session_id=session)
                await old.closed()
                await new.set("a", 1)
                counts.append((registry.binary, local.binary))
        update = await watcher.receive(STATE_UPDATE)

    assert [(0, 0), (1, 1), (0, 0)] == counts
    assert {"a": 1} == update["payload"]["changes"]


async def test_slow_protobuf_reader_gets_one_difference(redis_url: str) -> None:
    """Updates that a slow reader missed come as one that spans them, and nothing is lost."""
    session, count, big = new_session(), 160, "x" * 60_000
    async with running_node(redis_url, rate_limit_enabled=False) as node:
        async with (
            await join(node, session, "proto") as slow,
            await join(node, session, "json") as writer,
        ):
            slow.shrink()
            for n in range(count):
                await writer.set("big", f"{n}{big}")
            dropped = node.server.hub.statistics().state_dropped
            seen = []
            while not seen or seen[-1]["version"] < count:
                seen.append((await slow.receive(STATE_UPDATE))["payload"])

    assert dropped > 0
    assert len(seen) < count
    places = [0, *(s["version"] for s in seen)]
    assert all(s["prev_version"] <= mine for s, mine in zip(seen, places, strict=False))
    assert {"big": f"{count - 1}{big}"} == seen[-1]["changes"]
