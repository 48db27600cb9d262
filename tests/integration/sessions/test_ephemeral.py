"""`me`: what is true of a device only while it is there, over real sockets and a real Redis."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from support.redis_places import client_of
from support.server_kit import Node, mint, new_session, running_node
from support.ws_client import Device

STATE_UPDATE, ERROR, LEFT, DEVICE_LIST = 5, 6, 11, 12


@pytest.fixture(params=[False, True], ids=["json", "protobuf"])
async def node(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        running.protobuf = request.param
        yield running


async def join(node: Node, session: str, device_id: str, **extra: Any) -> Device:
    device = await Device.open(node.port, protobuf=node.protobuf)
    await device.auth(mint("ann"), device_id, session_id=session, **extra)
    return device


async def say(device: Device, **me: Any) -> None:
    await device.send(DEVICE_LIST, {"me": me})


async def told(device: Device, of: str, me: dict[str, Any]) -> int:
    """Wait until a device is told that another one says just this; returns the messages until."""
    count = 0
    while True:
        payload = (await device.receive(DEVICE_LIST))["payload"]
        count += 1
        if payload.get("delta") and payload.get("me", {}).get(of) == me:
            return count


async def together(device: Device, change: str, other: str) -> None:
    """Wait until a summary of a large session tells that another one has joined or left."""
    while True:
        payload = (await device.receive(DEVICE_LIST))["payload"]
        if other in [each["device_id"] for each in payload.get(change, [])]:
            return


async def gone(device: Device, other: str) -> None:
    """Wait until a device is told that another one has left."""
    while (await device.receive(LEFT))["payload"]["device_id"] != other:
        pass


def of(devices: list[dict[str, Any]], device_id: str) -> Any:
    [found] = [d for d in devices if d["device_id"] == device_id]
    return found.get("me")


async def test_it_is_seen_by_the_others_and_gone_with_the_device(
    node: Node, redis_url: str
) -> None:
    """Those who are there are told, those who come find it, and nothing of it is stored."""
    session, marker = new_session(), "only-while-there"
    async with await join(node, session, "tablet") as tablet:
        async with await join(node, session, "phone") as phone:
            await say(phone, cursor=[3, 4], mark=marker)
            await say(phone, cursor=None, typing=True)
            await told(tablet, "phone", {"mark": marker, "typing": True})
            stored = everything(redis_url)
            async with await join(node, session, "laptop") as laptop:
                found = of(laptop.welcome["devices"], "phone")
            listed = (await tablet.request(DEVICE_LIST))["payload"]["devices"]
            await phone.close()
        await gone(tablet, "phone")
        after = (await tablet.request(DEVICE_LIST))["payload"]["devices"]
        snapshot = (await tablet.request(3))["payload"]

    assert {"mark": marker, "typing": True} == found == of(listed, "phone")
    assert (None, None) == (of(listed, "tablet"), of(after, "phone"))
    assert (0, {}) == (snapshot["version"], snapshot["state_data"])
    assert marker not in stored


def everything(redis_url: str) -> str:
    """All keys and values that Redis has, as text."""
    with client_of(redis_url) as redis:
        return " ".join(repr((key, redis.dump(key))) for key in redis.scan_iter())


async def test_a_device_that_comes_again_has_said_nothing(node: Node) -> None:
    """What its old connection said is gone, for who was there and for who comes."""
    session = new_session()
    async with (
        await join(node, session, "tablet") as tablet,
        await join(node, session, "phone") as one,
    ):
        await say(one, cursor=1)
        await told(tablet, "phone", {"cursor": 1})
        async with await join(node, session, "phone") as again:
            await say(again, typing=True)
            await told(tablet, "phone", {"typing": True})
            listed = (await tablet.request(DEVICE_LIST))["payload"]["devices"]

    assert {"typing": True} == of(listed, "phone")
    assert None is of(again.welcome["devices"], "phone")


async def test_a_stream_of_changes_is_conflated(node: Node) -> None:
    """A hundred changes in one write are told in a few messages, and the last one is."""
    session = new_session()
    async with (
        await join(node, session, "tablet") as tablet,
        await join(node, session, "phone") as phone,
    ):
        if not node.protobuf:
            texts = [json.dumps({"type": 12, "payload": {"me": {"x": n}}}) for n in range(80)]
            await phone.send_many(texts)
        else:
            for n in range(80):
                await say(phone, x=n)
        count = await told(tablet, "phone", {"x": 79})

    assert count < 40


async def test_it_has_an_allowance_of_its_own(redis_url: str) -> None:
    """A cursor uses up no update's place, of the connection or the user, and the reverse."""
    session, rates = new_session(), {"messages_per_second": 1, "message_burst": 8}
    users = {"user_messages_per_second": 1, "user_message_burst": 8, "flood_messages": 100}
    async with running_node(redis_url, **rates, **users) as node:
        async with (
            await join(node, session, "tablet") as tablet,
            await join(node, session, "phone") as phone,
        ):
            for n in range(15):
                await say(phone, x=n)
            ack = await phone.set("k", 1)
            errors = [m for m in phone.seen if m["type"] == ERROR]
            while (answer := await phone.set("k", 2))["type"] != ERROR:
                pass
            await say(phone, x="behind")
            await told(tablet, "phone", {"x": "behind"})

    assert (STATE_UPDATE, []) == (ack["type"], errors)
    assert "rate_limited" == answer["payload"]["code"]


async def test_what_is_above_its_allowance_counts_as_any_message(redis_url: str) -> None:
    """A flood of it is limited as every flood is."""
    async with running_node(redis_url, message_burst=30, messages_per_second=1) as node:
        async with await join(node, new_session(), "phone") as phone:
            for n in range(80):
                await say(phone, x=n)
            error = await phone.receive(ERROR)

    assert "rate_limited" == error["payload"]["code"]


@pytest.mark.parametrize(
    ("me", "code"),
    [
        ({f"k{n}": n for n in range(17)}, "too_many_keys"),
        ({"k": "x" * 1024}, "too_large"),
        ({"": 1}, "invalid_key"),
        ({"__proto__": 1}, "reserved_key"),
        ([1], "invalid_field"),
        (None, "invalid_field"),
        ("x", "invalid_field"),
    ],
)
async def test_what_is_not_acceptable_is_refused(node: Node, me: Any, code: str) -> None:
    """By an ERROR that says why; what was said before stays."""
    session = new_session()
    async with await join(node, session, "phone") as phone:
        await say(phone, kept=1)
        error = await phone.request(DEVICE_LIST, {"me": me})
        async with await join(node, session, "tablet") as tablet:
            found = of(tablet.welcome["devices"], "phone")

    assert (ERROR, code) == (error["type"], error["payload"]["code"])
    assert error["payload"]["message"].startswith(("me", "Expected"))
    assert {"kept": 1} == found


async def test_only_in_sessions_of_so_many_devices(redis_url: str) -> None:
    """When one more comes all is taken back, and what is said then is refused, until it leaves."""
    session = new_session()
    async with running_node(redis_url, presence_list=2) as node:
        async with (
            await join(node, session, "tablet") as tablet,
            await join(node, session, "phone") as phone,
        ):
            await say(phone, x=1)
            await told(tablet, "phone", {"x": 1})
            async with await join(node, session, "laptop"):
                await told(tablet, "phone", {})
                error = await phone.request(DEVICE_LIST, {"me": {"x": 2}})
                await together(tablet, "joined", "laptop")
            await together(tablet, "left", "laptop")
            await say(phone, x=3)
            await told(tablet, "phone", {"x": 3})
            await say(tablet, y=4)
            await told(phone, "tablet", {"y": 4})
            listed = (await tablet.request(DEVICE_LIST))["payload"]

    assert "unsupported" == error["payload"]["code"]
    assert {"y": 4} == of(listed["devices"], "tablet")
    assert (True, 2) == (listed["partial"], listed["total"])


async def test_a_device_that_has_handed_over_says_nothing(redis_url: str) -> None:
    """It has left for the others; after AUTH it is there again, with what it said."""
    session = new_session()
    async with running_node(redis_url) as node, node.http() as http:
        async with (
            await join(node, session, "tablet") as tablet,
            await join(node, session, "phone") as phone,
        ):
            await phone.set("k", 1)
            await say(phone, x=1)
            await told(tablet, "phone", {"x": 1})
            headers = {"Authorization": f"Bearer {mint('ann')}"}
            body = {"source_device": "phone", "target_device": "tablet"}
            made = await http.post(f"/session/{session}/handoff", json=body, headers=headers)
            await http.get(f"/session/{session}/handoff/{made.json()['token']}", headers=headers)
            await gone(tablet, "phone")
            error = await phone.request(DEVICE_LIST, {"me": {"x": 2}})
            await phone.auth(mint("ann"), "phone")
            await told(tablet, "phone", {"x": 1})

    assert "fenced" == error["payload"]["code"]


async def test_a_slow_reader_is_told_the_newest(redis_url: str) -> None:
    """What it does not read is not kept for it; when it reads again it has what holds."""
    session, filler = new_session(), "y" * 50_000
    loose = {"rate_limit_enabled": False, "ephemeral_per_second": 1_000, "ephemeral_bytes": 60_000}
    async with running_node(redis_url, conflate_bytes=100_000, **loose) as node:
        statistics = node.server.hub.statistics
        async with (
            await join(node, session, "slow") as slow,
            await join(node, session, "phone") as phone,
        ):
            slow.shrink()
            for n in range(400):
                await say(phone, x=n, filler=filler)
                await told(phone, "phone", {"x": n, "filler": filler})
                if statistics().speaking_dropped:
                    break
            dropped = statistics().speaking_dropped
            await say(phone, x="last", filler=None)
            await told(phone, "phone", {"x": "last"})
            await told(slow, "phone", {"x": "last"})
            after = statistics()

    assert dropped > 0
    assert (0, 0) == (after.slow_closed, after.queued_bytes)


async def test_it_crosses_nodes(redis_url: str) -> None:
    """To who is on another node, to who comes to a third, and it goes when the device does."""
    session = new_session()
    async with (
        running_node(redis_url) as one,
        running_node(redis_url) as two,
        running_node(redis_url) as three,
    ):
        async with await join(two, session, "tablet") as tablet:
            async with await join(one, session, "phone") as phone:
                await say(phone, x=1)
                await told(tablet, "phone", {"x": 1})
                async with await join(three, session, "laptop") as laptop:
                    if of(laptop.welcome["devices"], "phone") is None:
                        await told(laptop, "phone", {"x": 1})
                    await say(laptop, y=2)
                    await told(phone, "laptop", {"y": 2})
            await gone(tablet, "phone")
            listed = (await tablet.request(DEVICE_LIST))["payload"]["devices"]

    assert (None, None) == (of(listed, "phone"), of(listed, "laptop"))


async def test_a_device_that_moves_to_another_node_starts_anew(redis_url: str) -> None:
    """What it said on the first node is not told after what it says on the second."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with (
            await join(two, session, "tablet") as tablet,
            await join(one, session, "phone") as old,
        ):
            await say(old, x=1)
            await told(tablet, "phone", {"x": 1})
            async with await join(two, session, "phone") as new:
                await say(new, y=2)
                await told(tablet, "phone", {"y": 2})
                one.server.gateway.ephemeral.repeat()
                await old.closed()
                await new.set("k", 1)
                await tablet.receive(STATE_UPDATE)
                listed = (await tablet.request(DEVICE_LIST))["payload"]["devices"]

    assert {"y": 2} == of(listed, "phone")


async def test_what_was_lost_between_nodes_is_repeated(redis_url: str) -> None:
    """A node that has heard nothing of it has it after the next repetition."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with (
            await join(two, session, "tablet") as tablet,
            await join(one, session, "phone") as phone,
        ):
            await say(phone, x=1)
            await told(tablet, "phone", {"x": 1})
            two.server.gateway.registry.sessions[session].ephemeral = None
            one.server.gateway.ephemeral.repeat()
            with trio.fail_after(5):
                await told(tablet, "phone", {"x": 1})
