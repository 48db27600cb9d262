"""Voice calls through the client library, on a real server."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from support.client_kit import device, next_event, on, until
from support.redis_servers import RedisServer
from support.server_kit import Node, new_session, running_node
from support.tcp_proxy import TcpProxy
from support.voice import calls_kit as kit
from syncbridge.voice.channel import Channel
from syncbridge_client import RequestFailed, Session, VoiceEvent, VoiceLost

pytestmark = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """A server with voice on a Redis of its own, whose leases are short."""
    fast = {
        "presence_timeout": 2.0,
        "heartbeat_interval": 0.5,
        "rate_limit_enabled": False,
        "voice_migration": 0.5,
    }
    with RedisServer() as redis:
        async with running_node(redis.url, **fast, **kit.NOWHERE) as running:
            await kit.open_call(running, "c")
            yield running


def client(port: int, user: str, name: str) -> Session:
    return device(port, name, new_session(), token=kit.pass_for(user))


async def on_and_then(
    backend: str,
    scenario: Callable[[], Awaitable[None]],
    told: threading.Event,
    deed: Callable[[], Awaitable[None]],
) -> None:
    """Run a scenario, and beside it a deed on the server as soon as the scenario sets `told`."""

    async def act() -> None:
        await until(told.is_set)
        await deed()

    async with anyio.create_task_group() as group:
        group.start_soon(act)
        await on(backend, scenario)


async def state_of(events: object, user: str, state: str) -> VoiceEvent:
    """The next voice_state_update of a user with a state."""
    while True:
        event = await next_event(events, VoiceEvent)
        if (event.data.get("userId"), event.data.get("state")) == (user, state):
            return event


async def test_a_call_is_kept_alive_over_connections(node: Node, backend: str) -> None:
    """Joined once, reported by itself for longer than a lease, also after the connection broke."""

    async def scenario() -> None:
        with TcpProxy(node.port) as proxy:
            await over(proxy)

    async def over(proxy: TcpProxy) -> None:
        async with (
            client(proxy.port, "ann", "phone") as ann,
            client(node.port, "bob", "laptop") as bob,
        ):
            events = bob.events()
            await bob.voice.join("c")
            call = await ann.voice.join("c", connection_id="c1", muted=True)
            assert {"ann", "bob"} == set(call.participants)
            await state_of(events, "ann", "muted")
            proxy.cut()
            with anyio.move_on_after(3.0):
                event = await state_of(events, "ann", "disconnected")
                raise AssertionError(event)
            assert bob.voice.calls["c"].participants["ann"].muted
            await ann.voice.leave("c", connection_id="c1")
            await state_of(events, "ann", "disconnected")

    await on(backend, scenario)


async def test_speaking_goes_on_until_it_ends(node: Node, backend: str) -> None:
    """One call of the program is enough for longer than the server takes silence for the end."""

    async def scenario() -> None:
        async with (
            client(node.port, "ann", "phone") as ann,
            client(node.port, "bob", "laptop") as bob,
        ):
            await ann.voice.join("c")
            await bob.voice.join("c")
            await ann.voice.speaking("c", True)
            await until(lambda: bob.voice.calls["c"].participants["ann"].speaking)
            with anyio.move_on_after(2.5):
                await until(lambda: not bob.voice.calls["c"].participants["ann"].speaking)
                raise AssertionError("it was cleared")
            await ann.voice.speaking("c", False)
            await until(lambda: not bob.voice.calls["c"].participants["ann"].speaking)

    await on(backend, scenario)


async def test_refusals_and_the_end_are_told(node: Node, backend: str) -> None:
    """A channel without a call is a failed request; a call that ends is VoiceLost."""

    async def scenario() -> None:
        async with client(node.port, "ann", "phone") as ann:
            with pytest.raises(RequestFailed, match="not_found"):
                await ann.voice.join("nothing")
            watched = await ann.voice.watch("nothing", kit.WADDLE)
            assert ("ended", {}) == (watched.phase, watched.participants)
            await ann.voice.unwatch("nothing")
            events = ann.events()
            await ann.voice.join("c")
            ended.set()
            lost = await next_event(events, VoiceLost)
            assert ("c", "closed") == (lost.channel_id, lost.reason)
            assert {} == dict(ann.voice.calls)

    async def end() -> None:
        await kit.desk_of(node).change("c", lambda channel, now: channel.end(now, "closed"))

    ended = threading.Event()
    await on_and_then(backend, scenario, ended, end)


async def test_who_did_not_come_over_has_lost_the_call(node: Node, backend: str) -> None:
    """It is told once, and its reports end; who joins again, in the new session, is in it."""

    async def scenario() -> None:
        async with (
            client(node.port, "ann", "phone") as ann,
            client(node.port, "bob", "laptop") as bob,
        ):
            events = ann.events()
            await ann.voice.join("c", connection_id="c1")
            await bob.voice.join("c", connection_id="b1")
            moves.set()
            await until(lambda: bob.voice.calls["c"].session_id == "s2")
            await bob.voice.join("c", connection_id="b2", session_id="s2")
            lost = await next_event(events, VoiceLost)
            assert ("c", "migration") == (lost.channel_id, lost.reason)
            assert {"bob"} == set((await bob.voice.watch("c", kit.WADDLE)).participants)
            back = await ann.voice.join("c", connection_id="c2", session_id="s2")
            assert {"ann", "bob"} == set(back.participants)

    def move(channel: Channel, now: int) -> None:
        room = channel.migrate(now, "operator")
        assert room is not None
        channel.moved("s2", now, room.key)

    async def migrate() -> None:
        await kit.desk_of(node).change("c", move)

    moves = threading.Event()
    await on_and_then(backend, scenario, moves, migrate)


async def test_a_call_that_was_lost_unheard_is_told(node: Node, backend: str) -> None:
    """The user was removed while the device was away, and is not let in by what it repeats."""

    async def scenario() -> None:
        with TcpProxy(node.port) as proxy:
            async with client(proxy.port, "ann", "phone") as ann:
                events = ann.events()
                await ann.voice.join("c", connection_id="c1")
                proxy.cut()
                gone.set()
                lost = await next_event(events, VoiceLost)
                assert ("c", "verified") == (lost.channel_id, lost.reason)

    async def remove() -> None:
        await kit.hear(node, "c", kit.came("ann", "c1"), kit.went("ann", "c1"))

    gone = threading.Event()
    await on_and_then(backend, scenario, gone, remove)
