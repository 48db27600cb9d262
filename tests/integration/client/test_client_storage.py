"""Updates in a file: after the end of the program, however it ends, each is carried out once."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from support.client_kit import device, next_event, on
from support.redis_servers import RedisServer
from support.rollback.kit import way_back
from support.server_kit import Node, mint, new_session, running_node
from support.tcp_proxy import TcpProxy
from syncbridge_client import (
    Lost,
    QueueFull,
    SessionClosed,
    Status,
    StorageError,
    StorageFailed,
    UnsentUpdates,
    offline,
)
from syncbridge_client.catalogue import CloseCode

DEAD = 1
"""A port of this machine on which nobody listens."""

PROGRAM = """
import sys, anyio
from syncbridge_client import connect, offline

async def main():
    url, token, session, path, life, backend = sys.argv[1:]
    store = offline(path)
    options = {"session_id": session, "start_timeout": 0, "store": store, "ack_timeout": 1}
    async with connect(url, token=token, device_id="phone", **options) as phone:
        number = 0
        while True:
            await phone.append("items", f"{life}-{number}")
            await phone.incr("count")
            await phone.stored()
            print(number, flush=True)
            number += 1

anyio.run(main, backend=sys.argv[-1])
"""


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_kill_9_loses_and_doubles_nothing(node: Node, tmp_path: Path, backend: str) -> None:
    """A program that is killed amid its updates five times: what it had stored is there, once."""
    session, path = new_session(), tmp_path / "phone.db"

    async def the_rest() -> dict[str, Any]:
        async with device(node.port, "phone", session, store=offline(path)) as phone:
            await phone.online()
            await phone.synced(20)
            return await phone.snapshot()

    stored = [killed(node.port, session, path, life, backend) for life in range(5)]
    state = await on("trio", the_rest)
    items = [tuple(map(int, item.split("-"))) for item in state["items"]]

    assert sorted(set(items)) == items
    assert {(life, n) for life, last in enumerate(stored) for n in range(last + 1)} <= set(items)
    assert len(items) - len(stored) <= state["count"] <= len(items)


def killed(port: int, session: str, path: Path, life: int, backend: str) -> int:
    """Run the program until it has stored some, and kill it; the last number that it stored."""
    url = f"ws://127.0.0.1:{port}/ws"
    command = [sys.executable, "-c", PROGRAM, url, mint("ann"), session, str(path), str(life)]
    with subprocess.Popen([*command, backend], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        last = -1
        for _, line in zip(range(12), program.stdout, strict=False):
            last = int(line)
        os.kill(program.pid, signal.SIGKILL)
        for line in program.stdout:
            last = int(line) if line.endswith("\n") else last
    return last


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_what_was_made_offline_is_sent_by_the_next_program(
    node: Node, tmp_path: Path, backend: str
) -> None:
    """The state is there at once, with the updates on top; all of them arrive, in order."""
    session, path = new_session(), tmp_path / "phone.db"

    async def first() -> None:
        async with device(node.port, "phone", session, store=offline(path)) as phone:
            await phone.set("mood", "calm")
            await phone.synced(10)

    async def second() -> None:
        options = {"store": offline(path), "close_timeout": 0}
        async with device(DEAD, "phone", session, **options) as phone:
            assert {"mood": "calm"} == dict(phone.state)
            for number in range(30):
                await phone.append("items", number)
            await phone.set("mood", None)
            await phone.set("mood", 2**70)
            await phone.delete("mood")
            assert await phone.stored()

    async def third() -> tuple[dict[str, object], dict[str, object]]:
        async with device(node.port, "phone", session, store=offline(path)) as phone:
            shown = dict(phone.state)
            await phone.synced(20)
            await phone.online()
            return shown, await phone.snapshot()

    await on(backend, first)
    await on(backend, second)
    shown, state = await on(backend, third)

    assert {"items": list(range(30))} == shown == state


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_without_a_network_the_status_is_offline(
    node: Node, tmp_path: Path, backend: str
) -> None:
    """Entered with a stored state or without a wait; `online` comes with the connection."""
    session, path = new_session(), tmp_path / "phone.db"

    async def status(port: int, **options: Any) -> Status:
        async with device(port, "phone", session, close_timeout=0, **options) as phone:
            return phone.status

    assert await on(backend, lambda: status(DEAD, start_timeout=0)) is Status.OFFLINE
    assert await on(backend, lambda: status(node.port, store=offline(path))) is Status.ONLINE
    assert await on(backend, lambda: status(DEAD, store=offline(path))) is Status.OFFLINE


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """What is full says so, also with what an earlier program has left."""

    async def fill(count: int) -> None:
        options = {"queue_updates": 10, "store": offline(tmp_path / "a.db"), "close_timeout": 0}
        async with device(DEAD, "phone", new_session(), start_timeout=0, **options) as phone:
            for number in range(count):
                await phone.incr(f"k{number}")
            await phone.stored()

    await on("trio", fill, 8)
    with pytest.raises(QueueFull, match="10 updates wait"):
        await on("trio", fill, 3)


async def test_another_session_s_file_is_not_used(node: Node, tmp_path: Path) -> None:
    """It ends the session, and what waits in the file stays there."""
    session, path = new_session(), tmp_path / "phone.db"

    async def write() -> None:
        async with device(node.port, "phone", session, store=offline(path)) as phone:
            await phone.set("mine", 1)
            await phone.synced(10)

    async def other() -> None:
        async with device(node.port, "phone", new_session(), store=offline(path)) as phone:
            closed = await phone.wait_closed()
            assert closed.code == CloseCode.FORBIDDEN
            with pytest.raises(SessionClosed, match="another session"):
                await phone.set("mine", 2)

    async def again() -> dict[str, object]:
        async with device(node.port, "phone", session, store=offline(path)) as phone:
            await phone.online()
            await phone.set("also", 1)
            await phone.synced(10)
            return await phone.snapshot()

    await on("trio", write)
    await on("trio", other)

    assert {"mine": 1, "also": 1} == await on("trio", again)


async def test_what_was_put_into_another_session_s_file_leaves_it(
    node: Node, tmp_path: Path
) -> None:
    """Made before anybody could know: not sent by those to whom the file belongs."""
    session, path = new_session(), tmp_path / "phone.db"

    async def write(port: int, key: str) -> None:
        options = {"store": offline(path), "start_timeout": 0, "close_timeout": 0}
        async with device(port, "phone", session, **options) as phone:
            await phone.set(key, 1)
            assert await phone.stored()
            if port != DEAD:
                await phone.synced(10)

    async def other() -> None:
        options = {"store": offline(path), "start_timeout": 0}
        async with device(node.port, "phone", new_session(), **options) as phone:
            await phone.set("theirs", 2)
            await phone.wait_closed()

    async def again() -> dict[str, object]:
        async with device(node.port, "phone", session, store=offline(path)) as phone:
            await phone.online()
            await phone.synced(10)
            return await phone.snapshot()

    await on("trio", write, node.port, "mine")
    await on("trio", write, DEAD, "waiting")
    with pytest.raises(UnsentUpdates):
        await on("trio", other)

    assert {"mine": 1, "waiting": 1} == await on("trio", again)


async def test_the_session_that_opened_the_file_last_writes(node: Node, tmp_path: Path) -> None:
    """The other is told once, and goes on in memory; its updates arrive all the same."""
    session, path = new_session(), tmp_path / "phone.db"

    async def two() -> tuple[bool, bool]:
        async with device(node.port, "one", session, store=offline(path)) as one:
            events = one.events()
            async with device(node.port, "two", session, store=offline(path)) as two:
                await two.online()
                await one.set("a", 1)
                failed = await next_event(events, StorageFailed)
                await one.synced(10)
                await two.set("b", 2)
                await two.synced(10)
                assert "another session" in str(failed.error)
                return await one.stored(), await two.stored()

    assert (False, True) == await on("trio", two)


async def test_a_file_that_is_none_of_ours_is_said(tmp_path: Path) -> None:
    """On entering, with the file's name."""
    path = tmp_path / "phone.db"
    path.write_text("not a database, and long enough to be taken for none")

    async def enter(where: Path) -> None:
        async with device(DEAD, "phone", new_session(), start_timeout=0, store=offline(where)):
            pass

    with pytest.raises(StorageError, match=r"phone\.db"):
        await on("trio", enter, path)
    with sqlite3.connect(tmp_path / "new.db") as later:
        later.execute("PRAGMA user_version = 9")
    with pytest.raises(StorageError, match="format 9"):
        await on("trio", enter, tmp_path / "new.db")


async def test_without_a_store_nothing_is_stored(node: Node) -> None:
    """`stored` says so at once."""

    async def ask() -> bool:
        async with device(node.port, "phone", new_session()) as phone:
            await phone.set("a", 1)
            return await phone.stored()

    assert not await on("asyncio", ask)


async def test_kill_9_amid_cuts_refusals_and_a_rollback(tmp_path: Path) -> None:
    """Answers are lost, connections cut, Redis is away and comes back older, while the program is
    killed again and again: what it had stored was carried out once, or is counted as lost.
    """
    session, path = new_session(), tmp_path / "phone.db"
    lost = 0
    with way_back("rdb") as way:
        async with running_node(way.url, store_deadline=0.5) as node:
            with TcpProxy(node.port) as proxy:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(disturb, proxy, way.server)
                    stored = [await live(proxy.port, session, path, life) for life in range(4)]
                    nursery.cancel_scope.cancel()
                way.server.resume()
                await on("trio", rest, node.port, session, path)
                way.mark()
                stored.append(await live(node.port, session, path, 4))
                await on("trio", rest, node.port, session, path)
                way.go_back()
                state, lost = await on("trio", rest, node.port, session, path)
    items = [tuple(map(int, item.split("-"))) for item in state["items"]]
    wanted = {(life, n) for life, last in enumerate(stored) for n in range(last + 1)}

    assert sorted(set(items)) == items
    assert lost > 0
    assert {life for life, _ in wanted - set(items)} == {4}
    assert len(wanted - set(items)) <= lost


async def disturb(proxy: TcpProxy, server: RedisServer) -> None:
    """Faults one after another, until cancelled."""
    while True:
        proxy.deaf = True
        await trio.sleep(0.1)
        proxy.cut()
        proxy.deaf = False
        await trio.sleep(0.3)
        server.pause()
        try:
            await trio.sleep(0.7)
        finally:
            server.resume()
        await trio.sleep(0.4)


async def live(port: int, session: str, path: Path, life: int) -> int:
    """A program in a thread's care, killed once it has stored some."""
    backend = ("trio", "asyncio")[life % 2]
    return await trio.to_thread.run_sync(killed, port, session, path, life, backend)


async def rest(port: int, session: str, path: Path) -> tuple[dict[str, Any], int]:
    """A program that sends what is left: the state, and how many are told as lost."""
    options = {"store": offline(path), "ack_timeout": 1}
    async with device(port, "phone", session, **options) as phone:
        events = phone.events()
        await phone.online()
        await phone.synced(20)
        state = await phone.snapshot()
    return state, sum([event.count async for event in events if isinstance(event, Lost)])
