"""What is known of an earlier version: keys changed since, and imprints of their old values."""

import pytest

from contract.test_frozen import freeze
from support.contract.requests import pairs, session_id, write
from support.redis_servers import RedisServer
from syncbridge.kernels import imprint
from syncbridge.limits import Limits
from syncbridge.records.sessions import Operation, Review, Reviewed, Status
from syncbridge.slots import session_key
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

KEPT = 256
SLACK = 32


def review(sid: str, base: int, user_id: str = "u", owner_check: bool = True) -> Review:
    return Review(sid, user_id, owner_check, base)


async def test_state_changes_and_old_values(store: RedisStore) -> None:
    """Each change of a key is one line, with its version and the imprint of what was there."""
    sid, long = session_id(), '"' + "x" * 40 + '"'
    await store.call(write(sid, {"a": "1", "b": long}))
    await store.call(write(sid, {"a": "2", "c": "3"}))
    await store.call(write(sid, {"b": "null"}, "c"))
    known: Reviewed = await store.call(review(sid, 1))

    assert (Status.OK, 3, 0) == (known.status, known.version, known.floor)
    assert {b"a": b"2", b"b": b"null"} == pairs(known.flat)
    assert {b"a", b"b", b"c"} == set(known.changed)
    assert [
        (1, b"a", imprint(None)),
        (1, b"b", imprint(None)),
        (2, b"a", imprint(b"1")),
        (2, b"c", imprint(None)),
        (3, b"b", imprint(long.encode())),
        (3, b"c", imprint(b"3")),
    ] == known.journal
    assert {b"b", b"c"} == set((await store.call(review(sid, 2))).changed)


async def test_nothing_to_know_of_the_present(store: RedisStore) -> None:
    """From the current version, or one that is ahead, no history is read."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    for base in (1, 7):
        known = await store.call(review(sid, base))
        assert ([], [], {b"a": b"1"}) == (known.changed, known.journal, pairs(known.flat))


async def test_owner_and_existence(store: RedisStore) -> None:
    """As for any read."""
    sid = session_id()
    assert Status.NOT_FOUND is (await store.call(review(sid, 0))).status
    await store.call(write(sid, {"a": "1"}))
    assert Status.FORBIDDEN is (await store.call(review(sid, 0, "other"))).status
    assert Status.OK is (await store.call(review(sid, 0, "other", False))).status


@pytest.mark.parametrize("size", [1, 24, 25, 2048, 2049])
async def test_imprints_are_those_of_the_kernel(store: RedisStore, size: int) -> None:
    """Script and kernel agree on the bounds, on keys and values of any bytes."""
    sid, key, text = session_id(), b"a b\n\xff ", b"7" * size
    for value in (text, b'"' + b"x" * size + b'"', b'"\\u0078' + b"x" * size + b'"'):
        first, second = write(sid), write(sid)
        first.sets, second.sets = [key, value], [key, b"0"]
        await store.call(first)
        await store.call(second)
        known = await store.call(review(sid, 1))
        assert key == known.journal[-1][1]
        assert imprint(value) == known.journal[-1][2]


async def test_operations_are_in_the_journal(store: RedisStore) -> None:
    """An operation that changes something leaves a line, one that does not leaves none."""
    sid = session_id()
    await store.call(write(sid, {"n": "5"}, operation=Operation.INCR))
    await store.call(write(sid, {"n": "5"}, operation=Operation.INCR))
    await store.call(write(sid, {"n": "3"}, operation=Operation.MAX))
    known = await store.call(review(sid, 0))

    assert [(1, b"n", b""), (2, b"n", b"=5")] == known.journal
    assert {b"n": b"10"} == pairs(known.flat)


async def test_journal_is_bounded(store: RedisStore, io: RedisIO) -> None:
    """256 versions are kept, at most 288, the newest always; of large ones not what they were."""
    sid = session_id()
    for n in range(400):
        await store.call(write(sid, {"a": str(n)}))
    known = await store.call(review(sid, 0))
    assert KEPT <= len(known.journal) <= KEPT + SLACK
    assert (400, b"a", b"=398") == known.journal[-1]

    await store.call(write(sid, {f"k{n}": "1" for n in range(120)}))
    known = await store.call(review(sid, 0))
    assert 120 == sum(version == 401 for version, _, _ in known.journal)
    await store.call(write(sid, {f"l{n}": "1" for n in range(300)}))
    assert [] == (await store.call(review(sid, 0))).journal
    await store.call(write(sid, {"a": "2"}))
    assert [(403, b"a", b"=399")] == (await store.call(review(sid, 0))).journal


async def test_journal_lives_as_long_as_the_session(store: RedisStore, io: RedisIO) -> None:
    """It has the expiry of the other keys, and a session made anew starts with an empty one."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, {"a": "2"}))
    left = [await io.execute("PTTL", session_key(sid, letter)) for letter in "mj"]
    assert abs(left[0] - left[1]) < 1000
    await io.execute("DEL", session_key(sid, "m"))
    await store.call(write(sid, {"b": "1"}))
    assert [(1, b"b", b"")] == (await store.call(review(sid, 0))).journal


async def test_a_frozen_session_is_unpacked_for_it(store: RedisStore, io: RedisIO) -> None:
    """State, changes and journal are what they were; operations go on from there."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "1"}))
    await store.call(write(sid, {"a": "2"}, "b"))
    before = await store.call(review(sid, 1))
    await freeze(io, sid)
    assert before == await store.call(review(sid, 1))
    await freeze(io, sid)
    outcome = await store.call(write(sid, {"a": "5"}, operation=Operation.INCR))
    assert (Status.OK, 3, b"7") == (outcome.status, outcome.version, outcome.result)


async def test_damaged_journal_is_dropped(store: RedisStore, io: RedisIO) -> None:
    """A key of another type in its place costs the memory, not the write: it is begun anew."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    await io.execute("SET", session_key(sid, "j"), "oops")
    outcome = await store.call(write(sid, {"a": "2"}))
    assert (Status.OK, 2) == (outcome.status, outcome.version)
    await store.call(write(sid, {"a": "3"}))
    assert [(2, b"a", b"=1"), (3, b"a", b"=2")] == (await store.call(review(sid, 0))).journal


async def test_values_are_bounded_for_operations(server: RedisServer) -> None:
    """APPEND beyond the size of a value is refused with the key, and nothing is written."""
    async with RedisIO(server.url, deadline=8.0).running() as io:
        store, sid = RedisStore(io, "n1", Limits(value_bytes=10)), session_id()
        append = write(sid, {"l": "123456"}, operation=Operation.APPEND)
        assert Status.OK is (await store.call(append)).status
        outcome = await store.call(append)
        assert (Status.TOO_LARGE, b"l") == (outcome.status, outcome.conflicts[0])
        assert [b"l", b"[123456]"] == (await store.call(review(sid, 1))).flat
