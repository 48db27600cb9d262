"""The client library on a real server, on Trio and on asyncio."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from support.client_kit import device, next_change, next_event, on, until
from support.server_kit import Node, new_session, running_node
from support.tcp_proxy import TcpProxy
from syncbridge_client import (
    MISSING,
    Conflict,
    Connected,
    ConnectFailed,
    DeviceJoined,
    DeviceLeft,
    Disconnected,
    EventsLost,
    InvalidUpdate,
    QueueFull,
    Refused,
    SessionClosed,
    Status,
    UnsentUpdates,
    UpdateRefused,
    connect,
)

pytestmark = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


async def test_what_one_device_sets_the_other_sees(node: Node, backend: str) -> None:
    """Shown at once by the writer, acknowledged with a version, seen by the other device."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "phone", sid) as phone, device(node.port, "pc", sid) as pc:
            changes = pc.changes()
            update = await phone.set("mood", "calm")

            assert {"mood": "calm"} == dict(phone.state)
            assert 1 == await update.acknowledged()
            change = await next_change(changes)
            assert ({"mood": "calm"}, frozenset(), 1) == (
                change.changed,
                change.deleted,
                change.version,
            )
            await phone.update({"a": [1, {"b": None}], "n": 1.5}, delete=["mood"])
            await phone.synced()
            change = await next_change(changes)
            assert {"a": [1, {"b": None}], "n": 1.5} == change.changed == dict(pc.state)
            assert frozenset({"mood"}) == change.deleted
            await phone.delete("a")
            await phone.synced()
            assert {"n": 1.5} == await pc.snapshot() == dict(pc.state)
            assert (phone.version, phone.epoch) == (pc.version, pc.epoch) == (3, pc.epoch)
            assert (Status.ONLINE, sid, "ann") == (pc.status, pc.session_id, pc.user_id)

    await on(backend, scenario)


async def test_devices_and_events(node: Node, backend: str) -> None:
    """Who is there is known at the start, and told when it changes."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "phone", sid) as phone:
            events = phone.events()
            async with device(node.port, "pc", sid, device_type="desktop") as pc:
                joined = await next_event(events, DeviceJoined)
                assert ("pc", "desktop") == (joined.device.device_id, joined.device.device_type)
                assert {"phone", "pc"} == {d.device_id for d in pc.devices}
                assert {"phone", "pc"} == {d.device_id for d in phone.devices}
            left = await next_event(events, DeviceLeft)
            assert ("pc", "closed") == (left.device_id, left.reason)
            assert {"phone": "online", "pc": "offline"} == {
                d.device_id: d.status for d in phone.devices
            }

    await on(backend, scenario)


async def test_slow_reader_of_changes_gets_the_newest_values(node: Node, backend: str) -> None:
    """However many changes there were, one answer has the newest value of each key."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "phone", sid) as phone, device(node.port, "pc", sid) as pc:
            changes, reset = pc.changes(), device(node.port, "x", sid, change_keys=3)
            async with reset as small:
                few = small.changes()
                for n in range(60):
                    await phone.set(f"k{n % 5}", n)
                await phone.delete("k0")
                await phone.synced()
                expected = {"k1": 56, "k2": 57, "k3": 58, "k4": 59}
                await until(lambda: dict(pc.state) == dict(small.state) == expected)

                change = await next_change(changes)
                assert (expected, {"k0"}) == (change.changed, set(change.deleted))
                whole = await next_change(few)
                assert (expected, True) == (whole.changed, whole.reset)

    await on(backend, scenario)


async def test_slow_reader_of_events_is_told_what_it_missed(node: Node, backend: str) -> None:
    """The newest events are kept, and the number of lost ones comes first."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "phone", sid, event_count=2) as phone:
            events = phone.events()
            for name in ("a", "b", "c"):
                async with device(node.port, name, sid):
                    pass
            await until(lambda: [d.status for d in phone.devices].count("offline") == 3)

            assert EventsLost(4) == await anext(events)
            assert "c" == (await next_event(events, DeviceJoined)).device.device_id

    await on(backend, scenario)


@pytest.mark.parametrize("policy", ["server_wins", "client_wins", "sum"])
async def test_conflict_is_settled_and_reported(node: Node, backend: str, policy: str) -> None:
    """Two devices write the same key without having seen each other; the policy decides."""

    async def scenario() -> None:
        sid = new_session()
        option: Any = (lambda key, mine, theirs: mine + theirs) if policy == "sum" else policy
        with TcpProxy(node.port) as proxy:
            async with device(node.port, "phone", sid) as phone:
                await (await phone.set("n", 1)).acknowledged()
                async with device(proxy.port, "pc", sid, conflict=option) as pc:
                    events = pc.events()
                    proxy.refusing = True
                    proxy.cut()
                    await (await phone.set("n", 10)).acknowledged()
                    ours = await pc.update({"n": 5, "other": True})
                    proxy.refusing = False
                    await ours.acknowledged()
                    conflict = await next_event(events, Conflict)

                    assert [("n", 5, 10)] == [
                        (r.key, r.mine, r.theirs) for r in conflict.resolutions
                    ]
                    written = {"server_wins": 10, "client_wins": 5, "sum": 15}[policy]
                    assert {"n": written, "other": True} == await pc.snapshot()

    await on(backend, scenario)


async def test_refused_update_is_taken_back(node: Node, backend: str) -> None:
    """What the server never takes disappears from the view, and everybody is told."""

    async def scenario() -> None:
        async with device(node.port, "phone", new_session()) as phone:
            events = phone.events()
            deep: Any = 1
            for _ in range(70):
                deep = [deep]
            update = await phone.set("deep", deep)
            assert "deep" in phone.state
            with pytest.raises(UpdateRefused) as caught:
                await update.acknowledged()
            assert "too_deep" == caught.value.code
            assert {} == dict(phone.state)
            assert ("deep",) == (await next_event(events, Refused)).keys

    await on(backend, scenario)


@pytest.mark.parametrize(
    "value", [float("nan"), object(), "\ud800", {1, 2}, "x" * 70_000], ids=lambda v: type(v)
)
async def test_unsendable_values_are_refused_at_once(
    node: Node, backend: str, value: object
) -> None:
    """Neither shown nor queued."""

    async def scenario() -> None:
        async with device(node.port, "phone", new_session()) as phone:
            with pytest.raises(InvalidUpdate):
                await phone.set("k", value)
            with pytest.raises(InvalidUpdate):
                await phone.set("", 1)
            assert ({}, ()) == (dict(phone.state), phone.pending)

    await on(backend, scenario)


async def test_errors_come_out_as_they_are(node: Node, backend: str) -> None:
    """An exception of the program, a refused token and a dead port are not wrapped in groups."""

    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            async with device(node.port, "phone", new_session()) as phone:
                await phone.set("k", 1 // 0)
        with pytest.raises(SessionClosed, match="token_invalid"):
            async with device(node.port, "phone", new_session(), token="nonsense"):
                pass
        with pytest.raises(ConnectFailed):
            async with device(1, "phone", new_session(), start_timeout=0.3):
                pass
        with pytest.raises(ValueError, match="ws://"):
            connect("ftp://127.0.0.1/ws", token="t", device_id="phone")

    await on(backend, scenario)


async def test_replaced_session_ends(node: Node, backend: str) -> None:
    """The same device elsewhere takes over; the old session ends for good and says so."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "phone", sid) as old:
            changes = old.changes()
            async with device(node.port, "phone", sid):
                closed = await old.wait_closed()
            assert (4009, Status.CLOSED) == (closed.code, old.status)
            assert [] == [change async for change in changes]
            with pytest.raises(SessionClosed):
                await old.set("k", 1)

    await on(backend, scenario)


async def test_cancelling_a_program_leaves_nothing_behind(node: Node, backend: str) -> None:
    """A cancelled body ends the session at once, and the server sees a proper close."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "pc", sid) as pc:
            events = pc.events()
            with anyio.CancelScope() as scope:
                async with device(node.port, "phone", sid) as phone:
                    await phone.set("k", 1)
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert "closed" == (await next_event(events, DeviceLeft)).reason

    await on(backend, scenario)


async def test_offline_queue_is_bounded_and_reported(backend: str) -> None:
    """Without a server updates show and wait; the one too many is refused, none is dropped."""

    async def scenario() -> None:
        session = device(
            1, "phone", new_session(), token="t", start_timeout=0, queue_updates=3, close_timeout=0
        )

        async def program() -> None:
            async with session as phone:
                for n in range(3):
                    await phone.set(f"k{n}", n)
                with pytest.raises(QueueFull):
                    await phone.set("more", 1)
                assert {"k0": 0, "k1": 1, "k2": 2} == dict(phone.state)
                assert 3 == len(phone.pending)
                with pytest.raises(TimeoutError):
                    await phone.synced(within=0.1)

        with pytest.raises(UnsentUpdates) as caught:
            await program()
        assert [("k0",), ("k1",), ("k2",)] == caught.value.keys

    await on(backend, scenario)


async def test_resumes_where_it_was(node: Node, backend: str) -> None:
    """After a broken connection only the difference is asked for, and the view is right."""

    async def scenario() -> None:
        sid = new_session()
        with TcpProxy(node.port) as proxy:
            async with device(node.port, "phone", sid) as phone:
                await (await phone.set("a", 1)).acknowledged()
                async with device(proxy.port, "pc", sid) as pc:
                    events = pc.events()
                    proxy.cut()
                    await phone.update({"b": 2}, delete=["a"])
                    assert 1006 == (await next_event(events, Disconnected)).code
                    assert (await next_event(events, Connected)).resumed
                    await until(lambda: dict(pc.state) == {"b": 2})

    await on(backend, scenario)


async def test_missing_is_not_null(node: Node, backend: str) -> None:
    """null is a value; a key that is not there is not in the view."""

    async def scenario() -> None:
        async with device(node.port, "phone", new_session()) as phone:
            await (await phone.set("k", None)).acknowledged()
            assert None is phone.state.get("k", MISSING)
            await (await phone.delete("k")).acknowledged()
            assert MISSING is phone.state.get("k", MISSING)

    await on(backend, scenario)
