"""Who is online: nodes that die or stand still, devices that come back faster than they leave."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer, until
from support.server_kit import (
    Node,
    Process,
    bearer,
    mint,
    new_session,
    running_node,
    server_process,
)
from support.ws_client import Closed, Device
from syncbridge.records.sessions import PresenceChange
from syncbridge.slots import session_key
from syncbridge_server.redis.stores.keys import held_key

STATE_UPDATE, JOINED, LEFT, DEVICE_LIST = 5, 10, 11, 12
TIMEOUT = 2.0
SHORT = {"SYNCBRIDGE_PRESENCE_TIMEOUT": "2s", "SYNCBRIDGE_HEARTBEAT_INTERVAL": "500ms"}
Event = tuple[int, str, str]


class Watch:
    """A connected device that answers pings and notes what it is told of the devices."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.events: list[Event] = []
        self.closed: int | None = None

    async def run(self) -> None:
        try:
            while True:
                await self._next()
        except Closed as closed:
            self.closed = closed.code
        except trio.ClosedResourceError:
            self.closed = 1006
        finally:
            await self.device.kill()

    async def _next(self) -> None:
        try:
            message = await self.device.receive(JOINED, LEFT)
        except trio.TooSlowError:
            return
        payload = message["payload"]
        self.events.append((message["type"], payload["device_id"], payload.get("reason", "")))

    async def told(self, count: int) -> None:
        """Wait until it has been told that many things."""
        await until(lambda: len(self.events) >= count)

    def of(self, device_id: str) -> list[int]:
        """JOINED and LEFT of one device."""
        return [kind for kind, device, _ in self.events if device == device_id]


class Scene:
    """Devices of one session that run until the end of the test."""

    def __init__(self, nursery: trio.Nursery, session: str) -> None:
        self._nursery = nursery
        self.session = session

    async def join(self, port: int, device_id: str, session: str = "", **extra: Any) -> Watch:
        device = await Device.open(port)
        sid = session or self.session
        await device.auth(mint("ann"), device_id, session_id=sid, **extra)
        watch = Watch(device)
        self._nursery.start_soon(watch.run)
        return watch

    async def online(self, port: int) -> dict[str, bool]:
        """What `GET /session/{uuid}/devices` says."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            path = f"/session/{self.session}/devices"
            answer = await http.get(path, headers=bearer(mint("ann")))
        return {d["device_id"]: d["status"] == "online" for d in answer.json()["devices"]}


@asynccontextmanager
async def a_scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        yield Scene(nursery, new_session())
        nursery.cancel_scope.cancel()


@pytest.fixture
def processes(redis_url: str, tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    with (
        server_process(tmp_path, redis_url, **SHORT) as one,
        server_process(tmp_path, redis_url, **SHORT) as two,
    ):
        yield one, two


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[tuple[Node, Node]]:
    often = {"device_join_burst": 1_000}
    async with running_node(redis_url, **often) as one, running_node(redis_url, **often) as two:
        yield one, two


async def settled(*watches: Watch) -> None:
    """Wait until nothing has been told for a while."""
    for watch in watches:
        count = -1
        while count != len(watch.events):
            count = len(watch.events)
            await trio.sleep(0.3)


async def test_devices_of_a_killed_node_leave_once(processes: tuple[Process, Process]) -> None:
    """kill -9: each device of the dead node is told to have left, once, with reason timeout."""
    doomed, other = processes
    async with a_scene() as scene:
        watch = await scene.join(other.port, "watch")
        second = await scene.join(other.port, "second")
        elsewhere = new_session()
        alone = await scene.join(other.port, "alone", elsewhere)
        for name in ("phone", "tablet"):
            await scene.join(doomed.port, name)
        await scene.join(doomed.port, "phone", elsewhere)
        await watch.told(3)
        await alone.told(1)
        doomed.kill()
        killed = trio.current_time()
        await watch.told(5)
        took = trio.current_time() - killed
        await settled(watch, second, alone)
        online = await scene.online(other.port)

    left = [(LEFT, "phone", "timeout"), (LEFT, "tablet", "timeout")]
    assert left == sorted(watch.events[3:])
    assert left == sorted(second.events[2:])
    assert [(JOINED, "phone", ""), (LEFT, "phone", "timeout")] == alone.events
    assert {"phone": False, "tablet": False, "watch": True, "second": True} == online
    assert took > TIMEOUT / 4, "a lease is believed until it is over"


async def test_device_that_comes_back_elsewhere_does_not_time_out(
    processes: tuple[Process, Process],
) -> None:
    """Its node is killed, it connects to the other at once: it stays, and no timeout is told."""
    doomed, other = processes
    async with a_scene() as scene:
        watch = await scene.join(other.port, "watch")
        await scene.join(doomed.port, "phone")
        await scene.join(doomed.port, "tablet")
        await watch.told(2)
        doomed.kill()
        await scene.join(other.port, "phone")
        # The tablet's departure shows that the leases of the dead node are over.
        await until(lambda: (LEFT, "tablet", "timeout") in watch.events)
        await settled(watch)
        online = await scene.online(other.port)

    assert [JOINED, LEFT, JOINED] == watch.of("phone")
    assert (LEFT, "phone", "replaced") in watch.events
    assert {"watch": True, "phone": True, "tablet": False} == online


async def test_node_that_stood_still_registers_its_devices_again(
    processes: tuple[Process, Process],
) -> None:
    """SIGSTOP for longer than a lease: its device leaves; when the node goes on, it is back."""
    still, other = processes
    async with a_scene() as scene:
        watch = await scene.join(other.port, "watch")
        phone = await scene.join(still.port, "phone")
        await watch.told(1)
        os.kill(still.popen.pid, signal.SIGSTOP)
        try:
            await watch.told(2)
        finally:
            os.kill(still.popen.pid, signal.SIGCONT)
        await until(lambda: watch.of("phone")[2:] == [JOINED] or phone.closed is not None)
        if phone.closed is not None:
            # It had been silent for too long for its own node as well; then it connects again.
            await scene.join(still.port, "phone")
            await until(lambda: watch.of("phone")[2:] == [JOINED])
        online = await scene.online(other.port)

    assert (LEFT, "phone", "timeout") == watch.events[1]
    assert {"watch": True, "phone": True} == online


async def test_nobody_is_swept_sooner_than_a_lease_after_redis_is_back(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """A node is killed while Redis hangs for longer than a lease: then the time begins anew."""
    with server_process(tmp_path, redis_server.url, **SHORT) as doomed:
        quick = {"presence_timeout": TIMEOUT, "heartbeat_interval": 0.5}
        async with running_node(redis_server.url, **quick) as other, a_scene() as scene:
            watch = await scene.join(other.port, "watch")
            await scene.join(doomed.port, "phone")
            await watch.told(1)
            redis_server.pause()
            doomed.kill()
            await trio.sleep(1.5 * TIMEOUT)  # what the test is about: that it hangs for so long
            redis_server.resume()
            back = trio.current_time()
            await watch.told(2)
            took = trio.current_time() - back

    assert [(JOINED, "phone", ""), (LEFT, "phone", "timeout")] == watch.events
    assert took >= TIMEOUT


async def test_a_departure_that_redis_has_lost_is_made_again(redis_url: str) -> None:
    """Redis has a device online at its node that has left: in a session with others here, and in
    one that is here no more."""
    quick = {"presence_timeout": 2.0, "heartbeat_interval": 0.5}
    async with running_node(redis_url, **quick) as node, a_scene() as scene:
        io, empty = node.server.io, new_session()
        watch = await scene.join(node.port, "watch")
        kept = []
        for session in (scene.session, empty):
            phone = await scene.join(node.port, "phone", session)
            keys = [session_key(session, letter) for letter in "mo"]
            keys.append(held_key(session, node.server.gateway.node))
            kept += [(key, await io.execute("DUMP", key)) for key in keys]
            await phone.device.kill()
        await watch.told(2)
        await until(lambda: empty not in node.server.gateway.registry.sessions)
        await until(lambda: not node.server.gateway.store_queue.in_flight)
        for key, value in kept:
            await io.execute("RESTORE", key, 0, value, "REPLACE")
        before = (await scene.online(node.port))["phone"]
        node.server.gateway.doubt()

        async def gone(session: str) -> bool:
            record = await io.execute("HGET", session_key(session, "o"), "phone")
            return b" - -" in record

        for session in (scene.session, empty):
            with trio.fail_after(20.0):
                while not await gone(session):
                    await trio.lowlevel.checkpoint()
        after = await scene.online(node.port)

    assert before
    assert {"watch": True, "phone": False} == after


async def test_a_lost_registration_is_made_again(redis_url: str) -> None:
    """The store has lost that a device joined: the next comparison registers it again.

    It loses all that the script has written: the device, and that there is one more online.
    """
    async with (
        running_node(redis_url, presence_timeout=2.0, heartbeat_interval=0.5) as one,
        running_node(redis_url, presence_timeout=2.0, heartbeat_interval=0.5) as two,
        a_scene() as scene,
    ):
        watch = await scene.join(two.port, "watch")
        phone = await scene.join(one.port, "phone")
        await watch.told(1)
        await one.server.io.execute("HDEL", session_key(scene.session, "o"), "phone")
        await one.server.io.execute("HINCRBY", session_key(scene.session, "m"), "b", -1)
        await until(lambda: len(watch.events) == 3)
        await phone.device.send(STATE_UPDATE, {"key": "a", "value": 1})
        online = await scene.online(two.port)

    assert [JOINED, LEFT, JOINED] == watch.of("phone")
    assert {"watch": True, "phone": True} == online


async def test_a_stopped_server_takes_its_devices_offline_at_once(
    processes: tuple[Process, Process],
) -> None:
    """SIGTERM: nobody waits for leases."""
    stopping, other = processes
    async with a_scene() as scene:
        watch = await scene.join(other.port, "watch")
        phone = await scene.join(stopping.port, "phone")
        await watch.told(1)
        status = await trio.to_thread.run_sync(stopping.terminate)
        await watch.told(2)
        online = await scene.online(other.port)

    assert 0 == status
    assert 1012 == phone.closed
    assert [(JOINED, "phone", ""), (LEFT, "phone", "disconnected")] == watch.events
    assert {"watch": True, "phone": False} == online


async def test_quick_reconnects_across_nodes_pair_up(nodes: tuple[Node, Node]) -> None:
    """100 connections of one device, many overlapping, on two nodes: online once at the end."""
    async with a_scene() as scene:
        watches = [await scene.join(node.port, f"watch{n}") for n, node in enumerate(nodes)]
        connections: list[Watch] = []
        for number in range(100):
            connections.append(await scene.join(nodes[number % 2].port, "phone"))
            if number % 3 == 0:
                await connections[-1].device.kill()
            elif number % 7 == 0:
                await connections[-1].device.close()
        last = await scene.join(nodes[0].port, "phone")
        await until(lambda: all(old.closed is not None for old in connections))
        await settled(*watches)
        online = [await scene.online(node.port) for node in nodes]
        ended = last.closed

    assert [{"watch0": True, "watch1": True, "phone": True}] * 2 == online
    assert ended is None
    for watch in watches:
        kinds = watch.of("phone")
        assert [JOINED, LEFT] * (len(kinds) // 2) + [JOINED] == kinds


async def test_many_at_once_end_with_one(nodes: tuple[Node, Node]) -> None:
    """20 connections of one device at the same moment on two nodes: 19 are closed with 4009."""
    async with a_scene() as scene:
        watch = await scene.join(nodes[0].port, "watch")
        connections: list[Watch] = []

        async def connect(port: int) -> None:
            connections.append(await scene.join(port, "phone"))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(connect, nodes[number % 2].port)
        await until(lambda: sum(c.closed is not None for c in connections) == 19)
        await settled(watch)
        online = await scene.online(nodes[0].port)
        codes = [c.closed for c in connections if c.closed is not None]

    assert [4009] * 19 == codes
    assert {"watch": True, "phone": True} == online
    kinds = watch.of("phone")
    assert [JOINED, LEFT] * (len(kinds) // 2) + [JOINED] == kinds


async def test_a_newcomers_list_and_what_it_is_told_make_the_truth(
    nodes: tuple[Node, Node],
) -> None:
    """Devices join on one node while others come and go on the other."""
    async with a_scene() as scene:
        await scene.join(nodes[1].port, "anchor")
        newcomers: list[Watch] = []

        async def come_and_go() -> None:
            for number in range(20):
                coming = await scene.join(nodes[1].port, f"d{number}")
                if number % 2:
                    await coming.device.kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_and_go)
            for number in range(8):
                newcomers.append(await scene.join(nodes[0].port, f"w{number}"))
        await settled(*newcomers)
        truth = {device for device, online in (await scene.online(nodes[0].port)).items() if online}

    for watch in newcomers:
        listed = watch.device.welcome["devices"]
        online = {d["device_id"] for d in listed if d["status"] == "online"}
        for kind, device, _ in watch.events:
            assert (kind == LEFT) == (device in online), (device, kind, watch.events)
            online ^= {device}
        assert truth == online


async def test_a_newcomer_is_not_told_of_who_left_before_it_came(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news of the other node is slower than the newcomer's list; the others get it whole."""
    late: list[PresenceChange] = []
    gateway = nodes[0].server.gateway
    async with a_scene() as scene:
        watch = await scene.join(nodes[0].port, "watch")
        gone = await scene.join(nodes[1].port, "gone")
        await watch.told(1)
        monkeypatch.setattr(gateway.departures, "heard", late.append)
        await gone.device.kill()
        await until(lambda: [change for change in late if change.device_id == "gone"])
        newcomer = await scene.join(nodes[0].port, "newcomer")
        monkeypatch.undo()
        for change in late:
            gateway.announce(change)
        await watch.told(3)
        await scene.join(nodes[1].port, "gone")
        await newcomer.told(1)

    assert [JOINED, LEFT] == watch.of("gone")[:2]
    assert (LEFT, "gone", "disconnected") in watch.events
    assert (JOINED, "gone", "") == newcomer.events[0]
