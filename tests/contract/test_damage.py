"""Keys that are not as they should be: typed errors, and never a half-done write."""

import pytest

from support.contract.requests import join, leave, pairs, read, session_id, touch, write
from syncbridge.errors import StoreUnavailable
from syncbridge.records.nodes import Sweep
from syncbridge.records.sessions import Status
from syncbridge.slots import session_key
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.keys import held_key
from syncbridge_server.redis.stores.store import RedisStore

KEYS = (*"mdkjco", "f:d")


async def dump(io: RedisIO, sid: str) -> dict[str, bytes | None]:
    """The exact content of every key of a session."""
    return {letter: await io.execute("DUMP", session_key(sid, letter)) for letter in KEYS}


@pytest.mark.parametrize("letter", ["m", "d", "k", "f:d"])
async def test_wrong_type_stops_a_write_before_it_begins(
    store: RedisStore, io: RedisIO, letter: str
) -> None:
    """A key of another type is refused with Redis's code, and nothing has changed."""
    sid = session_id()
    await store.call(join(sid))
    await store.call(write(sid, {"a": "1", "b": "1"}, mutation_id="m0"))
    await io.execute("SET", session_key(sid, letter), "not this")
    before = await dump(io, sid)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.call(write(sid, {"a": "2"}, "b", mutation_id="m1"))
    assert await dump(io, sid) == before


@pytest.mark.parametrize("letter", "mdo")
async def test_wrong_type_stops_a_hello(store: RedisStore, io: RedisIO, letter: str) -> None:
    """The same for joining."""
    sid = session_id()
    await store.call(join(sid))
    await store.call(write(sid, {"a": "1"}))
    await io.execute("SET", session_key(sid, letter), "not this")
    before = await dump(io, sid)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.call(join(sid, conn="c2"))
    assert await dump(io, sid) == before


async def test_wrong_type_of_a_nodes_list_stops_what_writes_it(
    store: RedisStore, io: RedisIO
) -> None:
    """Joining, leaving and a sweep: nothing is changed before it is found."""
    sid, node = session_id(), session_id()
    await store.call(join(sid, node=node))
    await store.call(write(sid, {"a": "1"}))
    await io.execute("SET", held_key(sid, node), "not this")
    before = await dump(io, sid)
    for request in (
        join(sid, conn="c2", node=node),
        leave(sid, node=node, last=True),
        Sweep(sid, node, 1),
    ):
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await store.call(request)
    assert await dump(io, sid) == before


@pytest.mark.parametrize("letter", "mo")
async def test_wrong_type_stops_a_leave(store: RedisStore, io: RedisIO, letter: str) -> None:
    """The same for leaving."""
    sid = session_id()
    await store.call(join(sid))
    await io.execute("SET", session_key(sid, letter), "not this")
    before = await dump(io, sid)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.call(leave(sid, forget=True, last=True))
    assert await dump(io, sid) == before


async def test_one_bad_session_does_not_hurt_its_neighbours(store: RedisStore, io: RedisIO) -> None:
    """In one pipeline only the broken session's answer is an error."""
    bad, good = session_id(), session_id()
    await io.execute("SET", session_key(bad, "m"), "not this")
    answers: list[object] = []
    store.submit([write(good, {"a": "1"}), write(bad), write(good, {"b": "1"})], answers.extend)
    assert (await store.call(read(good))).version == 2
    assert isinstance(answers[1], StoreUnavailable)
    assert [type(answer).__name__ for answer in answers] == [
        "Outcome",
        "StoreRejected",
        "Outcome",
    ]


async def test_data_without_meta_is_wiped(store: RedisStore, io: RedisIO) -> None:
    """A new lineage does not inherit keys, versions or mutation ids from a lost one."""
    sid = session_id()
    old = await store.call(write(sid, {"a": "1", "b": "1"}, mutation_id="m"))
    await store.call(write(sid, {"b": "2"}, mutation_id="old"))
    await io.execute("DEL", session_key(sid, "m"))
    assert (await store.call(read(sid))).status is Status.NOT_FOUND
    assert (await store.call(join(sid))).full == []
    new = await store.call(write(sid, {"a": "1"}, mutation_id="m"))
    assert (new.status, new.version, new.created) == (Status.OK, 1, True)
    assert new.epoch != old.epoch
    assert pairs((await store.call(read(sid))).flat) == {b"a": b"1"}
    assert await io.execute("ZRANGE", session_key(sid, "k"), 0, -1) == [b"a"]
    assert (await store.call(write(sid, {"b": "1"}, mutation_id="old"))).status is Status.OK


async def test_touch_with_damage_is_an_error(store: RedisStore, io: RedisIO) -> None:
    """Typed, and a healthy session can be touched afterwards."""
    sid = session_id()
    await store.call(join(sid))
    await io.execute("SET", session_key(sid, "o"), "not this")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.call(touch(sid, "d"))
    assert (await store.call(touch(session_id()))).version == 0
