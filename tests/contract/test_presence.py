"""The presence index, sweeping, signing out, handoff tokens and users, script by script."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis
import trio

from contract.requests import join, leave, pairs, session_id, touch, write
from support.redis_servers import RedisServer
from syncbridge.errors import StoreUnavailable
from syncbridge.records.devices import (
    Claim,
    Expel,
    Forget,
    Index,
    ListDevices,
    ListSessions,
    OpenHandoff,
    Peek,
    Redeem,
    Release,
    Remember,
    Sweep,
    bucket_of,
)
from syncbridge.records.sessions import Notice, PresenceChange, Status
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

MINUTE = 60_000


class Node:
    """A node's store, and what it is told of devices."""

    def __init__(self, name: str, io: RedisIO, bus: RedisBus) -> None:
        self.name = name
        self.store = RedisStore(io, name)
        self.changes: list[PresenceChange] = []
        self._bus = bus
        self._echo = trio.Event()
        bus.on_presence(self.changes.append)
        bus.on_notice("echo", lambda notice: self._echo.set())

    async def told(self) -> list[tuple[str, str]]:
        """(event, device) of everything that was published so far."""
        self._echo = trio.Event()
        self._bus.tell(self.name, Notice("echo", "", b""))
        with trio.fail_after(10):
            await self._echo.wait()
        return [(change.event, change.device_id) for change in self.changes]


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[list[Node]]:
    """Two nodes with random names."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            io = await stack.enter_async_context(RedisIO(server.url).running())
            name = session_id()
            bus = await stack.enter_async_context(RedisBus(io, name).running())
            made.append(Node(name, io, bus))
        yield made


def claim(sid: str, node: str = "n1", **more: Any) -> Claim:
    fields: dict[str, Any] = {"lease_ms": 1, "claim_ms": MINUTE, "limit": 1000} | more
    return Claim(bucket_of(sid), node, **fields)


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


async def test_sweep_takes_only_what_is_over(nodes: list[Node]) -> None:
    """Told once to every node, the sweeper's too; the earliest lease of the others comes back."""
    one, two = nodes
    sid = session_id()
    await two.store.call(join(sid, "watch", "w", two.name))
    await one.store.call(join(sid, "here", "h", one.name, presence_ms=MINUTE))
    await one.store.call(join(sid, "dead", "c", "gone", presence_ms=-5))
    swept = [await one.store.call(Sweep(sid, MINUTE)) for _ in range(2)]
    listed = (await one.store.call(ListDevices(sid))).devices

    assert [1, 0] == [answer.left for answer in swept]
    lease = next(d.deadline for d in listed if d.device_id == "here")
    assert [lease, lease] == [answer.due for answer in swept]
    assert ("timeout", "dead") == (await two.told())[-1]
    assert ("timeout", "dead") == (await one.told())[-1]
    assert {"watch": True, "here": True, "dead": False} == {
        d.device_id: bool(d.online and d.fence) for d in listed
    }


async def test_a_device_that_came_back_is_not_swept(store: RedisStore) -> None:
    """Its lease ran out on one node, and it connected to another before the sweep."""
    sid = session_id()
    await store.call(join(sid, "d", "c1", "n1", presence_ms=-5))
    await store.call(join(sid, "d", "c2", "n2"))

    assert 0 == (await store.call(Sweep(sid, MINUTE))).left


async def test_claims_go_to_one_and_come_back(store: RedisStore) -> None:
    """What is due is given out once; a claim that nobody released is given out again."""
    sid, later = session_id(), session_id()
    bucket = bucket_of(sid)
    await store.call(Index(bucket, [sid], -5))
    await store.call(Index(bucket, [later], MINUTE))
    first = (await store.call(claim(sid, claim_ms=-5))).sids
    second = (await store.call(claim(sid))).sids
    third = (await store.call(claim(sid))).sids
    await store.call(Release(bucket, [(sid, 1)]))
    fourth = (await store.call(claim(sid))).sids
    await store.call(Release(bucket, [(sid, 0)]))
    fifth = (await store.call(claim(sid))).sids

    assert [True, True, False, True, False] == [
        sid in sids for sids in (first, second, third, fourth, fifth)
    ]
    assert later not in {*first, *second, *third, *fourth, *fifth}


async def test_a_device_that_joins_between_the_phases_is_entered(store: RedisStore) -> None:
    """Releasing a session as empty does not remove what a newcomer has entered meanwhile."""
    sid = session_id()
    bucket = bucket_of(sid)
    await store.call(Index(bucket, [sid], -5))
    await store.call(claim(sid))
    await store.call(Index(bucket, [sid], -5))
    await store.call(Release(bucket, [(sid, 0)]))

    assert sid in (await store.call(claim(sid))).sids


async def test_one_node_at_a_time_has_a_bucket(store: RedisStore) -> None:
    """Another one gets nothing until the lease is over."""
    sid = session_id()
    await store.call(Index(bucket_of(sid), [sid], -5))
    await store.call(claim(sid, "a", lease_ms=200, limit=1, claim_ms=-5))
    refused = (await store.call(claim(sid, "b"))).sids
    own = sid in (await store.call(claim(sid, "a", lease_ms=1, claim_ms=-5))).sids
    await trio.sleep(0.01)
    taken = sid in (await store.call(claim(sid, "b"))).sids

    assert ([], True, True) == (refused, own, taken)


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
    keys = [key.decode() for key in raw.scan_iter(f"h:{{{sid}}}*")]

    assert ([], []) == (answer.flat, again.flat)
    assert [f"h:{{{sid}}}", f"h:{{{sid}}}:a", f"h:{{{sid}}}:x"] == sorted(keys)
    assert all(raw.pttl(key) > 0 for key in keys)


async def test_barred_devices_are_bounded(store: RedisStore, raw: redis.Redis) -> None:
    """A session whose devices come and are signed out for ever does not grow."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    for number in range(400):
        await store.call(join(sid, f"d{number}", f"c{number}"))
        await store.call(Expel(sid, f"d{number}", "u"))
    last = await store.call(write(sid, {"a": "2"}, device_id="d399", fence=1))

    assert raw.hlen(f"s:{{{sid}}}:m") <= 320
    assert Status.FENCED is last.status


@pytest.mark.parametrize("letter", "mpvon")
async def test_wrong_type_stops_before_anything_is_done(
    store: RedisStore, io: RedisIO, letter: str
) -> None:
    """A key of another type is refused, and nothing has changed."""
    sid = session_id()
    await store.call(join(sid, "phone", "c1"))
    await store.call(write(sid, {"a": "1"}))
    await store.call(handoff(sid, "x"))
    key = f"s:{{{sid}}}:{letter}"
    await io.execute("SET", key, "not this")
    keys = [*(f"s:{{{sid}}}:{each}" for each in "mdkipvon"), f"h:{{{sid}}}:x", f"h:{{{sid}}}"]
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
    await store.call(join(sid, "gone", "c2", presence_ms=-5))
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
