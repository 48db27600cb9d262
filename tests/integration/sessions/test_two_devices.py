"""Two devices of one user: one durable, versioned state over real sockets and a real Redis.

Every test runs twice: with devices that speak JSON, and with devices that speak protobuf.
"""

from collections.abc import AsyncIterator

import pytest

from support.server_kit import Node, mint, new_session, running_node
from support.ws_client import Device

AUTH_SUCCESS, STATE_UPDATE, ERROR = 8, 5, 6
JOINED, LEFT = 10, 11


@pytest.fixture(params=[False, True], ids=["json", "protobuf"])
async def node(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        running.protobuf = request.param
        yield running


async def join(
    node: Node, session: str, device_id: str, user: str = "ann", **extra: object
) -> Device:
    device = await Device.open(node.port, protobuf=node.protobuf)
    await device.auth(mint(user), device_id, session_id=session, **extra)
    return device


async def test_new_session_is_joined_empty(node: Node) -> None:
    """A session that nobody wrote to is at version 0, with one device in it."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        welcome = phone.welcome

        assert session == welcome["session_id"]
        assert ("ann", "phone", "user", 0) == tuple(
            welcome[k] for k in ("user_id", "device_id", "role", "version")
        )
        assert {} == welcome["state_data"]
        assert ["phone"] == [d["device_id"] for d in welcome["devices"]]
        assert 25000 == welcome["heartbeat_interval_ms"]
        assert 65536 == welcome["limits"]["message_bytes"]


async def test_update_reaches_both_devices_once_with_one_version(node: Node) -> None:
    """The sender's copy is its acknowledgement; the other device sees the same."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        async with await join(node, session, "tablet") as tablet:
            ack = await phone.request(5, {"key": "mood", "value": "calm", "operation": "SET"}, "c1")
            seen = await tablet.receive(STATE_UPDATE)

    assert ack == seen
    assert ("c1", "phone", session, "ann") == tuple(
        ack[k] for k in ("correlation_id", "device_id", "session_id", "user_id")
    )
    payload = ack["payload"]
    assert payload.pop("epoch")
    payload.pop("lineage")
    assert {
        "version": 1,
        "prev_version": 0,
        "prev_lineage": "",
        "changes": {"mood": "calm"},
        "deleted_keys": [],
        "device_id": "phone",
        "key": "mood",
        "value": "calm",
        "operation": "SET",
    } == payload


async def test_several_keys_are_one_version(node: Node) -> None:
    """Changes and deletions of one message are applied together."""
    async with await join(node, new_session(), "phone") as phone:
        await phone.request(5, {"changes": {"a": 1, "b": 2}})
        ack = await phone.request(5, {"changes": {"c": 3}, "deleted_keys": ["a", "ghost"]})
        snapshot = await phone.request(3)

    assert 2 == ack["payload"]["version"]
    assert ["a"] == ack["payload"]["deleted_keys"]
    assert {"b": 2, "c": 3} == snapshot["payload"]["state_data"]


async def test_state_survives_everybody_leaving(node: Node) -> None:
    """A device that comes later gets what was written before."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        await phone.set("mood", "calm")
    async with await join(node, session, "tablet") as tablet:
        assert ({"mood": "calm"}, 1) == (tablet.welcome["state_data"], tablet.version)


@pytest.mark.parametrize("node", [False], ids=["json"], indirect=True)
async def test_number_text_is_kept(node: Node) -> None:
    """Numbers come back digit by digit as they were sent."""
    async with await join(node, new_session(), "phone") as phone:
        numbers = '{"a":12345678901234567890123,"b":1.10,"c":1e2,"d":-0.0}'
        await phone.send_text('{"type":5,"correlation_id":"x","payload":{"changes":%s}}' % numbers)
        await phone.receive(STATE_UPDATE)
        await phone.request(3)

    assert f'"state_data":{numbers}' in phone.raw[-1]


async def test_repeated_correlation_id_is_done_once(node: Node) -> None:
    """The second time nothing happens, and the answer names the version of the first."""
    async with await join(node, new_session(), "phone") as phone:
        first = await phone.request(5, {"key": "n", "value": 1}, "same")
        await phone.set("n", 2)
        again = await phone.request(5, {"key": "n", "value": 1}, "same")
        snapshot = await phone.request(3)

    assert 1 == first["payload"]["version"]
    assert (1, {}) == (again["payload"]["version"], again["payload"]["changes"])
    assert ({"n": 2}, 2) == (snapshot["payload"]["state_data"], snapshot["payload"]["version"])


async def test_write_that_changes_nothing_makes_no_version(node: Node) -> None:
    """Only the sender hears of it, with version == prev_version."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        async with await join(node, session, "tablet") as tablet:
            await phone.set("n", 1)
            ack = await phone.set("n", 1)
            last = await phone.set("n", 2)
            seen = [(await tablet.receive(STATE_UPDATE))["payload"]["version"] for _ in range(2)]

    assert (1, 1) == (ack["payload"]["version"], ack["payload"]["prev_version"])
    assert 2 == last["payload"]["version"]
    assert [1, 2] == seen


async def test_base_version_guards_its_own_keys_only(node: Node) -> None:
    """A key changed after base_version is a conflict with the server's value; others go in."""
    async with await join(node, new_session(), "phone") as phone:
        await phone.set("a", 1)
        await phone.set("a", 2)
        refused = await phone.set("a", 9, base_version=1)
        accepted = await phone.set("b", 1, base_version=1)
        ahead = await phone.set("b", 2, base_version=99)

    assert (ERROR, "version_conflict") == (refused["type"], refused["payload"]["code"])
    details = refused["payload"]["details"]
    assert (2, [{"key": "a", "server_value": 2}]) == (
        details["current_version"],
        details["conflicts"],
    )
    assert 3 == accepted["payload"]["version"]
    assert "base_version_ahead" == ahead["payload"]["code"]


async def test_devices_hear_of_each_other(node: Node) -> None:
    """JOINED when a device comes, LEFT with a reason when it goes."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        tablet = await join(node, session, "tablet", device_type="tablet", device_name="Slate")
        joined = await phone.receive(JOINED)
        devices = {d["device_id"]: d["status"] for d in tablet.welcome["devices"]}
        await tablet.close()
        left = await phone.receive(LEFT)
        laptop = await join(node, session, "laptop")
        await phone.receive(JOINED)
        await laptop.kill()
        lost = await phone.receive(LEFT)

    assert ("tablet", "Slate", "online") == tuple(
        joined["payload"][k] for k in ("device_id", "device_name", "status")
    )
    assert {"phone": "online", "tablet": "online"} == devices
    assert ("tablet", "closed") == (left["payload"]["device_id"], left["payload"]["reason"])
    assert ("laptop", "disconnected") == (lost["payload"]["device_id"], lost["payload"]["reason"])


async def test_same_device_again_replaces_its_old_socket(node: Node) -> None:
    """The old one is closed with 4009, and its end does not make the device offline."""
    session = new_session()
    async with await join(node, session, "watch") as watch:
        async with (
            await join(node, session, "phone") as old,
            await join(node, session, "phone") as new,
        ):
            closed = await old.closed()
            events = [await watch.receive(JOINED, LEFT) for _ in range(3)]
            ack = await new.set("a", 1)
            await watch.receive(STATE_UPDATE)
            answer = await watch.request(1)

    assert 4009 == closed.code
    assert [JOINED, LEFT, JOINED] == [e["type"] for e in events]
    assert "replaced" == events[1]["payload"]["reason"]
    assert STATE_UPDATE == ack["type"]
    assert 2 == answer["type"], "nothing else was said of the phone"


@pytest.mark.parametrize("gap", [1, 3])
async def test_resume_gives_only_what_changed(node: Node, gap: int) -> None:
    """From a known version the answer is a delta; deletions too."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        await phone.request(5, {"changes": {"keep": 1, "gone": 1}})
        position = {"epoch": (await phone.request(3))["payload"]["epoch"], "version": 1}
        for n in range(gap):
            await phone.set("n", n)
        await phone.request(5, {"key": "gone", "operation": "DELETE"})
        async with await join(node, session, "tablet", resume=position) as tablet:
            welcome = tablet.welcome

    assert welcome["resumed"] is True
    assert "state_data" not in welcome
    assert ({"n": gap - 1}, ["gone"]) == (welcome["changes"], welcome["deleted_keys"])
    assert gap + 2 == welcome["version"]


@pytest.mark.parametrize(
    "position", [{"epoch": "other", "version": 1}, {"epoch": "", "version": 9}]
)
async def test_resume_that_cannot_be_honoured_is_whole(
    node: Node, position: dict[str, object]
) -> None:
    """Another epoch, or a version ahead of ours: everything is sent."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        await phone.set("a", 1)
        async with await join(node, session, "tablet", resume=position) as tablet:
            assert tablet.welcome["resumed"] is False
            assert {"a": 1} == tablet.welcome["state_data"]


async def test_snapshot_request_since(node: Node) -> None:
    """SNAPSHOT_REQUEST with `since` is answered by the difference."""
    async with await join(node, new_session(), "phone") as phone:
        first = await phone.set("a", 1)
        await phone.set("b", 2)
        since = {"epoch": first["payload"]["epoch"], "version": 1}
        answer = await phone.request(3, {"since": since})

    assert 4 == answer["type"]
    assert ({"b": 2}, [], 2) == tuple(
        answer["payload"][k] for k in ("changes", "deleted_keys", "version")
    )


async def test_heartbeat(node: Node) -> None:
    """The client's time comes back, with the server's and the session's version."""
    async with await join(node, new_session(), "phone") as phone:
        await phone.set("a", 1)
        answer = await phone.request(1, {"client_time": 1234567890123})

    assert 2 == answer["type"]
    assert (1234567890123, 1) == (answer["payload"]["client_time"], answer["payload"]["version"])
    assert abs(answer["payload"]["server_time"] / 1000 - answer["timestamp"]) < 2


async def test_user_has_a_session_of_their_own(node: Node) -> None:
    """Without a session id, all devices of a user meet in the same session."""
    user = new_session()
    async with (
        await Device.open(node.port, protobuf=node.protobuf) as phone,
        await Device.open(node.port, protobuf=node.protobuf) as tablet,
    ):
        first = await phone.auth(mint(user), "phone")
        second = await tablet.auth(mint(user), "tablet")

    assert first["session_id"] == second["session_id"]
