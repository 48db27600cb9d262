"""What a node tells its devices when it cannot go on from what it knows: Redis was emptied, or the
node keeps no copy of the state, or a device was gone before it was answered."""

from itertools import pairwise

import pytest
import trio

from support.cutting_proxy import CuttingProxy
from support.redis_servers import RedisServer, until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.protocol import State

SNAPSHOT_RESPONSE, STATE_UPDATE, ERROR = 4, 5, 6
VALUES = {"rate_limit_enabled": False, "presence_timeout": 4.0, "heartbeat_interval": 1.0}


async def join(node: Node, session: str, device_id: str, **extra: object) -> Device:
    device = await Device.open(node.port)
    await device.auth(mint("ann"), device_id, session_id=session, **extra)
    return device


async def became_online(node: Node, session: str, devices: set[str]) -> None:
    """Ask over HTTP until exactly these devices are online."""
    async with node.http() as http:
        with trio.fail_after(10):
            while True:
                path = f"/session/{session}/devices"
                answer = await http.get(path, headers=bearer(mint("ann")))
                listed = answer.json().get("devices", [])
                if {d["device_id"] for d in listed if d["status"] == "online"} == devices:
                    return
                await trio.sleep(0.02)


async def test_redis_forgets_everything(redis_server: RedisServer) -> None:
    """The first write after that begins the session anew, and every device is told the whole."""
    session = new_session()
    async with (
        running_node(redis_server.url, **VALUES) as one,
        running_node(redis_server.url, **VALUES) as two,
        await join(one, session, "phone") as phone,
        await join(two, session, "tablet") as tablet,
    ):
        before = (await phone.set("a", 1))["payload"]
        await tablet.receive(STATE_UPDATE)
        with redis_server.client() as client:
            client.flushall()
        await phone.send(STATE_UPDATE, {"key": "b", "value": 2}, "w")
        told = [(await d.receive(SNAPSHOT_RESPONSE))["payload"] for d in (phone, tablet)]
        first = (await phone.receive(STATE_UPDATE))["payload"]
        again = (await phone.request(STATE_UPDATE, {"key": "b", "value": 2}, "w"))["payload"]
        after = (await tablet.set("c", 3))["payload"]
        seen = (await phone.receive(STATE_UPDATE))["payload"]
        await became_online(one, session, {"phone", "tablet"})

    assert [({"b": 2}, 1, False)] * 2 == [
        (p["state_data"], p["version"], p["resumed"]) for p in told
    ]
    assert told[0]["epoch"] == told[1]["epoch"] != before["epoch"]
    assert [(1, 1)] * 2 == [(p["version"], p["prev_version"]) for p in (first, again)]
    assert (2, 1, told[0]["epoch"]) == (after["version"], after["prev_version"], after["epoch"])
    # Where a comparison was quicker than the bus, the phone is told the difference, not the commit.
    what = ("version", "prev_version", "epoch", "lineage", "changes", "deleted_keys")
    assert [after[name] for name in what] == [seen[name] for name in what]


async def test_slow_reader_on_a_node_without_a_copy_of_the_state(redis_server: RedisServer) -> None:
    """It gets the difference from Redis: a node whose only device resumed has read no state."""
    session, count, big = new_session(), 120, "x" * 60_000
    async with (
        running_node(redis_server.url, rate_limit_enabled=False) as one,
        running_node(redis_server.url, rate_limit_enabled=False) as two,
        await join(one, session, "writer") as writer,
    ):
        first = (await writer.set("a", 1))["payload"]
        position = {"epoch": first["epoch"], "version": 1}
        async with await join(two, session, "slow", resume=position) as slow:
            local = two.server.gateway.registry.sessions[session]
            copies = [local.doc]
            slow.shrink()
            for n in range(count):
                await writer.set("big", f"{n}{big}")
            await until(lambda: local.version == count + 1)
            dropped = two.server.hub.statistics().state_dropped
            seen = [first]
            while seen[-1]["version"] < count + 1:
                seen.append((await slow.receive(STATE_UPDATE))["payload"])
            copies.append(local.doc)
            snapshot = (await slow.request(3))["payload"]

    assert [None, None] == copies
    assert dropped > 0
    assert len(seen) < count
    assert all(new["prev_version"] <= old["version"] for old, new in pairwise(seen))
    assert {"a": 1, "big": f"{count - 1}{big}"} == snapshot["state_data"]
    assert seen[-1]["changes"]["big"] == snapshot["state_data"]["big"]


@pytest.mark.parametrize("device", ["tablet", "phone"])
async def test_device_that_is_gone_before_its_welcome_is_not_left_online(
    redis_server: RedisServer, device: str
) -> None:
    """AUTH waits for Redis and the socket breaks: the device is offline then. When it was the
    phone's second socket, the first one has been replaced, as if the second had lived."""
    session = new_session()
    async with (
        running_node(redis_server.url) as node,
        await join(node, session, "phone") as phone,
        await join(node, session, "watch") as watch,
    ):
        redis_server.pause()
        try:
            gone = await Device.open(node.port)
            payload = {"token": mint("ann"), "device_id": device, "session_id": session}
            await gone.send(7, payload)
            await until(lambda: len(node.server.gateway.registry.connections) == 3)
            await until(lambda: State.JOINING in {c.state for c in node.server.gateway.registry})
            await gone.kill()
            await until(lambda: len(node.server.gateway.registry.connections) == 2)
        finally:
            redis_server.resume()
        here = {"phone", "watch"} - {device}
        await until(lambda: not node.server.gateway.registry.sessions[session].joining)
        await became_online(node, session, here)
        code = (await phone.closed()).code if device == "phone" else None
        ack = (await watch.set("a", 1))["payload"]

    assert (4009 if device == "phone" else None) == code
    assert 1 == ack["version"]


async def test_write_of_unknown_fate_is_told_in_the_end(redis_server: RedisServer) -> None:
    """Redis did it and the answer was lost. It has no id that would tell a repetition, so it is
    refused as unknown; then the node looks, and the device hears what became of it."""
    session = new_session()
    proxy = CuttingProxy(redis_server.directory / "proxy", redis_server.socket)
    try:
        async with (
            running_node(proxy.url) as node,
            await join(node, session, "phone") as phone,
        ):
            await phone.set("a", 1)
            answer, value = {"type": STATE_UPDATE}, 0
            while answer["type"] == STATE_UPDATE:  # until it is this answer that is cut off
                value += 1
                proxy.cut_next_reply()
                await phone.send(STATE_UPDATE, {"key": "b", "value": value})
                answer = await phone.receive(ERROR, STATE_UPDATE)
            told = (await phone.receive(STATE_UPDATE))["payload"]
    finally:
        proxy.close()

    refused = answer["payload"]
    assert ("store_unavailable", True) == (refused["code"], refused["retryable"])
    assert ({"b": value}, 1 + value, value) == (
        told["changes"],
        told["version"],
        told["prev_version"],
    )
