"""Several processes, one Redis: order across nodes, and nodes that are killed."""

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from support.server_kit import Process, mint, new_session, running_node, server_process
from support.ws_client import Device

STATE_UPDATE, JOINED, LEFT = 5, 10, 11


async def join(port: int, session: str, device_id: str, **extra: object) -> Device:
    device = await Device.open(port)
    await device.auth(mint("ann"), device_id, session_id=session, **extra)
    return device


@asynccontextmanager
async def joined(port: int, session: str, count: int) -> AsyncIterator[list[Device]]:
    """Devices d0, d1, ... of one session."""
    async with AsyncExitStack() as stack:
        devices = [await join(port, session, f"d{n}") for n in range(count)]
        for device in devices:
            await stack.enter_async_context(device)
        yield devices


async def collect(device: Device, until: int) -> list[tuple[int, int]]:
    """(prev_version, version) of every update until a version."""
    seen: list[tuple[int, int]] = []
    while not seen or seen[-1][1] < until:
        payload = (await device.receive(STATE_UPDATE))["payload"]
        seen.append((payload["prev_version"], payload["version"]))
    return seen


async def write(device: Device, count: int) -> None:
    for n in range(count):
        await device.send(5, {"key": f"{device.device_id}-{n % 7}", "value": n})


async def test_update_on_one_node_reaches_the_other(redis_url: str) -> None:
    """Devices on different nodes see the same update, and hear of each other."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with await join(one.port, session, "phone") as phone:
            async with await join(two.port, session, "tablet") as tablet:
                joined = await phone.receive(JOINED)
                ack = await phone.set("mood", "calm")
                seen = await tablet.receive(STATE_UPDATE)
                back = await tablet.set("mood", "glad")
                echoed = await phone.receive(STATE_UPDATE)
            left = await phone.receive(LEFT)

    assert "tablet" == joined["payload"]["device_id"]
    assert ack["payload"] == seen["payload"]
    assert back["payload"] == echoed["payload"]
    assert ("tablet", "disconnected") == (left["payload"]["device_id"], left["payload"]["reason"])


async def test_versions_arrive_in_order_without_gaps_on_every_node(redis_url: str) -> None:
    """Four writers on two nodes at once: each device sees every version once, in order.

    News that took longer than a hole is waited for come as one step over several versions.
    """
    session, each = new_session(), 100
    async with (
        running_node(redis_url, rate_limit_enabled=False) as one,
        running_node(redis_url, rate_limit_enabled=False) as two,
    ):
        ports = [one.port, two.port, one.port, two.port]
        devices = [await join(port, session, f"d{n}") for n, port in enumerate(ports)]
        seen: dict[str, list[tuple[int, int]]] = {}

        async def watch(device: Device) -> None:
            seen[device.device_id] = await collect(device, 4 * each)

        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(watch, device)
                nursery.start_soon(write, device, each)
        states = [(await d.request(3))["payload"]["state_data"] for d in devices]
        for device in devices:
            await device.kill()

    for steps in seen.values():
        versions = [version for _, version in steps]
        assert [0, *versions[:-1]] == [before for before, _ in steps]
        assert (4 * each, True) == (versions[-1], versions == sorted(set(versions)))
    assert 4 == len(seen)
    assert [states[0]] * 4 == states


async def test_same_device_on_another_node_replaces_the_old_socket(redis_url: str) -> None:
    """The node that holds the old socket closes it with 4009."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with await join(one.port, session, "phone") as old:
            async with await join(two.port, session, "phone") as new:
                closed = await old.closed()
                ack = await new.set("a", 1)

    assert 4009 == closed.code
    assert 1 == ack["payload"]["version"]


async def test_device_of_a_killed_node_resumes_on_another_without_a_hole(
    redis_url: str, tmp_path: Path
) -> None:
    """kill -9 of a node: its device resumes elsewhere with exactly what it missed."""
    session = new_session()
    with (
        server_process(tmp_path, redis_url) as doomed,
        server_process(tmp_path, redis_url) as other,
    ):
        async with await join(other.port, session, "tablet") as tablet:
            phone = await join(doomed.port, session, "phone")
            await phone.set("a", 1)
            acknowledged = (await phone.set("b", 2))["payload"]
            await phone.send(5, {"key": "c", "value": 3}, "in-flight")
            doomed.kill()
            closed = await phone.closed()
            await tablet.set("d", 4)
            position = {"epoch": acknowledged["epoch"], "version": acknowledged["version"]}
            async with await join(other.port, session, "phone", resume=position) as again:
                # Whether the last write got in is settled by sending it again.
                await again.request(5, {"key": "c", "value": 3}, "in-flight")
                whole = (await again.request(3))["payload"]["state_data"]
            changes = again.welcome["changes"]

    assert 1006 == closed.code
    assert again.welcome["resumed"] is True
    assert changes.items() >= {"d": 4}.items()
    assert changes.items() <= {"c": 3, "d": 4}.items()
    assert {"a": 1, "b": 2, "c": 3, "d": 4} == whole


@pytest.fixture
def workers(redis_url: str, tmp_path: Path) -> Iterator[Process]:
    with server_process(tmp_path, redis_url, "serve", "--workers", "2") as process:
        yield process


async def test_workers_share_sessions(workers: Process) -> None:
    """With two workers, devices of one session meet whichever worker took them."""
    async with joined(workers.port, new_session(), 8) as devices:
        for n, device in enumerate(devices):
            await device.send(5, {"key": f"k{n}", "value": n})
        seen = [await collect(device, len(devices)) for device in devices]

    assert [[(n, n + 1) for n in range(8)]] * 8 == seen


async def test_killed_worker_is_restarted_and_devices_resume(workers: Process) -> None:
    """kill -9 of a worker: the other goes on, a new one comes, nothing acknowledged is lost."""
    session = new_session()
    pids = worker_pids(workers)
    async with joined(workers.port, session, 6) as devices:
        ack = (await devices[0].set("a", 1))["payload"]
        kill(pids[0])
        position = {"epoch": ack["epoch"], "version": 0}
        async with await join(workers.port, session, "late", resume=position) as late:
            await late.set("b", 2)
            state = (await late.request(3))["payload"]["state_data"]

    assert {"a": 1} == late.welcome.get("changes", late.welcome.get("state_data"))
    assert {"a": 1, "b": 2} == state


def worker_pids(process: Process) -> list[int]:
    return [child.pid for child in psutil.Process(process.popen.pid).children()]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def test_sigterm_asks_clients_to_reconnect_and_exits_0(
    redis_url: str, tmp_path: Path
) -> None:
    """1012 with a delay for each client, spread over the window; no write is lost; exit 0."""
    sessions = [new_session() for _ in range(10)]
    with server_process(tmp_path, redis_url, SYNCBRIDGE_CLOSE_TIMEOUT="1s") as process:
        devices = [await join(process.port, s, "phone") for s in sessions]
        for device in devices:
            await device.send(5, {"key": "last", "value": 1}, "w")
            await device.receive(STATE_UPDATE)
        status = await trio.to_thread.run_sync(process.terminate)
        notices = [await device.receive(6) for device in devices]
        ends = [await device.closed() for device in devices]
    async with running_node(redis_url) as node:
        async with await join(node.port, sessions[0], "phone") as phone:
            state = phone.welcome["state_data"]

    assert 0 == status
    assert {1012} == {end.code for end in ends}
    delays = [n["payload"]["retry_after_ms"] for n in notices]
    assert {"draining"} == {n["payload"]["code"] for n in notices}
    assert all(0 <= delay <= 15_000 for delay in delays)
    assert len(set(delays)) > 5
    assert {"last": 1} == state


async def test_log_of_a_process_holds_no_token(redis_url: str, tmp_path: Path) -> None:
    """Tokens given to a server never reach its log."""
    token = mint("ann")
    with server_process(tmp_path, redis_url) as process:
        async with await Device.open(process.port) as device:
            await device.auth(token, "phone")
            await device.request(7, {"token": "bad." + token})
        log = process.log.read_text()

    assert token not in log
    assert token.rpartition(".")[2] not in log
    assert json.dumps(token) not in log
