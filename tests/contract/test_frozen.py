"""Sessions whose state is packed away: nobody notices, and nothing is lost."""

import random
import re
from typing import Any
from zlib import crc32

import pytest
import redis
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.test_model import LIMITS, as_result, writes
from support.contract.histories import History
from support.contract.requests import join, leave, pairs, read, resume, session_id, touch, write
from support.redis_servers import PATIENCE, RedisServer, until
from syncbridge.errors import ErrorCode
from syncbridge.records.devices import OpenHandoff, Redeem
from syncbridge.records.sessions import Apply, Place, Review, Status
from syncbridge.slots import session_key
from syncbridge_server.admin.inspection import Inspection
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.scripts import TELLING, Scripts
from syncbridge_server.redis.stores.cold import (
    BUCKETS,
    FORMAT,
    Packed,
    StateDamaged,
    pack_state,
    unpack_state,
)
from syncbridge_server.redis.stores.freezer import SMALL_AGAIN_MS, Freezer
from syncbridge_server.redis.stores.keys import every_key
from syncbridge_server.redis.stores.store import RedisStore

STATE = {f"key-{number}": f'{{"n":{number},"text":"{"x" * 30}"}}' for number in range(40)}
FLAT = {key.encode(): value.encode() for key, value in STATE.items()}


def eager(io: RedisIO, **rules: Any) -> Freezer:
    """A freezer that finds every session due that has no device online."""
    return Freezer(io, "f1", **({"after": 0.0, "least": 0, "large": 1 << 30} | rules))


async def freeze(io: RedisIO, sid: str) -> None:
    """Pack a session now."""
    assert {sid: 0} == await eager(io).freeze([sid])


def life(raw: redis.Redis, sid: str, letter: str) -> int:
    """How long a key still lives, ms."""
    return int(str(raw.pttl(session_key(sid, letter))))


def end_leases(raw: redis.Redis) -> None:
    """The buckets belong to nobody."""
    for bucket in range(BUCKETS):
        raw.delete(f"fz:{{{bucket}}}:l")


def letters(raw: redis.Redis, sid: str) -> str:
    """Which keys a session has."""
    return "".join(letter for letter in "mdkjcz" if raw.exists(session_key(sid, letter)))


async def frozen_session(store: RedisStore, io: RedisIO, **more: Any) -> str:
    """A session at version 3, with one deleted key, packed."""
    sid = session_id()
    await store.call(write(sid, STATE, mutation_id="m1"))
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, {}, "a", **more))
    await freeze(io, sid)
    return sid


async def test_the_state_is_one_string_then_a_hash_again(
    store: RedisStore, io: RedisIO, raw: redis.Redis
) -> None:
    """Packed: only `z` instead of `d` and `k`, with the life of the session. Read: as before."""
    sid = await frozen_session(store, io)

    assert "mjz" == letters(raw, sid)
    assert abs(life(raw, sid, "z") - life(raw, sid, "m")) < 1000
    snapshot = await store.call(read(sid))
    assert (Status.OK, 3, FLAT) == (snapshot.status, snapshot.version, pairs(snapshot.flat))
    assert "mdkj" == letters(raw, sid)
    for letter in "dk":
        assert abs(life(raw, sid, letter) - life(raw, sid, "m")) < 1000
    assert 1 == store.thawed


async def test_versions_and_deleted_keys_survive(store: RedisStore, io: RedisIO) -> None:
    """What changed since any version is the same as without packing."""
    sid, other = await frozen_session(store, io), session_id()
    for request in (write(other, STATE), write(other, {"a": "1"}), write(other, {}, "a")):
        twin = await store.call(request)
    epoch = (await store.call(read(sid))).epoch
    for version in range(4):
        await freeze(io, sid)
        packed = await store.call(resume(sid, epoch, version))
        plain = await store.call(resume(other, twin.epoch, version))
        assert pairs(plain.sets) == pairs(packed.sets)
        assert (plain.deletes, plain.full, plain.version) == (
            packed.deletes,
            packed.full,
            packed.version,
        )


async def test_a_write_unpacks(store: RedisStore, io: RedisIO) -> None:
    """It is checked for conflicts against the packed versions, and done once."""
    sid = await frozen_session(store, io)
    repeated = await store.call(write(sid, {"b": "1"}, mutation_id="m1"))
    assert (Status.DUPLICATE, 1, 0) == (repeated.status, repeated.version, store.thawed)

    conflict = await store.call(write(sid, {"a": "2"}, base_version=1, mode=0))
    done = await store.call(write(sid, {"b": "2"}, base_version=2, mode=0))

    assert (Status.CONFLICT, [b"a", b""]) == (conflict.status, conflict.conflicts)
    assert (Status.OK, 4, 3) == (done.status, done.version, done.prev_version)
    assert FLAT | {b"b": b"2"} == pairs((await store.call(read(sid))).flat)


async def test_what_needs_no_state_leaves_it_packed(
    store: RedisStore, io: RedisIO, raw: redis.Redis
) -> None:
    """An etag that fits, a resume that is current, presence and leaving: nothing is unpacked."""
    sid = await frozen_session(store, io)
    welcome = await store.call(join(sid, known=Place("", 3)))
    assert FLAT == pairs(welcome.full)
    await store.call(leave(sid))
    await freeze(io, sid)
    epoch = welcome.epoch

    assert (await store.call(read(sid, etag=Place(epoch, 3)))).flat is None
    assert [] == (await store.call(resume(sid, epoch, 3))).sets
    assert (await store.call(join(sid, since=Place(epoch, 3)))).resumed
    assert (await store.call(join(sid, conn="c2", known=Place(epoch, 3)))).fresh
    assert 3 == (await store.call(touch(sid, "d"))).version
    assert (await store.call(leave(sid, conn="c2"))).changed
    assert "mjz" == letters(raw, sid)


async def test_renewed_life_reaches_the_packed_state(
    store: RedisStore, io: RedisIO, raw: redis.Redis
) -> None:
    """A device that is connected keeps a packed session alive."""
    sid = await frozen_session(store, io)
    await store.call(join(sid, since=Place((await store.call(read(sid))).epoch, 3)))
    await store.call(leave(sid))
    await freeze(io, sid)
    raw.hset(session_key(sid, "m"), "t", "0")
    for letter in "mz":
        raw.pexpire(session_key(sid, letter), 60_000)

    await store.call(
        join(sid, since=Place((await store.call(read(sid, etag=Place("", -1)))).epoch, 3))
    )

    assert life(raw, sid, "m") > 600_000_000
    await store.call(leave(sid))
    await freeze(io, sid)
    raw.hset(session_key(sid, "m"), "t", "0")
    raw.pexpire(session_key(sid, "z"), 60_000)
    await store.call(touch(sid, "d"))
    assert life(raw, sid, "z") > 600_000_000


async def test_imprints_survive(store: RedisStore, io: RedisIO, raw: redis.Redis) -> None:
    """A value that is spelled otherwise than its canonical form is equal to the same ones."""
    sid = session_id()
    await store.call(write(sid, {"a": "1.0", "b": '{"y":2,"x":1}', "c": "1"}))
    await freeze(io, sid)
    assert "mjz" == letters(raw, sid)
    same = await store.call(write(sid, {"a": "1", "b": '{"x":1,"y":2}', "c": "1e0"}))
    assert (Status.OK, 1, []) == (same.status, same.version, same.sets)
    assert "mdkjc" == letters(raw, sid)
    assert b"1.0" == pairs((await store.call(read(sid))).flat)[b"a"]


async def test_a_large_state(store: RedisStore, io: RedisIO) -> None:
    """More keys than Lua can unpack at once, and values of any bytes."""
    sid = session_id()
    first = Apply(sid, "u", "d", [], [])
    noise = random.Random(3)
    for number in range(1990):
        first.sets += [f"k{number}".encode(), noise.randbytes(300)]
    await store.call(first)
    await freeze(io, sid)

    assert pairs(first.sets) == pairs((await store.call(read(sid))).flat)


async def test_an_empty_state(store: RedisStore, io: RedisIO) -> None:
    """A session without keys can be packed too."""
    sid = session_id()
    await store.call(write(sid))
    await freeze(io, sid)

    assert [] == (await store.call(read(sid))).flat
    assert 2 == (await store.call(write(sid, {"a": "1"}))).version


@settings(max_examples=60, deadline=None)
@given(history=st.lists(st.tuples(writes(), st.booleans()), max_size=20))
def test_random_histories_with_freezes_between(
    server: RedisServer, history: list[tuple[Apply, bool]]
) -> None:
    """Answer by answer what the reference model does, which knows nothing of packing."""

    async def run() -> None:
        model = History(LIMITS.tombstones, LIMITS.state_bytes, LIMITS.state_keys, sealed=True)
        async with RedisIO(server.url, deadline=8.0).running() as io:
            store, sid = RedisStore(io, "n1", LIMITS), session_id()
            for request, packed in history:
                request.sid = sid
                if packed and model.exists:
                    await freeze(io, sid)
                assert as_result(await store.call(request)) == model.answer(request)

    trio.run(run)


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=6))
def test_pipelines_across_frozen_sessions_keep_order(
    server: RedisServer, batches: list[list[int]]
) -> None:
    """Writes to packed and unpacked sessions, many submits at once: every session gets its writes
    in order, and the answers come batch by batch in the order of submission."""

    async def run() -> None:
        async with RedisIO(server.url, deadline=PATIENCE).running() as io:
            store = RedisStore(io, "n1")
            sids = [session_id() for _ in range(5)]
            for sid in sids:
                await store.call(write(sid, {"n": "0"}))
            assert all(due == 0 for due in (await eager(io).freeze(sids[:3])).values())
            delivered: list[tuple[int, list[Any]]] = []
            counter, expected = 0, dict.fromkeys(range(5), 1)
            wanted = []
            for number, batch in enumerate(batches):
                requests = []
                versions = []
                for which in batch:
                    counter += 1
                    requests.append(write(sids[which], {"n": str(counter)}))
                    expected[which] += 1
                    versions.append(expected[which])
                wanted.append((number, versions))

                def deliver(answers: Any, number: int = number) -> None:
                    delivered.append((number, [answer.version for answer in answers]))

                store.submit(requests, deliver)
                if number % 2:
                    await trio.lowlevel.checkpoint()
            await until(lambda: len(delivered) == len(batches))
            assert wanted == delivered

    trio.run(run)


async def test_nodes_that_unpack_at_once(server: RedisServer, store: RedisStore) -> None:
    """Many requests of three nodes for one packed session: each write is done exactly once."""
    async with (
        RedisIO(server.url, deadline=8.0).running() as io1,
        RedisIO(server.url, deadline=8.0).running() as io2,
    ):
        stores = [store, RedisStore(io1, "n2"), RedisStore(io2, "n3")]
        for _ in range(10):
            sid = await frozen_session(store, io1)
            versions: list[int] = []

            async def put(one: RedisStore, key: str, sid: str, versions: list[int]) -> None:
                versions.append((await one.call(write(sid, {key: "1"}, device_id=key))).version)

            async with trio.open_nursery() as nursery:
                for number in range(12):
                    nursery.start_soon(put, stores[number % 3], f"w{number}", sid, versions)
            state = pairs((await store.call(read(sid))).flat)
            assert list(range(4, 16)) == sorted(versions)
            assert FLAT | {f"w{n}".encode(): b"1" for n in range(12)} == state


async def test_writes_while_it_is_packed_are_not_lost(server: RedisServer) -> None:
    """Freezers that never rest, and writers on two nodes: every write is there in the end."""
    writes_each, keys = 60, 4
    async with (
        RedisIO(server.url, deadline=8.0).running() as io1,
        RedisIO(server.url, deadline=8.0).running() as io2,
        trio.open_nursery() as nursery,
    ):
        sid = session_id()
        stores = [RedisStore(io1, "n1"), RedisStore(io2, "n2")]
        await stores[0].call(write(sid, STATE))
        freezers = [eager(io1), eager(io2)]

        async def keep_freezing(freezer: Freezer) -> None:
            while True:
                await freezer.freeze([sid])

        async def put(store: RedisStore, key: str) -> None:
            for number in range(1, writes_each + 1):
                outcome = await store.call(write(sid, {key: str(number)}, device_id=key))
                assert outcome.status is Status.OK

        for freezer in freezers:
            nursery.start_soon(keep_freezing, freezer)
        async with trio.open_nursery() as writers:
            for number in range(keys):
                writers.start_soon(put, stores[number % 2], f"w{number}")
        nursery.cancel_scope.cancel()
        snapshot = await stores[0].call(read(sid))
        last = {f"w{n}".encode(): str(writes_each).encode() for n in range(keys)}
        assert FLAT | last == pairs(snapshot.flat)
        assert 1 + writes_each * keys == snapshot.version
        assert sum(freezer.frozen for freezer in freezers) > 0


async def test_a_write_between_look_and_swap(store: RedisStore, io: RedisIO) -> None:
    """A state that was read a moment too early is not put in place."""
    sid = session_id()
    await store.call(write(sid, STATE))
    freezer = eager(io)
    reply = (await io.request([freezer._look(sid)]))[0]
    await store.call(write(sid, {"a": "1"}))

    assert [0] == await freezer._swap([(sid, Packed(*reply[1:]))])
    assert FLAT | {b"a": b"1"} == pairs((await store.call(read(sid))).flat)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda blob: blob[:-5], id="cut off"),
        pytest.param(lambda blob: blob + b"x", id="something behind it"),
        pytest.param(lambda blob: blob[:40] + bytes([blob[40] ^ 1]) + blob[41:], id="one bit"),
        pytest.param(lambda blob: b"XX\x01" + blob[3:], id="another form"),
        pytest.param(lambda blob: FORMAT + b"plain", id="not packed"),
        pytest.param(lambda blob: b"", id="empty"),
        pytest.param(lambda blob: None, id="gone"),
        pytest.param(
            lambda blob: pack_state(Packed(b"9", b"e", b"l", [], [], [])), id="of another version"
        ),
    ],
)
async def test_a_damaged_state(
    store: RedisStore, io: RedisIO, raw: redis.Redis, damage: Any
) -> None:
    """A typed error for what needs that state; other sessions of the same pipeline are served, and
    so is the session itself where it needs no state."""
    bad, good, warm = await frozen_session(store, io), await frozen_session(store, io), session_id()
    blob = damage(raw.get(session_key(bad, "z")))
    raw.delete(session_key(bad, "z")) if blob is None else raw.set(session_key(bad, "z"), blob)
    answers: list[Any] = []
    requests = [write(warm), write(bad, {"a": "1"}), read(good), read(bad), touch(bad, "d")]
    store.submit(requests, answers.extend)
    await until(lambda: bool(answers))

    assert [Status.OK, Status.OK] == [answers[0].status, answers[2].status]
    assert FLAT == pairs(answers[2].flat)
    for answer in (answers[1], answers[3]):
        assert isinstance(answer, StateDamaged)
        assert (ErrorCode.STATE_DAMAGED, None) == (answer.code, answer.retry_after)
    assert 3 == answers[4].version
    assert 4 == (await store.call(write(good, {"a": "1"}))).version


def test_packed_states_are_bounded() -> None:
    """A string that claims to be larger than a state can be is not unpacked."""
    blob = pack_state(Packed(b"1", b"e", b"l", [b"k", bytes(10_000)], [b"k", b"1"], []))

    assert 10_000 == len(unpack_state(blob, 11_000).flat[1])
    with pytest.raises(StateDamaged):
        unpack_state(blob, 5_000)


async def due_in(io: RedisIO, sid: str, **rules: Any) -> float:
    """Seconds until a freezer would look again; 0 when it packed the session."""
    due = (await eager(io, **rules).freeze([sid]))[sid]
    clock = await io.execute("TIME")
    return due / 1000 - int(clock[0]) if due else 0


async def test_when_a_session_is_packed(store: RedisStore, io: RedisIO) -> None:
    """Not while it is small, young or in use; a large one also while a device listens."""
    small, young, used, large = (session_id() for _ in range(4))
    for sid in (small, young, used, large):
        await store.call(write(sid, STATE))
    await store.call(join(used))
    await store.call(join(large))

    assert SMALL_AGAIN_MS / 1000 == pytest.approx(await due_in(io, small, least=10_000), abs=2)
    assert 600 == pytest.approx(await due_in(io, young, after=600), abs=2)
    assert 300 == pytest.approx(await due_in(io, young, after=600, large=100), abs=2)
    assert 600 == pytest.approx(await due_in(io, used, after=600), abs=2)
    assert 300 == pytest.approx(await due_in(io, large, after=600, large=100), abs=2)
    assert 0 == await due_in(io, large, large=100)
    await store.call(leave(used))
    assert 600 == pytest.approx(await due_in(io, used, after=600), abs=2)
    assert 0 == await due_in(io, used)
    assert 0 == await due_in(io, session_id())


async def test_the_index_brings_changed_sessions_to_the_freezer(
    server: RedisServer, raw: redis.Redis
) -> None:
    """Changed, joined and unpacked sessions are entered once; a sweep packs what is due."""
    end_leases(raw)
    async with RedisIO(server.url, deadline=8.0).running() as io:
        store = RedisStore(io, "n1", freeze_after=0.001)
        sids = [session_id() for _ in range(40)]
        for sid in sids:
            await store.call(write(sid, STATE))
            await store.call(write(sid, {"a": "1"}))
        await trio.sleep(0.01)
        freezer = Freezer(io, "f1", after=0.001, least=100)

        await freezer.sweep()
        assert ["mjz"] * 40 == [letters(raw, sid) for sid in sids]
        assert 40 == freezer.frozen
        assert 3 * freezer.packed_bytes < freezer.state_bytes
        await freezer.sweep()
        assert 40 == freezer.frozen

        await store.call(read(sids[0]))
        await store.call(write(sids[1], {"b": "1"}))
        await trio.sleep(0.01)
        await freezer.sweep()
        assert 42 == freezer.frozen


async def test_a_bucket_belongs_to_one_freezer_and_its_heir(
    server: RedisServer, raw: redis.Redis
) -> None:
    """While a node holds the lease another one finds nothing; what it claimed and did not finish
    is taken over when its claim is over."""
    end_leases(raw)
    async with RedisIO(server.url, deadline=8.0).running() as io:
        store = RedisStore(io, "n1", freeze_after=0.001)
        sid = session_id()
        await store.call(write(sid, STATE))
        await trio.sleep(0.01)
        dead = Freezer(io, "dead", after=0.001, least=100, interval=1.0)
        dead.freeze = None  # type: ignore[method-assign,assignment]
        claimed = crc32(sid.encode()) % BUCKETS
        with pytest.raises(TypeError):
            await dead._bucket(claimed)
        heir = Freezer(io, "heir", after=0.001, least=100, interval=1.0)

        assert 0 == await heir.sweep()
        end_leases(raw)
        assert 0 == await heir.sweep()
        raw.zadd(f"fz:{{{claimed}}}:c", {sid: 1})
        assert 1 == await heir.sweep()
        assert "mjz" == letters(raw, sid)


async def test_memory(store: RedisStore, io: RedisIO, raw: redis.Redis) -> None:
    """A state of 200 keys and 16 KiB costs less than a third when it is packed."""
    sid = session_id()
    noise = random.Random(5)
    state = {
        f"field.{n}": f'{{"x":{noise.random()},"user":"user-{n % 9}","text":"{"lorem " * 5}"}}'
        for n in range(200)
    }
    await store.call(write(sid, state))
    names = [session_key(sid, letter) for letter in "dkz"]
    before = sum(raw.memory_usage(name, samples=0) or 0 for name in names)
    await freeze(io, sid)
    after = sum(raw.memory_usage(name, samples=0) or 0 for name in names)

    print(f"memory: {before} -> {after} bytes")
    assert 3 * after < before


def test_every_script_that_needs_the_state_says_when_it_is_packed() -> None:
    """A script that read `d` or `k` of a packed session would take it for empty."""
    own = {"chill", "freeze", "thaw", "seal", "move", "erase"}  # the last takes both away
    needing = {
        name: text
        for name, text in Scripts().sources.items()
        if re.search(rb"own \.\. '[dk]'|string.sub\(KEYS\[1\], 1, -2\) \.\. 'd'", text)
        and name.removesuffix(TELLING) not in own
    }

    assert {"apply", "hello", "read", "resume", "review", "handoff_redeem"} <= set(needing)
    assert [] == [name for name, text in needing.items() if b"return {FROZEN}" not in text]


async def test_a_handoff_and_a_merge_unpack(store: RedisStore, io: RedisIO) -> None:
    """A redeemed token brings the state, and so does the read before a merge."""
    sid = await frozen_session(store, io)
    await store.call(OpenHandoff(sid, "0" * 64, "d", "e", "u", True, 60_000))
    redeemed = await store.call(Redeem(sid, "0" * 64, "e", "u", True, 30_000))
    await freeze(io, sid)
    reviewed = await store.call(Review(sid, "u", base=1))

    assert (Status.OK, FLAT) == (redeemed.status, pairs(redeemed.flat))
    assert (Status.OK, FLAT) == (reviewed.status, pairs(reviewed.flat))
    assert 2 == store.thawed


async def test_an_operator_sees_what_is_packed_and_ends_it(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """The script alone says that it is packed; the look unpacks. Erased, nothing is left of it."""
    sid, inspection = session_id(), Inspection(io, store)
    await store.call(write(sid, STATE))
    await freeze(io, sid)

    assert [int(Status.FROZEN)] == await io.script("inspect", every_key(sid), [], repeatable=True)
    looked = await inspection.look(sid)
    assert FLAT == {one.key.encode(): one.value for one in looked.keys}

    await freeze(io, sid)
    assert 0 == await inspection.erase(sid)
    assert 0 == sum(int(str(raw.exists(key))) for key in every_key(sid))
    assert Status.NOT_FOUND is (await store.call(read(sid))).status
