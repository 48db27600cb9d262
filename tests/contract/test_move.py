"""Sessions of format 1: they get the keys of format 2 when they are first used."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis
import zstandard

from support.contract.requests import join, pairs, read, resume, session_id, touch, write
from support.redis_servers import PATIENCE, RedisServer
from syncbridge.records.devices import ListDevices, Peek, Redeem
from syncbridge.records.sessions import Compare, Operation, Status
from syncbridge.slots import session_key
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.cold import OLD_FORMAT
from syncbridge_server.redis.stores.store import RedisStore

WEEK = 604_800_000
EPOCH = "0123456789ab"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A single Redis: no cluster could run format 1."""
    with RedisServer() as running:
        yield running


def old_session(raw: redis.Redis, *, frozen: bool = False) -> str:
    """A session at version 3 as format 1 left it: two devices, one of them online; a handoff."""
    sid = session_id()
    now = int(str(raw.time()[0])) * 1000
    key = f"s:{{{sid}}}:"
    meta: dict[str, Any] = {"v": 3, "n": 12, "e": EPOCH, "u": "u", "w": "d", "c": now, "m": now}
    raw.hset(key + "m", mapping=meta | {"t": now, "f": 0, "xe": 77} | ({"z": 1} if frozen else {}))
    if frozen:
        flat, index = [b"a", b"1.0", b"k", b'"v"'], [b"a", b"2", b"k", b"1", b"gone", b"3"]
        body = msgspec.msgpack.encode([b"3", EPOCH.encode(), flat, index])
        raw.set(key + "z", OLD_FORMAT + zstandard.ZstdCompressor().compress(body))
    else:
        raw.hset(key + "d", mapping={"a": "1.0", "k": '"v"'})
        raw.zadd(key + "k", {"a": 2, "k": 1, "gone": 3})
    raw.zadd(key + "i", {"d:m1": 1, "e:f:m2": 2, "x:y": 3, "": 0})
    raw.zadd(key + "p", {"d": now + 90_000, "e:f": now - 5_000})
    raw.hset(key + "v", mapping={"d": '{"device_type":"ios"}', "e:f": "{}"})
    raw.hset(key + "o", mapping={"d": f"n9:1 {now} n9", "\n": str(now)})
    raw.zadd(key + "n", {"n9": now + 90_000})
    raw.rpush(key + "j", "2 1 a =1")
    raw.hset(f"h:{{{sid}}}:x", mapping={"s": "d", "t": "e:f", "x": now + 60_000})
    raw.zadd(f"h:{{{sid}}}", {"x": now + 60_000})
    for each in raw.scan_iter(f"?:{{{sid}}}*"):
        raw.pexpire(each, WEEK)
    return sid


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client."""
    with server.client() as client:
        yield client


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "first",
    [
        read,
        lambda sid: write(sid, {"a": "1.0"}),
        join,
        lambda sid: resume(sid, EPOCH, 1),
        Peek,
        ListDevices,
    ],
)
async def test_first_use_moves_a_session(
    server: RedisServer, raw: redis.Redis, first: Any, frozen: bool
) -> None:
    """State, versions, deleted keys, devices, life: all is there, and nothing of the old keys."""
    sid = old_session(raw, frozen=frozen)
    async with RedisIO(server.url, deadline=PATIENCE).running() as io:
        store = RedisStore(io, "n1")
        answer = await store.call(first(sid))
        snapshot = await store.call(read(sid))
        delta = await store.call(resume(sid, EPOCH, 2))
        devices = (await store.call(ListDevices(sid))).devices
        place = (await store.call(Compare(sid))).place
    assert getattr(answer, "status", Status.OK) is Status.OK
    assert (snapshot.version, snapshot.epoch, snapshot.owner) == (3, EPOCH, "u")
    assert pairs(snapshot.flat) == {b"a": b"1.0", b"k": b'"v"'}
    assert (delta.full, delta.sets, delta.deletes) == (None, [], [b"gone"])
    assert {d.device_id for d in devices} == {"d", "e:f"}
    assert all(not d.online or d.device_id == "d" for d in devices)
    assert (place.epoch, place.version, len(place.lineage)) == (EPOCH, 3, 12)
    assert [] == list(raw.scan_iter(f"?:{{{sid}}}*"))
    assert all(raw.pttl(key) > WEEK - 60_000 for key in raw.scan_iter(f"s:*{sid}*"))


async def test_ids_and_bars_are_kept(server: RedisServer, raw: redis.Redis) -> None:
    """A repetition is known with the version that it made; a barred connection stays barred."""
    sid = old_session(raw)
    async with RedisIO(server.url, deadline=PATIENCE).running() as io:
        store = RedisStore(io, "n1")
        known = [
            await store.call(write(sid, {"a": "9"}, device_id=device, mutation_id=name))
            for device, name in (("d", "m1"), ("e:f", "m2"), ("x", "y"))
        ]
        barred = await store.call(write(sid, {"a": "9"}, device_id="e", fence=76))
        fence = (await store.call(join(sid, "d", "c2"))).fence
        incr = write(sid, {"a": "1"}, operation=Operation.INCR)
        refused = await store.call(incr)
        await store.call(write(sid, {"a": "2"}))
        counted = await store.call(incr)
    assert [(each.status, each.version) for each in known] == [
        (Status.DUPLICATE, version) for version in (1, 2, 3)
    ]
    assert barred.status is Status.FENCED
    assert fence > 77
    assert refused.status is Status.NOT_AN_INTEGER  # as it is spelled, until it is written again
    assert counted.result == b"3"


async def test_a_handoff_goes_on(server: RedisServer, raw: redis.Redis) -> None:
    """A token that was made before is redeemed after."""
    sid = old_session(raw)
    async with RedisIO(server.url, deadline=PATIENCE).running() as io:
        redeemed = await RedisStore(io, "n1").call(Redeem(sid, "x", "e:f", "u", True, 30_000))
    assert (redeemed.status, redeemed.source, redeemed.version) == (Status.OK, "d", 3)
    assert [] == list(raw.scan_iter(f"?:{{{sid}}}*"))


async def test_what_is_new_is_not_touched(server: RedisServer, raw: redis.Redis) -> None:
    """A session that exists in format 2 does not look for old keys; nor does anybody who was told
    that there are none."""
    sid = old_session(raw)
    async with RedisIO(server.url, deadline=PATIENCE).running() as io:
        store = RedisStore(io, "n1")
        store.old_data = False
        assert (await store.call(read(sid))).status is Status.NOT_FOUND
        await store.call(write(sid, {"b": "1"}))
        store.old_data = True
        assert pairs((await store.call(read(sid))).flat) == {b"b": b"1"}
        assert (await store.call(touch(sid, "d"))).version == 1
    assert raw.exists(session_key(sid, "m"), f"s:{{{sid}}}:m") == 2
