"""Nodes and their sessions, sweeping, signing out, handoff tokens and users, script by script."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis
import trio

from support.contract.requests import join, leave, pairs, session_id, touch, write
from support.redis_servers import RedisServer
from syncbridge.errors import StoreUnavailable
from syncbridge.records.devices import (
    Expel,
    Forget,
    ListDevices,
    ListSessions,
    OpenHandoff,
    Peek,
    Redeem,
    Remember,
)
from syncbridge.records.nodes import (
    Condemn,
    Dismiss,
    KeepLease,
    ListHeld,
    ListNodes,
    Release,
    Renew,
    Sweep,
    Swept,
    TakeLease,
)
from syncbridge.records.sessions import Notice, PresenceChange, Status
from syncbridge.slots import TAGS, bucket_of, session_key, slot_of
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.messages import encode_notice, node_channels
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.stores.keys import handoff_key, held_key
from syncbridge_server.redis.stores.store import RedisStore

MINUTE = 60_000


class Node:
    """A node's store, and what it is told of devices."""

    def __init__(self, name: str, io: RedisIO, bus: RedisBus) -> None:
        self.name = name
        self.store = RedisStore(io, name)
        self.changes: list[PresenceChange] = []
        self._io = io
        self._echo = trio.Event()
        bus.on_presence(self.changes.append)
        bus.on_notice("echo", lambda notice: self._echo.set())

    async def told(self) -> list[tuple[str, str]]:
        """(event, device) of everything that was published so far, by whichever primary."""
        slots, echo = self._io.connections.slots, encode_notice(Notice("echo", "", b""))
        pairs = zip(TAGS, node_channels(self.name), strict=True)
        channels = {slots.owners[slot_of(tag)] if slots else None: one for tag, one in pairs}
        for channel in channels.values():
            self._echo = trio.Event()
            await self._io.request([plain("SPUBLISH", channel, echo)])
            with trio.fail_after(10):
                await self._echo.wait()
        return [(change.event, change.device_id) for change in self.changes]


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[list[Node]]:
    """Two nodes with random names."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            io = await stack.enter_async_context(RedisIO(server.url, deadline=8.0).running())
            name = session_id()
            bus = await stack.enter_async_context(RedisBus(io, name).running())
            made.append(Node(name, io, bus))
        yield made


async def test_scripts_tell_the_other_nodes(nodes: list[Node]) -> None:
    """Each change once, to the others only; versions and fences fit; repeated hellos are quiet."""
    one, two = nodes
    sid = session_id()
    first = await two.store.call(join(sid, "watch", "w", two.name))
    hello = join(sid, "phone", "c1", one.name, info=b'{"device_type":"ios"}')
    joined = await one.store.call(hello)
    again = await one.store.call(hello)
    await one.store.call(write(sid, {"a": "1"}))
    await one.store.call(leave(sid, "phone", "c1", one.name, reason="closed"))
    await one.store.call(leave(sid, "phone", "c1", one.name, reason="closed"))
    told = await two.told()

    assert [("joined", "phone"), ("closed", "phone")] == told
    assert b'{"device_type":"ios"}' == two.changes[0].detail
    assert joined.fence == again.fence == two.changes[0].fence == two.changes[1].fence
    assert again.replaced is None
    assert first.fence < joined.fence
    assert [] == [c for c in one.changes if c.device_id == "phone"]


async def test_fences_grow_even_within_a_millisecond(store: RedisStore) -> None:
    """Each new connection gets a greater one, whatever the clock says."""
    sid = session_id()
    fences = [(await store.call(join(sid, f"d{n % 3}", f"c{n}"))).fence for n in range(30)]

    assert sorted(set(fences)) == fences


async def test_sweep_takes_a_dead_nodes_devices(nodes: list[Node]) -> None:
    """Told once to every node, the sweeper's too; the devices of the others stay."""
    one, two = nodes
    sid = session_id()
    await two.store.call(join(sid, "watch", "w", two.name))
    await one.store.call(join(sid, "here", "h", one.name))
    await one.store.call(join(sid, "dead", "c", "gone"))
    swept = [await one.store.call(Sweep(sid, "gone", MINUTE)) for _ in range(2)]
    listed = await one.store.call(ListDevices(sid))

    assert [Swept(1, False), Swept(0, False)] == swept
    assert ("timeout", "dead") == (await two.told())[-1]
    assert ("timeout", "dead") == (await one.told())[-1]
    assert 2 == two.changes[-1].online
    devices = {device.device_id: device for device in listed.devices}
    assert {"watch": True, "here": True, "dead": False} == {
        name: bool(device.online and device.fence) for name, device in devices.items()
    }
    assert listed.now - devices["dead"].seen >= MINUTE


async def test_a_device_that_came_back_is_not_swept(store: RedisStore) -> None:
    """Its node died, and it connected to another before the sweep."""
    sid = session_id()
    await store.call(join(sid, "d", "c1", "n1"))
    await store.call(join(sid, "d", "c2", "n2"))

    assert Swept(0, False) == await store.call(Sweep(sid, "n1", MINUTE))


async def test_many_devices_are_swept_in_portions(store: RedisStore) -> None:
    """The session stays on the dead node's list until the last of them has left."""
    sid, node = session_id(), session_id()
    for number in range(5):
        await store.call(join(sid, f"d{number}", f"c{number}", node))
    left, lists = [], []
    while not left or left[-1].more:
        left.append(await store.call(Sweep(sid, node, MINUTE, most=2)))
        lists.append((await store.call(ListHeld(bucket_of(sid), node))).sids)

    assert [Swept(2, True), Swept(2, True), Swept(1, False)] == left
    assert [[sid], [sid], []] == lists


async def test_the_list_of_a_nodes_sessions(store: RedisStore, raw: redis.Redis) -> None:
    """A session is on it from a node's first device to its last, and comes back with a touch; the
    list does not outlive the sessions by much."""
    sid, node = session_id(), session_id()
    key = held_key(sid, node)
    found = []
    for request in (
        join(sid, "a", "c1", node),
        join(sid, "b", "c2", node),
        leave(sid, "a", "c1", node),
        leave(sid, "b", "c2", node, last=True),
        join(sid, "a", "c1", node),
        Sweep(sid, node, MINUTE),
        touch(sid, "a", node=node),
        join(sid, "a", "c1", node),
        Release(sid, node),
        touch(sid, "a", node=node),
    ):
        await store.call(request)
        found.append(bool(raw.sismember(key, sid)))

    assert [True, True, True, False, True, False, False, True, False, True] == found
    assert 7 * 86_400_000 < int(raw.pttl(key)) < 8 * 86_400_000


async def test_nodes_and_the_dead(store: RedisStore) -> None:
    """An entry is new once; who is declared dead is on the other list until it was swept."""
    node = session_id()
    first = await store.call(Renew(node, "1 2 0"))
    second = await store.call(Renew(node, "2 2 0"))
    listed = (await store.call(ListNodes())).entries[node]
    for _ in range(2):
        await store.call(Condemn(node, 5))
    await store.call(Dismiss(node))
    dead = (await store.call(ListNodes(dead=True))).entries[node]
    gone = node in (await store.call(ListNodes())).entries
    again = await store.call(Renew(node, "3 2 0"))
    await store.call(Dismiss(node, dead=True))

    assert (True, False, True) == (first.new, second.new, again.new)
    assert ("2 2 0", "5", False) == (listed, dead, gone)
    assert node not in (await store.call(ListNodes(dead=True))).entries


async def test_one_node_at_a_time_has_a_task(store: RedisStore, raw: redis.Redis) -> None:
    """Until its lease is over; it cannot be kept then."""
    task = session_id()
    key = f"lease:{{nodes}}:{task}"
    one, two = TakeLease(task, "a", MINUTE), TakeLease(task, "b", MINUTE)
    taken = [(await store.call(request)).taken for request in (one, two, KeepLease(task, 2000))]
    life = int(raw.pttl(key))
    raw.delete(key)
    late = [(await store.call(request)).taken for request in (KeepLease(task, MINUTE), two)]

    assert ([True, False, True], [False, True]) == (taken, late)
    assert 0 < life <= 2000


async def test_an_expelled_device_is_gone_and_barred(nodes: list[Node]) -> None:
    """Its connection may not write; the node that has it is told, though not registered."""
    one, two = nodes
    sid = session_id()
    joined = await two.store.call(join(sid, "phone", "c1", two.name))
    await two.store.call(write(sid, {"a": "1"}, fence=joined.fence, device_id="phone"))
    expelled = await one.store.call(Expel(sid, "phone", "u"))
    late = await two.store.call(write(sid, {"a": "2"}, fence=joined.fence, device_id="phone"))
    again = await one.store.call(Expel(sid, "phone", "u"))
    back = await two.store.call(join(sid, "phone", "c2", two.name))
    ack = await two.store.call(write(sid, {"a": "3"}, fence=back.fence, device_id="phone"))

    assert (Status.OK, joined.fence) == (expelled.status, expelled.fence)
    assert (Status.FENCED, Status.NO_DEVICE) == (late.status, again.status)
    assert (Status.OK, 2) == (ack.status, ack.version)
    assert ("removed", "phone") in await two.told()


async def test_a_first_write_comes_too_late_like_any_other(nodes: list[Node]) -> None:
    """A session that nobody has written yet: neither a connection that was signed out makes it,
    nor one that another connection of its device has replaced."""
    one, two = nodes
    sid = session_id()
    joined = await two.store.call(join(sid, "phone", "c1", two.name))
    await two.store.call(join(sid, "watch", "c3", two.name))
    await one.store.call(Expel(sid, "phone", "u"))
    late = await two.store.call(write(sid, {"a": "1"}, fence=joined.fence, device_id="phone"))
    back = await two.store.call(join(sid, "phone", "c2", two.name))
    await one.store.call(join(sid, "phone", "c4", one.name))
    later = await two.store.call(write(sid, {"a": "2"}, fence=back.fence, device_id="phone"))
    touched = await two.store.call(touch(sid, "phone", node=two.name))

    assert (Status.FENCED, Status.FENCED) == (late.status, later.status)
    assert 0 == touched.version
    (lost,) = touched.lost
    assert ("phone", True) == (lost.device_id, lost.barred > back.fence > joined.fence)


async def test_touch_names_what_it_has_lost(store: RedisStore) -> None:
    """Swept, moved and barred devices; the others are renewed."""
    sid = session_id()
    for device, conn in (("here", "a"), ("swept", "b"), ("moved", "c"), ("barred", "d")):
        joined = await store.call(join(sid, device, conn, "n1"))
    await store.call(write(sid, {"a": "1"}))
    await store.call(join(sid, "moved", "x", "n2"))
    await store.call(leave(sid, "swept", "b", "n1"))
    await store.call(Expel(sid, "barred", "u"))
    touched = await store.call(touch(sid, "here", "swept", "moved", "barred"))

    lost = {each.device_id: each for each in touched.lost}
    assert {"swept", "moved", "barred"} == lost.keys()
    assert ("", "n2", "") == tuple(lost[d].node for d in ("swept", "moved", "barred"))
    assert lost["barred"].barred > joined.fence
    assert 0 == lost["swept"].barred


def handoff(sid: str, digest: str, **more: Any) -> OpenHandoff:
    fields: dict[str, Any] = {"user_id": "u", "owner_check": True, "life_ms": MINUTE} | more
    return OpenHandoff(sid, digest, "phone", "tablet", **fields)


def redeem(sid: str, digest: str, device_id: str = "tablet", **more: Any) -> Redeem:
    fields: dict[str, Any] = {"user_id": "u", "owner_check": True, "reread_ms": MINUTE} | more
    return Redeem(sid, digest, device_id, **fields)


async def test_redemption_releases_the_source(nodes: list[Node]) -> None:
    """Offline, barred, told to its node; the answer is the state, and stays that."""
    one, two = nodes
    sid = session_id()
    joined = await two.store.call(join(sid, "phone", "c1", two.name))
    await two.store.call(write(sid, {"a": "1"}))
    await one.store.call(handoff(sid, "x"))
    answer = await one.store.call(redeem(sid, "x"))
    late = await two.store.call(write(sid, {"a": "2"}, fence=joined.fence, device_id="phone"))
    other = await two.store.call(write(sid, {"b": "2"}, device_id="watch"))
    again = await one.store.call(redeem(sid, "x", ""))
    listed = (await one.store.call(ListDevices(sid))).devices

    assert (Status.OK, "phone", "tablet", 1) == (
        answer.status,
        answer.source,
        answer.target,
        answer.version,
    )
    assert {b"a": b"1"} == pairs(answer.flat) == pairs(again.flat)
    assert joined.fence == answer.fence == again.fence
    assert 1 == again.version
    assert (Status.FENCED, Status.OK) == (late.status, other.status)
    assert ("handoff", "phone") in await two.told()
    assert (b"tablet", 1) == (two.changes[-1].detail, two.changes[-1].version)
    assert [("phone", False, 0)] == [(d.device_id, d.online, d.fence) for d in listed]


async def test_handoffs_that_do_not_work(store: RedisStore) -> None:
    """Each with its own status, and none burns a token."""
    sid, nowhere = session_id(), session_id()
    assert Status.NOT_FOUND is (await store.call(handoff(sid, "x"))).status
    await store.call(write(sid, {"a": "1"}))
    assert Status.FORBIDDEN is (await store.call(handoff(sid, "x", user_id="v"))).status
    await store.call(handoff(sid, "x"))
    await store.call(handoff(sid, "old", life_ms=-1))
    requests = {
        "session": redeem(nowhere, "x"),
        "owner": redeem(sid, "x", user_id="v"),
        "token": redeem(sid, "y"),
        "device": redeem(sid, "x", "phone"),
        "expired": redeem(sid, "old"),
        "right": redeem(sid, "x", reread_ms=0),
        "again": redeem(sid, "x", reread_ms=0),
    }
    found = {name: (await store.call(request)).status for name, request in requests.items()}

    assert {
        "session": Status.NOT_FOUND,
        "owner": Status.FORBIDDEN,
        "token": Status.NO_TOKEN,
        "device": Status.WRONG_DEVICE,
        "expired": Status.EXPIRED,
        "right": Status.OK,
        "again": Status.SPENT,
    } == found


async def test_a_later_redemption_takes_the_place_of_the_kept_answer(store: RedisStore) -> None:
    """Only one copy of the state is kept; the earlier target is then given the newest."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    for digest in "xy":
        await store.call(handoff(sid, digest))
    await store.call(redeem(sid, "x"))
    await store.call(write(sid, {"a": "2"}))
    await store.call(redeem(sid, "y"))
    await store.call(write(sid, {"a": "3"}))
    answers = [await store.call(redeem(sid, digest)) for digest in "xy"]

    assert [(3, {b"a": b"3"}), (2, {b"a": b"2"})] == [(a.version, pairs(a.flat)) for a in answers]


async def test_every_key_of_a_handoff_expires(store: RedisStore, raw: redis.Redis) -> None:
    """Also when the state is empty."""
    sid = session_id()
    await store.call(write(sid))
    await store.call(handoff(sid, "x"))
    answer = await store.call(redeem(sid, "x"))
    again = await store.call(redeem(sid, "x"))
    keys = [key.decode() for key in raw.scan_iter(f"{handoff_key(sid)}*")]

    assert ([], []) == (answer.flat, again.flat)
    assert [handoff_key(sid), handoff_key(sid, "a"), handoff_key(sid, "x")] == sorted(keys)
    assert all(raw.pttl(key) > 0 for key in keys)


async def test_barred_devices_are_bounded(store: RedisStore, raw: redis.Redis) -> None:
    """A session whose devices come and are signed out for ever does not grow."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    for number in range(400):
        await store.call(join(sid, f"d{number}", f"c{number}"))
        await store.call(Expel(sid, f"d{number}", "u"))
    last = await store.call(write(sid, {"a": "2"}, device_id="d399", fence=1))

    barred = [field for field in raw.hkeys(session_key(sid, "m")) if field[:1] == b"x"]
    assert len(barred) <= 320
    assert Status.FENCED is last.status


@pytest.mark.parametrize("letter", "mo")
async def test_wrong_type_stops_before_anything_is_done(
    store: RedisStore, io: RedisIO, letter: str
) -> None:
    """A key of another type is refused, and nothing has changed."""
    sid = session_id()
    await store.call(join(sid, "phone", "c1"))
    await store.call(write(sid, {"a": "1"}))
    await store.call(handoff(sid, "x"))
    key = session_key(sid, letter)
    await io.execute("SET", key, "not this")
    keys = [session_key(sid, each) for each in "mdkjo"]
    keys += [handoff_key(sid, "x"), handoff_key(sid)]
    before = [await io.execute("DUMP", each) for each in keys]
    for request in (Expel(sid, "phone", "u"), redeem(sid, "x")):
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await store.call(request)

    assert before == [await io.execute("DUMP", each) for each in keys]


async def test_a_users_sessions_are_paged_newest_first(
    store: RedisStore, io: RedisIO, raw: redis.Redis
) -> None:
    """Ties are broken by id; what is older than a session can be is dropped."""
    user = session_id()
    sids = sorted(session_id() for _ in range(7))
    for sid in sids:
        await store.call(Remember(user, sid))
    now = int(raw.zscore(f"u:{user}", sids[0]) or 0)
    raw.zadd(f"u:{user}", dict.fromkeys(sids[:6], now) | {sids[6]: 1})
    pages, after = [], None
    while True:
        page = await store.call(ListSessions(user, 2, after))
        pages.append([sid for sid, _ in page.sessions])
        if not page.more:
            break
        after = page.sessions[-1][1], page.sessions[-1][0]
    await store.call(Forget(user, sids[:3]))
    rest = await store.call(ListSessions(user, 50))

    newest = sids[5::-1]
    assert [newest[0:2], newest[2:4], newest[4:6]] == pages
    assert newest[:3] == [sid for sid, _ in rest.sessions]
    assert raw.pttl(f"u:{user}") > 0


async def test_peek(store: RedisStore) -> None:
    """Nothing, a session that is waited for, and one that is written."""
    sid = session_id()
    nothing = await store.call(Peek(sid))
    await store.call(join(sid, "d1"))
    await store.call(join(sid, "gone", "c2", "n2"))
    await store.call(Sweep(sid, "n2", MINUTE))
    waiting = await store.call(Peek(sid))
    written = await store.call(write(sid, {"a": "1"}))
    peeked = await store.call(Peek(sid))

    assert (False, "", []) == (nothing.exists, nothing.owner, nothing.online)
    assert (False, "u", ["d1"]) == (waiting.exists, waiting.owner, waiting.online)
    assert (True, 1, written.epoch, written.updated_at) == (
        peeked.exists,
        peeked.version,
        peeked.epoch,
        peeked.updated_at,
    )
