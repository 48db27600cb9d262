"""A session of many devices: who comes and goes is told together, and nothing grows as a square."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from support.server_kit import Node, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.slots import session_key

JOINED, LEFT, DEVICE_LIST, AUTH_SUCCESS = 10, 11, 12, 8
LIST = 4
SMALL: dict[str, Any] = {"presence_list": LIST, "max_devices_per_session": 100}
CROWD = 400


class Crowd:
    """Devices of one session, which stay until the end of the test."""

    def __init__(self, stack: AsyncExitStack, *, protobuf: bool) -> None:
        self._stack = stack
        self._protobuf = protobuf
        self.session = new_session()
        self.devices: dict[str, Device] = {}

    async def join(self, node: Node, *names: str) -> list[Device]:
        for name in names:
            device = await Device.open(node.port, protobuf=self._protobuf)
            self.devices[name] = await self._stack.enter_async_context(device)
            await device.auth(mint("ann"), name, session_id=self.session, device_name=name)
        return [self.devices[name] for name in names]


@pytest.fixture(params=[False, True], ids=["json", "protobuf"])
def protobuf(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def crowd(protobuf: bool) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(stack, protobuf=protobuf)


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, **SMALL) as running:
        yield running


async def listing(device: Device) -> dict[str, Any]:
    """The payload of the next DEVICE_LIST."""
    payload: dict[str, Any] = (await device.receive(DEVICE_LIST))["payload"]
    return payload


def names(devices: list[dict[str, Any]]) -> set[str]:
    return {device["device_id"] for device in devices}


async def test_a_small_session_is_told_each_arrival(node: Node, crowd: Crowd) -> None:
    """Up to the bound everything is as in a session of two devices."""
    first, *_ = await crowd.join(node, "a", "b", "c", "d")
    told = [(await first.receive())["payload"]["device_id"] for _ in range(3)]
    last = crowd.devices["d"].welcome

    assert ["b", "c", "d"] == told
    assert {"a", "b", "c", "d"} == names(last["devices"])
    assert not last.keys() & {"devices_total", "devices_partial"}


async def test_above_the_bound_newcomers_are_shown_a_window(node: Node, crowd: Crowd) -> None:
    """So many devices, themselves among them, and how many there are."""
    await crowd.join(node, *"abcdefg")
    for name, total in (("e", 5), ("g", 7)):
        welcome = crowd.devices[name].welcome

        assert total == welcome["devices_total"]
        assert welcome["devices_partial"] is True
        assert {"a", "b", "c", name} == names(welcome["devices"])


async def test_above_the_bound_changes_are_told_together(node: Node, crowd: Crowd) -> None:
    """One DEVICE_LIST says who joined and who left, and why; no single notices; blinks are not
    told."""
    first, *_ = await crowd.join(node, "a", "b", "c", "d", "e", "f")
    opening = await listing(first)
    await crowd.join(node, "g", "h", "blink")
    await crowd.devices["blink"].close()
    await crowd.devices["b"].kill()
    await crowd.devices["c"].close()
    changes: dict[str, Any] = {"joined": [], "left": []}
    while len(changes["left"]) < 2 or len(changes["joined"]) < 2:
        summary = await listing(first)
        assert summary["delta"] is True
        changes["joined"] += summary["joined"]
        changes["left"] += summary["left"]
    singles = [m["payload"]["device_id"] for m in first.seen if m["type"] in (JOINED, LEFT)]

    assert {"e", "f"} == names(opening["joined"])
    assert 6 == opening["total"]
    assert {"g", "h"} == names(changes["joined"]) - {"blink"}
    assert {"g": "g", "h": "h"}.items() <= {
        d["device_id"]: d["device_name"] for d in changes["joined"]
    }.items()
    assert {("b", "disconnected"), ("c", "closed")} == {
        (d["device_id"], d["reason"]) for d in changes["left"] if d["device_id"] != "blink"
    }
    assert 6 == summary["total"]
    assert ["b", "c", "d"] == singles


async def test_below_half_the_bound_single_notices_begin_again(node: Node, crowd: Crowd) -> None:
    """First comes the whole list, with those that left."""
    first, *_ = await crowd.join(node, "a", "b", "c", "d", "e")
    for name in ("e", "d", "c", "b"):
        await crowd.devices[name].close()
    while "delta" in (whole := await listing(first)):
        pass
    await crowd.join(node, "x")
    notice = await first.receive(JOINED)

    online = {d["device_id"]: d["status"] == "online" for d in whole["devices"]}
    assert {"a": True, "b": False, "c": False, "d": False, "e": False} == online
    assert "partial" not in whole
    assert 5 == whole["total"]
    assert "x" == notice["payload"]["device_id"]


async def test_a_list_that_is_asked_for_is_the_window(node: Node, crowd: Crowd) -> None:
    """A session of thousands is not sent to whoever asks; REST has all of them."""
    first, *_ = await crowd.join(node, *"abcdef")
    answer = (await first.request(DEVICE_LIST))["payload"]
    async with node.http() as http:
        path = f"/session/{crowd.session}/devices"
        whole = await http.get(path, headers={"Authorization": f"Bearer {mint('ann')}"})

    assert {"a", "b", "c"} == names(answer["devices"])
    assert (6, True) == (answer["total"], answer["partial"])
    assert set("abcdef") == names(whole.json()["devices"])


async def test_too_many_changes_come_as_a_window(
    node: Node, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of all that was told before; the next changes are told by name again."""
    monkeypatch.setattr("syncbridge.roster.NAMED", 6)
    first, *_ = await crowd.join(node, *"abcde")
    with trio.fail_after(10):
        while True:
            await crowd.join(node, *(f"x{len(crowd.devices)}-{n}" for n in range(8)))
            window = await listing(first)
            if "delta" not in window:
                break
    total = window["total"]
    while total != len(crowd.devices):
        total = (await listing(first))["total"]
    await crowd.join(node, "last")
    after = await listing(first)

    assert (True, LIST - 1) == (window["partial"], len(window["devices"]))
    assert {"last"} == names(after["joined"])


async def test_who_hands_over_is_told_at_once(node: Node, crowd: Crowd) -> None:
    """The others hear of it with the next summary."""
    first, *_ = await crowd.join(node, *"abcdef")
    await first.set("mood", "calm")
    headers = {"Authorization": f"Bearer {mint('ann')}"}
    async with node.http() as http:
        body = {"source_device": "b", "target_device": "c"}
        path = f"/session/{crowd.session}/handoff"
        token = (await http.post(path, json=body, headers=headers)).json()["token"]
        await http.get(f"{path}/{token}", headers=headers)
    notice = (await crowd.devices["b"].receive(LEFT))["payload"]
    left: set[tuple[str, str]] = set()
    while not left:
        left = {(d["device_id"], d["reason"]) for d in (await listing(first)).get("left", [])}

    assert ("b", "handoff", "c") == tuple(
        notice[k] for k in ("device_id", "reason", "target_device")
    )
    assert {("b", "handoff")} == left


async def test_a_rest_of_devices_that_left_is_bounded(node: Node, crowd: Crowd) -> None:
    """The newest are remembered, whatever the session may hold."""
    await crowd.join(node, "stays")
    io = node.server.io
    key = session_key(crowd.session, "o")
    for number in range(300):
        await io.execute("HSET", key, f"old{number:03}", f"1 {number} - -\n{{}}")
    await crowd.join(node, "comes")
    remembered = await io.execute("HKEYS", key)

    assert 2 + 128 == len(remembered)
    assert {b"stays", b"comes", b"old299", b"old172"} <= {*remembered}
    assert b"old171" not in remembered


@asynccontextmanager
async def two_nodes(redis_url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with running_node(redis_url, **SMALL) as one, running_node(redis_url, **SMALL) as two:
        yield one, two


async def test_a_node_keeps_its_roster_by_what_others_tell(redis_url: str, crowd: Crowd) -> None:
    """A node reads the list with its first device, and never again; it knows of all the same."""
    async with two_nodes(redis_url) as (one, two):
        await crowd.join(one, *"abcde")
        (far,) = await crowd.join(two, "f")
        reads = await calls(two, "hgetall")
        for name in "ghij":
            await crowd.join(one, name)
            await crowd.join(two, name.upper())
        await crowd.devices["a"].close()
        left: set[str] = set()
        while "a" not in left:
            summary = await listing(far)
            left |= names(summary.get("left", []))
        (last,) = await crowd.join(two, "z")
        lists = await calls(two, "hgetall") - reads

    assert 14 == last.welcome["devices_total"]
    shown = names(last.welcome["devices"])
    assert "z" in shown
    assert LIST == len(shown)
    assert shown <= {*"bcdefghijzGHIJ"}
    assert 0 == lists


async def calls(node: Node, command: str) -> int:
    """How often Redis has run a command."""
    stats = await node.server.io.execute("INFO", "commandstats")
    for line in stats.decode().splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.partition("calls=")[2].partition(",")[0])
    return 0


async def test_bytes_grow_with_the_number_of_joins(redis_url: str) -> None:
    """400 devices of one session are sent at most 40 KB each, whatever the speed of the machine;
    with lists and notices of all it is four times as much, and grows with their number."""
    received = dict.fromkeys(("welcome", "single", "summary"), 0)
    summaries = 0
    limits = {"max_devices_per_session": 1_000, "presence_list": 16}
    async with AsyncExitStack() as stack:
        # Left before the devices: their sockets are closed after the node.
        node = await stack.enter_async_context(running_node(redis_url, **limits))
        crowd = Crowd(stack, protobuf=False)
        for number in range(CROWD):
            await crowd.join(node, f"d{number}")
        final = await listing(crowd.devices["d0"])
        while final["total"] != CROWD:
            final = await listing(crowd.devices["d0"])
        for device in crowd.devices.values():
            kinds = [message["type"] for message in device.seen]
            for kind, text in zip(kinds, device.raw, strict=True):
                part = {AUTH_SUCCESS: "welcome", DEVICE_LIST: "summary"}.get(kind, "single")
                received[part] += len(text)
        summaries = sum(m["type"] == DEVICE_LIST for m in crowd.devices["d0"].seen)

    assert received["welcome"] <= CROWD * 5_000
    assert received["single"] <= 16 * CROWD * 40
    assert received["summary"] <= CROWD * summaries * (64 * 220 + 400)
