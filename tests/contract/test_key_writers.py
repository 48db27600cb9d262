"""Who wrote each key last: exact where it is kept, unknown elsewhere, and gone in time."""

from typing import Any

import pytest
import redis
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.contract.requests import read, session_id, touch, write
from support.redis_servers import PATIENCE, RedisServer
from syncbridge.limits import Limits
from syncbridge.records.sessions import Mode, Operation
from syncbridge.records.writers import entry_of
from syncbridge.slots import session_key
from syncbridge_server.admin.inspection import Inspection
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.scripts import TELLING, Scripts
from syncbridge_server.redis.stores.freezer import Freezer
from syncbridge_server.redis.stores.keys import every_key
from syncbridge_server.redis.stores.store import RedisStore

HOUR = 3_600_000
WEEK = 168 * HOUR


@pytest.fixture
def store(io: RedisIO) -> RedisStore:
    """A store that keeps them."""
    return RedisStore(io, "n1", key_writers=True)


def keeping(io: RedisIO, on: bool) -> None:
    """From now on this node keeps them, or not."""
    io.scripts.limit(Limits(), writers=on)


async def written(io: RedisIO, store: RedisStore, sid: str) -> dict[str, tuple[int, str]]:
    """Version and writer of each key, as an operator sees them."""
    looked = await Inspection(io, store).look(sid)
    return {key.key: (key.version, key.writer) for key in looked.keys}


def kept(raw: redis.Redis, sid: str) -> dict[bytes, bytes]:
    """What stands in Redis."""
    found: Any = raw.hgetall(session_key(sid, "w"))
    return dict(found)


def life(raw: redis.Redis, sid: str, letter: str) -> int:
    """How long a key still lives, ms."""
    return int(str(raw.pttl(session_key(sid, letter))))


def aged(raw: redis.Redis, sid: str) -> None:
    """Make a session one that was refreshed a day ago."""
    raw.hincrby(session_key(sid, "m"), "t", -24 * HOUR)
    for letter in "mdkjw":
        raw.pexpire(session_key(sid, letter), WEEK - 24 * HOUR)


async def freeze(io: RedisIO, sid: str) -> None:
    """Pack a session now."""
    freezer = Freezer(io, "f1", after=0.0, least=0, large=1 << 30)
    assert {sid: 0} == await freezer.freeze([sid])


async def test_each_key_names_its_last_writer(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """Of every way to write; an equal value is no write; a deleted key has no entry."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "1", "c": "1"}, device_id="phone"))
    await store.call(write(sid, {"b": "2"}, device_id="lap top"))
    await store.call(write(sid, {"a": "1"}, device_id="nobody"))
    await store.call(write(sid, {"n": "5"}, operation=Operation.INCR, device_id="watch"))
    await store.call(write(sid, {"d": "1"}, "c", device_id="tv"))
    await store.call(write(sid, {"e": "1"}, device_id="last"))

    assert {
        "a": (1, "phone"),
        "b": (2, "lap top"),
        "n": (3, "watch"),
        "d": (4, "tv"),
        "e": (5, "last"),
    } == await written(io, store, sid)
    assert {b"a", b"b", b"n", b"d", b"e"} == set(kept(raw, sid))


async def test_a_replaced_state_keeps_the_writer_of_what_stays_equal(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """The keys that a snapshot takes away take their entries with them; many keys fit."""
    sid = session_id()
    many = {f"k{number}": "1" for number in range(1_900)}
    await store.call(write(sid, {"same": "1", "gone": "1"}, device_id="phone"))
    await store.call(
        write(sid, {"same": "1"} | many, replace=True, mode=Mode.OVERWRITE, device_id="laptop")
    )
    await store.call(write(sid, {"x": "1"}, device_id="tv"))

    found = await written(io, store, sid)
    assert ((1, "phone"), (3, "tv")) == (found.pop("same"), found.pop("x"))
    assert {(2, "laptop")} == set(found.values())
    assert 1_902 == len(kept(raw, sid)) == len(found) + 2


async def test_they_live_as_long_as_their_session(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """Also where they come later than it; a refresh renews them, and its end takes them away."""
    sid = session_id()
    keeping(io, False)
    await store.call(write(sid, {"a": "1"}))
    keeping(io, True)
    await store.call(write(sid, {"b": "1"}))
    assert abs(life(raw, sid, "w") - life(raw, sid, "d")) < HOUR

    aged(raw, sid)
    await store.call(write(sid, {"c": "1"}))
    assert WEEK - HOUR < life(raw, sid, "w") <= WEEK
    aged(raw, sid)
    await store.call(touch(sid, "d"))
    assert WEEK - HOUR < life(raw, sid, "w") <= WEEK

    assert 0 == await Inspection(io, store).erase(sid)
    assert 0 == sum(int(str(raw.exists(key))) for key in every_key(sid))


async def test_off_it_costs_no_byte(io: RedisIO, raw: redis.Redis) -> None:
    """Neither in Redis nor in the script, with events and without."""
    store, sid = RedisStore(io, "n1"), session_id()
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, {"b": "1"}, "a"))

    assert {} == kept(raw, sid)
    off, on = Scripts(), Scripts()
    on.limit(Limits(), writers=True)
    for name in ("apply", "apply" + TELLING):
        assert b"note_writer" in on.sources[name]
        assert b"note_writer" not in off.sources[name]
    for text in (*off.sources.values(), *on.sources.values()):
        assert b"\n--w " not in text
    assert {name for name in on.sources if on.sources[name] != off.sources[name]} == {
        "apply",
        "apply" + TELLING,
    }


async def test_a_node_that_does_not_keep_them_makes_no_entry_wrong(
    io: RedisIO, store: RedisStore
) -> None:
    """Its writes make entries older than their keys: those are not known, the others are."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "1"}, device_id="phone"))
    keeping(io, False)
    await store.call(write(sid, {"a": "2"}, device_id="laptop"))
    await store.call(write(sid, {"c": "1"}, device_id="tv"))

    assert {"a": (2, ""), "b": (1, "phone"), "c": (3, "tv")} == await written(io, store, sid)


async def test_entries_of_an_earlier_life_tell_nothing(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """An earlier release ends a session, leaves them, and begins it anew: same versions."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}, device_id="phone"))
    left: Any = kept(raw, sid)
    await Inspection(io, store).erase(sid)
    keeping(io, False)
    await store.call(write(sid, {"a": "2"}, device_id="laptop"))
    await store.call(write(sid, {"b": "2"}, device_id="laptop"))
    raw.hset(session_key(sid, "w"), mapping=left)

    assert {"a": (1, ""), "b": (2, "laptop")} == await written(io, store, sid)


async def test_they_are_packed_with_their_state(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """And come back with it; one that a node packed without them is as one that kept none."""
    sid = session_id()
    await store.call(write(sid, {"a": "1.0", "b": "1"}, device_id="phone"))
    await store.call(write(sid, {"c": "1"}, device_id="tv"))
    before = kept(raw, sid)
    await freeze(io, sid)
    assert not raw.exists(session_key(sid, "w"))

    assert {"a": (1, "phone"), "b": (1, "phone"), "c": (2, "tv")} == await written(io, store, sid)
    assert before == kept(raw, sid)
    assert abs(life(raw, sid, "w") - life(raw, sid, "m")) < HOUR


async def test_damage_hides_who_wrote_and_hurts_nothing_else(
    io: RedisIO, store: RedisStore, raw: redis.Redis
) -> None:
    """Of another type: writes, looks and packing go on, and it is begun anew."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "1"}, device_id="phone"))
    raw.set(session_key(sid, "w"), "not this")
    assert {"a": (1, "phone"), "b": (1, "phone")} == await written(io, store, sid)
    await store.call(write(sid, {"a": "2"}, "b", device_id="laptop"))
    await store.call(write(sid, {"c": "2"}, device_id="tv"))
    epoch = (await store.call(read(sid))).epoch
    assert {b"c": entry_of(3, epoch, "tv")} == kept(raw, sid)
    assert {"a": (2, ""), "c": (3, "tv")} == await written(io, store, sid)
    raw.set(session_key(sid, "w"), "not this")
    await freeze(io, sid)
    assert {"a": (2, ""), "c": (3, "tv")} == await written(io, store, sid)


steps = st.lists(
    st.tuples(
        st.sampled_from(["phone", "tv", "laptop"]),
        st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]), max_size=3),
        st.sets(st.sampled_from("abcd"), max_size=2),
        st.booleans(),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=15)
@given(steps=steps)
def test_what_is_kept_is_what_was_done(
    server: RedisServer, steps: list[tuple[str, dict[str, str], set[str], bool]]
) -> None:
    """Against a model, while some nodes keep writers and some do not: exact, or not known."""

    async def run() -> None:
        async with RedisIO(server.url, deadline=PATIENCE).running() as io:
            await check(io, RedisStore(io, "n1"), steps)

    trio.run(run)


async def check(
    io: RedisIO, store: RedisStore, steps: list[tuple[str, dict[str, str], set[str], bool]]
) -> None:
    """Do the steps, note who changed what, and compare."""
    sid, model, value = session_id(), dict[str, tuple[str, bool]](), dict[str, str]()
    for device, sets, gone, on in steps:
        keeping(io, on)
        deletes = "".join(sorted(gone - set(sets)))
        changed = {key: new for key, new in sets.items() if value.get(key) != new}
        await store.call(write(sid, sets, deletes, device_id=device))
        value |= changed
        model |= dict.fromkeys(changed, (device, on))
        for key in gone - set(sets):
            value.pop(key, None)
            model.pop(key, None)
    if not steps:
        return
    found = await Inspection(io, store).look(sid)
    assert set(model) == {one.key for one in found.keys}
    for one in found.keys:
        device, sure = model[one.key]
        exact = sure or one.version == found.snapshot.version
        assert one.writer == (device if exact else "")
