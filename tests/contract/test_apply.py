"""One write: versions, creation, no-ops, idempotency, replacement, ownership."""

from typing import Any

import msgspec

from support.contract.requests import join, pairs, read, session_id, write
from syncbridge.records.sessions import Apply, Mode, Operation, Place, Status
from syncbridge_server.redis.stores.store import RedisStore

WEEK_MS = 604_800_000


async def test_first_write_makes_version_one(store: RedisStore) -> None:
    """The first write creates the session, with an epoch and times from Redis's clock."""
    outcome = await store.call(write(session_id(), {"a": "1", "b": '"x"'}))
    assert outcome.status is Status.OK
    assert (outcome.prev_version, outcome.version) == (0, 1)
    assert outcome.created
    assert len(outcome.epoch) == 12
    assert pairs(outcome.sets) == {b"a": b"1", b"b": b'"x"'}
    assert outcome.created_at == outcome.updated_at
    assert outcome.expires_at == outcome.created_at + WEEK_MS


async def test_first_write_without_keys_makes_version_one(store: RedisStore) -> None:
    """A session can be created empty."""
    sid = session_id()
    outcome = await store.call(write(sid))
    assert (outcome.status, outcome.version, outcome.created) == (Status.OK, 1, True)
    snapshot = await store.call(read(sid))
    assert (snapshot.version, snapshot.flat) == (1, [])


async def test_each_change_adds_one(store: RedisStore) -> None:
    """Versions are contiguous; what was there before is not touched."""
    sid = session_id()
    for version in range(1, 6):
        outcome = await store.call(write(sid, {f"k{version}": "1"}))
        assert (outcome.prev_version, outcome.version) == (version - 1, version)
    snapshot = await store.call(read(sid))
    assert sorted(pairs(snapshot.flat)) == [b"k1", b"k2", b"k3", b"k4", b"k5"]


async def test_equal_bytes_change_nothing(store: RedisStore) -> None:
    """Keys whose bytes are equal and deletions of absent keys are dropped."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "2"}))
    same = await store.call(write(sid, {"a": "1"}, "z"))
    assert (same.status, same.prev_version, same.version) == (Status.OK, 1, 1)
    assert (same.sets, same.deletes) == ([], [])
    partly = await store.call(write(sid, {"a": "1", "b": "3"}, "z"))
    assert partly.version == 2
    assert (pairs(partly.sets), partly.deletes) == ({b"b": b"3"}, [])


async def test_binary_keys_and_values_come_back_as_they_were(store: RedisStore) -> None:
    """Nothing on the way interprets the bytes, line ends and zero bytes included."""
    sid = session_id()
    strange = write(sid)
    strange.sets = [b"\r\n\x00\xff", bytes(range(256)), "ключ".encode(), b"9007199254740993"]
    await store.call(strange)
    snapshot = await store.call(read(sid))
    assert pairs(snapshot.flat) == pairs(strange.sets)


async def test_replace_deletes_the_others(store: RedisStore) -> None:
    """A whole state leaves only its own keys, and reports what it removed."""
    sid = session_id()
    await store.call(write(sid, {"a": "1", "b": "2", "c": "3"}))
    outcome = await store.call(write(sid, {"a": "1", "d": "4"}, replace=True))
    assert pairs(outcome.sets) == {b"d": b"4"}
    assert sorted(outcome.deletes) == [b"b", b"c"]
    assert pairs((await store.call(read(sid))).flat) == {b"a": b"1", b"d": b"4"}


async def test_not_found_without_create(store: RedisStore) -> None:
    """A write that must not create answers NOT_FOUND and creates nothing."""
    sid = session_id()
    outcome = await store.call(write(sid, {"a": "1"}, create=False))
    assert outcome.status is Status.NOT_FOUND
    assert (await store.call(read(sid))).status is Status.NOT_FOUND


async def test_owner_is_checked(store: RedisStore) -> None:
    """Another user is refused; a privileged caller is not, and does not become the owner."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    other = await store.call(write(sid, {"a": "2"}, user_id="other"))
    assert other.status is Status.FORBIDDEN
    service = await store.call(write(sid, {"a": "3"}, user_id="other", owner_check=False))
    assert (service.status, service.version) == (Status.OK, 2)
    assert (await store.call(read(sid))).owner == "u"


async def test_nobody_creates_a_session_in_which_another_user_waits(store: RedisStore) -> None:
    """A device that waits for a session to exist must not receive another user's data."""
    sid = session_id()
    await store.call(join(sid))
    assert (await store.call(write(sid, {"a": "1"}, user_id="x"))).status is Status.FORBIDDEN
    assert (await store.call(join(sid, "e", user_id="x"))).status is Status.FORBIDDEN
    assert (await store.call(write(sid, {"a": "1"}))).status is Status.OK


async def test_duplicate_changes_nothing_and_names_its_version(store: RedisStore) -> None:
    """The same mutation id again answers DUPLICATE with the version that it made."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}, mutation_id="m1"))
    await store.call(write(sid, {"a": "2"}, mutation_id="m2"))
    again = await store.call(write(sid, {"a": "1"}, mutation_id="m1"))
    assert (again.status, again.version) == (Status.DUPLICATE, 1)
    assert pairs((await store.call(read(sid))).flat) == {b"a": b"2"}


async def test_mutation_ids_are_scoped_by_device(store: RedisStore) -> None:
    """Two devices may use the same correlation id."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}, mutation_id="m"))
    other = await store.call(write(sid, {"a": "2"}, mutation_id="m", device_id="e"))
    assert (other.status, other.version) == (Status.OK, 2)


async def test_a_write_that_changed_nothing_is_remembered_too(store: RedisStore) -> None:
    """Else its repetition, after somebody else's write, would undo that write."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, {"a": "1"}, mutation_id="m"))
    await store.call(write(sid, {"a": "2"}))
    assert (await store.call(write(sid, {"a": "1"}, mutation_id="m"))).status is Status.DUPLICATE


async def test_ids_outlive_the_writes_of_others(store: RedisStore) -> None:
    """600 writes of another device between an INCR and its repetition: it counts once."""
    sid = session_id()
    incr = write(sid, {"n": "5"}, mutation_id="x", operation=Operation.INCR)
    await store.call(write(sid, {"a": "0"}))
    await store.call(incr)
    others = [write(sid, {"b": str(n)}, device_id="e", mutation_id=str(n)) for n in range(600)]
    store.submit(others[:-1], lambda answers: None)
    await store.call(others[-1])
    again = await store.call(incr)
    assert (again.status, again.version) == (Status.DUPLICATE, 2)
    assert pairs((await store.call(read(sid))).flat)[b"n"] == b"5"


async def test_read_tells_who_wrote_last(store: RedisStore) -> None:
    """Owner, last writer, app version and times are stored with the session."""
    sid = session_id()
    first = await store.call(write(sid, {"a": "1"}, app_version="1.2", replace=True))
    second = await store.call(write(sid, {"a": "2"}, device_id="e"))
    snapshot = await store.call(read(sid))
    assert (snapshot.owner, snapshot.device_id, snapshot.app_version) == ("u", "e", "1.2")
    assert (snapshot.created_at, snapshot.updated_at) == (first.created_at, second.updated_at)
    assert snapshot.expires_at == first.expires_at


async def test_read_with_a_fitting_etag_sends_no_state(store: RedisStore) -> None:
    """The same epoch and version: nothing; another epoch or version: the state."""
    sid = session_id()
    epoch = (await store.call(write(sid, {"a": "1"}))).epoch
    assert (await store.call(read(sid, etag=Place(epoch, 1)))).flat is None
    assert (await store.call(read(sid, etag=Place("other", 1)))).flat == [b"a", b"1"]
    assert (await store.call(read(sid, etag=Place(epoch, 0)))).flat == [b"a", b"1"]
    assert (await store.call(read(sid, user_id="x"))).status is Status.FORBIDDEN


async def test_overwrite_wins_whatever_the_base(store: RedisStore) -> None:
    """Mode OVERWRITE applies a stale write."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, {"a": "2"}))
    outcome = await store.call(write(sid, {"a": "3"}, base_version=1, mode=Mode.OVERWRITE))
    assert (outcome.status, outcome.version, outcome.conflicts) == (Status.OK, 3, [])


async def test_keys_that_must_be_there(store: RedisStore) -> None:
    """A write is refused whole, and names the key, while one of them is not there, or no session.

    It holds for change sets and operations, and a duplicate is told as ever.
    """
    sid = session_id()

    def guarded(sets: dict[str, str], *keys: str, **more: Any) -> Apply:
        request = write(sid, sets, **more)
        return msgspec.structs.replace(request, must_exist=[key.encode() for key in keys])

    assert Status.ABSENT is (await store.call(guarded({"a": "1"}, "a"))).status
    await store.call(write(sid, {"a": "1"}))
    refused = await store.call(guarded({"b": "2", "c": "3"}, "a", "c"))
    cas = guarded({"c": "1"}, "c", operation=Operation.CAS)
    assert (Status.ABSENT, [b"c", b""]) == (refused.status, refused.conflicts)
    assert Status.ABSENT is (await store.call(cas)).status
    once = await store.call(guarded({"a": "2.50"}, "a", mutation_id="m"))
    again = await store.call(guarded({"a": "2.50"}, "a", mutation_id="m"))
    incremented = await store.call(guarded({"n": "1"}, "a", operation=Operation.INCR))
    compared = await store.call(
        guarded({"a": "3"}, "a", operation=Operation.CAS, expected=b"2.5", trace="t")
    )
    state = await store.call(read(sid))

    assert (Status.OK, Status.DUPLICATE) == (once.status, again.status)
    assert (Status.OK, Status.OK) == (incremented.status, compared.status)
    assert {b"a": b"3", b"n": b"1"} == pairs(state.flat)
