"""What changed since a version: by `Resume` and by `Hello`."""

import pytest

from support.contract.requests import join, pairs, resume, session_id, write
from syncbridge.records.sessions import Place, Status
from syncbridge_server.redis.stores.store import RedisStore

Seen = tuple[str, str]


@pytest.fixture
async def session(store: RedisStore) -> Seen:
    """(session id, epoch) at version 3: `a` changed at 2, `c` deleted at 3, `b` is from 1."""
    sid = session_id()
    epoch: str = (await store.call(write(sid, {"a": "1", "b": "1", "c": "1"}))).epoch
    await store.call(write(sid, {"a": "2"}))
    await store.call(write(sid, deletes="c"))
    return sid, epoch


async def test_delta(store: RedisStore, session: Seen) -> None:
    """Changed keys with their values, deleted keys by name, nothing else."""
    sid, epoch = session
    resumed = await store.call(resume(sid, epoch, 1))
    assert (resumed.status, resumed.version, resumed.epoch) == (Status.OK, 3, epoch)
    assert resumed.full is None
    assert (pairs(resumed.sets), resumed.deletes) == ({b"a": b"2"}, [b"c"])


async def test_nothing_new(store: RedisStore, session: Seen) -> None:
    """From the current version the delta is empty."""
    sid, epoch = session
    resumed = await store.call(resume(sid, epoch, 3))
    assert (resumed.full, resumed.sets, resumed.deletes) == (None, [], [])


@pytest.mark.parametrize(("epoch", "version"), [("other", 1), ("", 4), ("other", 3)])
async def test_what_cannot_be_told_is_answered_whole(
    store: RedisStore, session: Seen, epoch: str, version: int
) -> None:
    """Another epoch or a version that does not exist gets the whole state."""
    sid, own = session
    resumed = await store.call(resume(sid, epoch or own, version))
    assert pairs(resumed.full) == {b"a": b"2", b"b": b"1"}
    assert (resumed.sets, resumed.deletes) == ([], [])


async def test_absent_session_and_stranger(store: RedisStore, session: Seen) -> None:
    """NOT_FOUND and FORBIDDEN, without any state."""
    assert (await store.call(resume(session_id(), "", 0))).status is Status.NOT_FOUND
    refused = await store.call(resume(*session, 1, user_id="x", owner_check=True))
    assert (refused.status, refused.full, refused.sets) == (Status.FORBIDDEN, None, [])


async def test_dropped_tombstones_raise_the_floor(store: RedisStore) -> None:
    """Below the floor the whole state is sent; at the floor the delta is still exact."""
    sid = session_id()
    names = [f"k{n}" for n in range(300)]
    epoch = (await store.call(write(sid, dict.fromkeys(names, "1")))).epoch
    for name in names:
        request = write(sid)
        request.deletes = [name.encode()]
        await store.call(request)
    assert (await store.call(resume(sid, epoch, 1))).full == []
    # The 257th deletion (version 258) dropped all but 128 tombstones: those up to version 130.
    assert (await store.call(resume(sid, epoch, 129))).full == []
    below = await store.call(join(sid, since=Place(epoch, 129)))
    assert (below.full, below.resumed) == ([], False)
    assert (await store.call(join(sid, since=Place(epoch, 130)))).resumed
    at_floor = await store.call(resume(sid, epoch, 130))
    assert at_floor.full is None
    assert sorted(at_floor.deletes) == sorted(name.encode() for name in names[129:])


async def test_hello_full(store: RedisStore, session: Seen) -> None:
    """A device without a past gets the whole state."""
    sid, epoch = session
    welcome = await store.call(join(sid))
    assert (welcome.status, welcome.version, welcome.epoch) == (Status.OK, 3, epoch)
    assert welcome.owner == "u"
    assert pairs(welcome.full) == {b"a": b"2", b"b": b"1"}
    assert not welcome.resumed
    assert not welcome.fresh


async def test_hello_resumed(store: RedisStore, session: Seen) -> None:
    """A device that names what it has seen gets the delta."""
    sid, epoch = session
    welcome = await store.call(join(sid, since=Place(epoch, 2)))
    assert welcome.resumed
    assert (welcome.full, welcome.sets, welcome.deletes) == (None, [], [b"c"])


@pytest.mark.parametrize(("epoch", "version"), [("other", 2), ("", 9)])
async def test_hello_that_cannot_be_resumed(
    store: RedisStore, session: Seen, epoch: str, version: int
) -> None:
    """The whole state, also when the node's replica is current."""
    sid, own = session
    request = join(sid, since=Place(epoch or own, version), known=Place(own, 3))
    welcome = await store.call(request)
    assert not welcome.resumed
    assert not welcome.fresh
    assert pairs(welcome.full) == {b"a": b"2", b"b": b"1"}


async def test_hello_fresh(store: RedisStore, session: Seen) -> None:
    """No state is sent when the node's replica is at this very version of this epoch."""
    sid, epoch = session
    fresh = await store.call(join(sid, known=Place(epoch, 3)))
    assert fresh.fresh
    assert (fresh.full, fresh.sets, fresh.deletes) == (None, [], [])
    old = await store.call(join(sid, known=Place(epoch, 2)))
    assert pairs(old.full) == {b"a": b"2", b"b": b"1"}
    other = await store.call(join(sid, known=Place("other", 3)))
    assert pairs(other.full) == {b"a": b"2", b"b": b"1"}


async def test_hello_before_the_session_exists(store: RedisStore) -> None:
    """Version 0, no epoch, an empty state; the session is not made by joining."""
    sid = session_id()
    welcome = await store.call(join(sid, since=Place("old", 7)))
    assert (welcome.status, welcome.version, welcome.epoch) == (Status.OK, 0, "")
    assert (welcome.full, welcome.resumed, welcome.fresh) == ([], False, False)
    assert (await store.call(resume(sid, "", 0))).status is Status.NOT_FOUND
