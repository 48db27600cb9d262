"""Writes that name the version they have seen."""

import pytest

from support.contract.requests import pairs, read, session_id, write
from syncbridge.records.sessions import Mode, Status
from syncbridge_server.redis.stores.store import RedisStore


@pytest.fixture
async def sid(store: RedisStore) -> str:
    """A session at version 3: `a` changed at 2, `c` was deleted at 3, `b` is from 1."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "1", "c": "1"}))
    await store.call(write(sid, {"a": "2"}))
    await store.call(write(sid, deletes="c"))
    return sid


async def test_reject_names_the_keys_and_their_values(store: RedisStore, sid: str) -> None:
    """Nothing is applied; a deleted key is shown without a value."""
    request = write(sid, {"a": "9", "b": "9"}, "c", base_version=1, mode=Mode.REJECT)
    outcome = await store.call(request)
    assert (outcome.status, outcome.version) == (Status.CONFLICT, 3)
    assert pairs(outcome.conflicts) == {b"a": b"2", b"c": b""}
    assert pairs((await store.call(read(sid))).flat) == {b"a": b"2", b"b": b"1"}


async def test_disjoint_keys_do_not_conflict(store: RedisStore, sid: str) -> None:
    """A stale write to keys that nobody touched goes in."""
    outcome = await store.call(write(sid, {"b": "9"}, base_version=1, mode=Mode.REJECT))
    assert (outcome.status, outcome.version) == (Status.OK, 4)


async def test_yield_leaves_out_what_changed(store: RedisStore, sid: str) -> None:
    """The other keys are applied, and the answer says which were not."""
    request = write(sid, {"a": "9", "b": "9"}, base_version=1, mode=Mode.YIELD)
    outcome = await store.call(request)
    assert (outcome.status, outcome.version) == (Status.OK, 4)
    assert pairs(outcome.sets) == {b"b": b"9"}
    assert pairs(outcome.conflicts) == {b"a": b"2"}


async def test_yield_of_everything_changes_nothing(store: RedisStore, sid: str) -> None:
    """OK with the version unchanged."""
    outcome = await store.call(write(sid, {"a": "9"}, base_version=1, mode=Mode.YIELD))
    assert (outcome.status, outcome.prev_version, outcome.version) == (Status.OK, 3, 3)
    assert pairs(outcome.conflicts) == {b"a": b"2"}


async def test_whole_conflicts_with_any_change(store: RedisStore, sid: str) -> None:
    """Mode WHOLE refuses when anything is newer, and passes when nothing is."""
    stale = write(sid, {"b": "9"}, base_version=2, mode=Mode.WHOLE, replace=True)
    assert (await store.call(stale)).status is Status.CONFLICT
    current = write(sid, {"b": "9"}, base_version=3, mode=Mode.WHOLE, replace=True)
    outcome = await store.call(current)
    assert (outcome.status, outcome.deletes) == (Status.OK, [b"a"])


async def test_base_ahead_of_the_server(store: RedisStore, sid: str) -> None:
    """A version that does not exist yet is AHEAD in every mode, also for no session at all."""
    for mode in Mode:
        outcome = await store.call(write(sid, {"a": "9"}, base_version=4, mode=mode))
        assert (outcome.status, outcome.version) == (Status.AHEAD, 3)
    missing = await store.call(write(session_id(), {"a": "9"}, base_version=1))
    assert (missing.status, missing.version) == (Status.AHEAD, 0)


async def test_below_the_floor_absent_keys_conflict(store: RedisStore) -> None:
    """Once tombstones are dropped, nobody knows whether an absent key was deleted after base."""
    sid = session_id()
    names = [f"k{n}" for n in range(300)]
    await store.call(write(sid, dict.fromkeys(names, "1")))
    for start in range(0, 300, 10):
        request = write(sid)
        request.deletes = [name.encode() for name in names[start : start + 10]]
        await store.call(request)
    dropped = await store.call(write(sid, {"k0": "9"}, base_version=1, mode=Mode.REJECT))
    assert (dropped.status, pairs(dropped.conflicts)) == (Status.CONFLICT, {b"k0": b""})
    recent = await store.call(write(sid, {"new": "9"}, base_version=30, mode=Mode.REJECT))
    assert recent.status is Status.OK


async def test_a_key_named_twice_is_refused_before_sending(store: RedisStore) -> None:
    """Sizes would be counted wrongly; callers must not do that."""
    request = write(session_id(), {"a": "1", "b": "2"}, "a")
    with pytest.raises(ValueError, match="twice"):
        await store.call(request)
