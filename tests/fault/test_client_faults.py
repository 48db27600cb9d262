"""The client while servers die, stop, fall silent, and tokens run out.

What holds in all cases: nothing that was acknowledged is lost, every update is carried out once,
and the program sees one session, not many connections.
"""

import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest
import trio

from support.client_kit import device, next_event, on, until
from support.redis_places import client_of
from support.redis_servers import free_port
from support.server_kit import (
    ACCESS_SECRET,
    Node,
    Process,
    mint,
    new_session,
    running_node,
    server_process,
)
from support.tcp_proxy import TcpProxy
from syncbridge.slots import session_key
from syncbridge_client import (
    Connected,
    Disconnected,
    Draining,
    Session,
    SessionClosed,
    Status,
    TokenExpiring,
    TokenFailed,
    TokenRenewed,
)

pytestmark = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


def run_out(user: str) -> str:
    """A token that was good until a minute or two ago."""
    now = int(time.time())
    claims = {"sub": user, "role": "user", "typ": "access", "jti": new_session()}
    return jwt.encode(claims | {"iat": now - 900, "exp": now - 100}, ACCESS_SECRET, "HS256")


def stored(session_id: str, redis_url: str) -> set[str]:
    """The keys of a session that Redis has."""
    with client_of(redis_url) as client:
        return {key.decode() for key in client.hkeys(session_key(session_id, "d"))}


@pytest.mark.slow
async def test_server_killed_while_updates_go_on(
    backend: str, redis_url: str, tmp_path: Path
) -> None:
    """Killed twice and started again: all updates arrive, each made exactly one version."""

    port = free_port()

    def start() -> Any:
        return server_process(tmp_path, redis_url, SERVER_ADDR=f"127.0.0.1:{port}")

    async def writer(session: Session, stop: anyio.Event) -> int:
        count = 0
        while not stop.is_set():
            await session.set(f"key{count}", count)
            count += 1
            await anyio.sleep(0.02)
        return count

    async def scenario() -> None:
        sid = new_session()
        stop, counts = anyio.Event(), []
        run = anyio.to_thread.run_sync
        context = start()
        process: Process = await run(context.__enter__)
        async with device(port, "phone", sid) as phone, anyio.create_task_group() as group:
            events = phone.events()

            async def write() -> None:
                counts.append(await writer(phone, stop))

            group.start_soon(write)
            for _ in range(2):
                await until(lambda: phone.version > 5)
                acknowledged = phone.version
                process.kill()
                await run(partial(context.__exit__, None, None, None))
                await next_event(events, Disconnected)
                context = start()
                process = await run(context.__enter__)
                await next_event(events, Connected)
                assert phone.version >= acknowledged
            stop.set()
            await until(lambda: bool(counts))
            await phone.synced(within=20)
            expected = {f"key{n}": n for n in range(counts[0])}
            assert expected == dict(phone.state) == await phone.snapshot()
            assert counts[0] == phone.version
            assert expected.keys() == stored(sid, redis_url)
        await run(partial(context.__exit__, None, None, None))

    await on(backend, scenario)


async def test_lost_answers_do_not_repeat_updates(node: Node, backend: str) -> None:
    """The server does it, the answers are lost, the connection too: sent again, done once."""

    async def scenario() -> None:
        sid = new_session()
        with TcpProxy(node.port) as proxy:
            async with device(proxy.port, "phone", sid) as phone:
                async with device(node.port, "pc", sid) as pc:
                    proxy.deaf = True
                    updates = [await phone.set(f"k{n}", n) for n in range(5)]
                    updates.append(await phone.set("k0", "again"))
                    await until(lambda: pc.version == 6)
                    assert not any(update.done for update in updates)
                    proxy.deaf = False
                    proxy.cut()
                    versions = [await update.acknowledged() for update in updates]

                    # What the stream's number vouches for has the version of that answer.
                    assert [6] * 6 == versions
                    assert 6 == pc.version
                    assert "again" == (await pc.snapshot())["k0"]

    await on(backend, scenario)


async def test_own_change_does_not_flicker(node: Node, backend: str) -> None:
    """While our write is on its way, what another device writes to the key is not shown."""

    async def scenario() -> None:
        sid = new_session()
        with TcpProxy(node.port) as proxy:
            async with device(proxy.port, "phone", sid) as phone:
                async with device(node.port, "pc", sid) as pc:
                    changes = phone.changes()
                    proxy.mute = True
                    update = await phone.set("mood", "mine")
                    await pc.update({"mood": "theirs", "other": 1})
                    await until(lambda: phone.version == 1)
                    assert {"mood": "mine", "other": 1} == dict(phone.state)
                    change = await anext(changes)
                    assert {"mood": "mine", "other": 1} == change.changed
                    assert {"mood"} == change.own
                    proxy.mute = False
                    proxy.cut()
                    assert 2 == await update.acknowledged()
                    assert {"mood": "mine", "other": 1} == await pc.snapshot()

    await on(backend, scenario)


async def test_silent_server_is_given_up(backend: str, redis_url: str) -> None:
    """Nothing is heard for two heartbeat intervals: the client connects again."""
    async with running_node(redis_url, heartbeat_interval=0.3) as node:

        async def scenario() -> None:
            with TcpProxy(node.port) as proxy:
                async with device(proxy.port, "phone", new_session()) as phone:
                    events = phone.events()
                    proxy.deaf = True
                    lost = await next_event(events, Disconnected)
                    assert "nothing heard" in lost.reason
                    proxy.deaf = False
                    await next_event(events, Connected)

        await on(backend, scenario)


@pytest.mark.slow
async def test_draining_server_says_when_to_come_back(backend: str, redis_url: str) -> None:
    """1012 with a delay: the client keeps to it, and the next server gets what was written."""
    sid = new_session()
    async with running_node(redis_url) as second:
        async with running_node(redis_url) as first:

            async def scenario() -> None:
                with TcpProxy(first.port) as proxy:
                    async with device(proxy.port, "phone", sid) as phone:
                        events = phone.events()
                        proxy.upstream = second.port
                        stop_from_anywhere(first)
                        draining = await next_event(events, Draining)
                        await phone.set("while", "away")
                        lost = await next_event(events, Disconnected)
                        assert 1012 == lost.code
                        assert lost.retry_in >= draining.retry_after
                        await next_event(events, Connected)
                        await phone.synced(within=10)
                        assert {"while": "away"} == await phone.snapshot()

            token = trio.lowlevel.current_trio_token()

            def stop_from_anywhere(node: Node) -> None:
                token.run_sync_soon(node.stop.set)

            await on(backend, scenario)


async def test_token_is_renewed_in_band(backend: str, redis_url: str) -> None:
    """A callable is asked before the token ends; the connection lives on."""
    async with running_node(redis_url, expiry_warning=1.0, expiry_grace=1.0) as node:

        async def scenario() -> None:
            asked = []

            async def refresh() -> str:
                asked.append(time.monotonic())
                return mint("ann", ttl=3.0 if len(asked) == 1 else 600.0)

            async with device(node.port, "phone", new_session(), token=refresh) as phone:
                events = phone.events()
                renewed = await next_event(events, TokenRenewed)
                assert renewed.expires_at > time.time() + 500
                await (await phone.set("k", 1)).acknowledged()
                assert (2, Status.ONLINE) == (len(asked), phone.status)

        await on(backend, scenario)


async def test_token_that_cannot_be_renewed_ends_the_session(backend: str, redis_url: str) -> None:
    """A fixed token: a warning, a chance for `authenticate`, and then 4004 for good."""
    async with running_node(redis_url, expiry_warning=1.0, expiry_grace=0.5) as node:

        async def scenario() -> None:
            token = mint("ann", ttl=2.0)
            async with device(node.port, "phone", new_session(), token=token) as phone:
                events = phone.events()
                await next_event(events, TokenExpiring)
                await phone.authenticate(mint("ann", ttl=2.0))
                await next_event(events, TokenRenewed)
                await next_event(events, TokenExpiring)
                closed = await phone.wait_closed()
                assert 4004 == closed.code
                with pytest.raises(SessionClosed):
                    await phone.authenticate(mint("ann"))

        await on(backend, scenario)


async def test_token_that_ran_out_while_offline_is_renewed(node: Node, backend: str) -> None:
    """4004 on connecting: the callable is asked once more, and the session goes on."""

    async def scenario() -> None:
        tokens = [run_out("ann"), mint("ann")]

        async def refresh() -> str:
            return tokens.pop(0)

        async with device(node.port, "phone", new_session(), token=refresh) as phone:
            assert [] == tokens
            await (await phone.set("k", 1)).acknowledged()

    await on(backend, scenario)


@pytest.mark.parametrize("bad", ["garbage", None])
async def test_token_that_the_server_does_not_take_is_replaced(
    node: Node, backend: str, bad: Any
) -> None:
    """A bad one in between (a mistake of the callable) does not end the session."""

    async def scenario() -> None:
        tokens = [mint("ann", ttl=3.0), bad]

        async def refresh() -> Any:
            return tokens.pop(0) if tokens else mint("ann")

        async with device(node.port, "phone", new_session(), token=refresh) as phone:
            await next_event(phone.events(), Disconnected if bad else TokenFailed)
            assert [] == tokens
            await phone.online(5)
            await (await phone.set("k", 1)).acknowledged()

    await on(backend, scenario)


async def test_failing_token_source_is_asked_again(node: Node, backend: str) -> None:
    """An exception of the callable delays the connection and does not end the session."""

    async def scenario() -> None:
        failures = [OSError("away"), ValueError("broken")]

        async def refresh() -> str:
            if failures:
                raise failures.pop()
            return mint("ann")

        async with device(node.port, "phone", new_session(), token=refresh) as phone:
            assert ([], Status.ONLINE) == (failures, phone.status)

    await on(backend, scenario)
