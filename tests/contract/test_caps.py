"""Caps on bytes, keys and devices, which concurrent writers cannot exceed together."""

from collections.abc import Callable

import pytest

from support.contract.requests import join, leave, pairs, read, session_id, write
from syncbridge.limits import Limits
from syncbridge.records.sessions import Status
from syncbridge.slots import session_key
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

MakeStore = Callable[..., RedisStore]


@pytest.fixture
def limited(io: RedisIO) -> MakeStore:
    """A store with other limits."""
    return lambda **limits: RedisStore(io, "n1", Limits(**limits))


async def test_too_large_applies_nothing(limited: MakeStore) -> None:
    """Keys and values count; a write that would pass the cap is refused whole."""
    store, sid = limited(state_bytes=100), session_id()
    await store.call(write(sid, {"a": "x" * 60}))
    over = await store.call(write(sid, {"b": "x" * 39, "c": "1"}))
    assert (over.status, over.version) == (Status.TOO_LARGE, 1)
    assert list(pairs((await store.call(read(sid))).flat)) == [b"a"]
    assert (await store.call(write(sid, {"b": "x" * 38}))).status is Status.OK


async def test_size_follows_changes_and_deletions(limited: MakeStore) -> None:
    """Room that was given up can be used again."""
    store, sid = limited(state_bytes=100), session_id()
    await store.call(write(sid, {"a": "x" * 99}))
    assert (await store.call(write(sid, {"a": "x" * 100}))).status is Status.TOO_LARGE
    assert (await store.call(write(sid, {"a": "x"}))).status is Status.OK
    assert (await store.call(write(sid, {"b": "x" * 97}))).status is Status.OK
    assert (await store.call(write(sid, deletes="b"))).status is Status.OK
    assert (await store.call(write(sid, {"c": "x" * 97}))).status is Status.OK


async def test_a_lowered_cap_lets_a_session_shrink(limited: MakeStore) -> None:
    """What is over a new cap can be made smaller, not larger."""
    sid = session_id()
    await limited().call(write(sid, {"a": "x" * 200, "b": "y" * 200}))
    store = limited(state_bytes=100)
    assert (await store.call(write(sid, {"a": "x" * 150}))).status is Status.OK
    assert (await store.call(write(sid, {"a": "x" * 160}))).status is Status.TOO_LARGE


async def test_too_many_keys(limited: MakeStore) -> None:
    """The cap holds for new keys; replacing one by another is allowed."""
    store, sid = limited(state_keys=2), session_id()
    first = await store.call(write(sid, {"a": "1", "b": "1", "c": "1"}))
    assert first.status is Status.TOO_MANY_KEYS
    assert (await store.call(read(sid))).status is Status.NOT_FOUND
    await store.call(write(sid, {"a": "1", "b": "1"}))
    assert (await store.call(write(sid, {"c": "1"}))).status is Status.TOO_MANY_KEYS
    assert (await store.call(write(sid, {"c": "1"}, "b"))).status is Status.OK


async def test_large_states_pass_in_chunks(limited: MakeStore) -> None:
    """More keys than one Lua call takes arguments are written, replaced and read."""
    store, sid = limited(state_keys=20_000), session_id()
    state = {f"k{n}": str(n) for n in range(9_000)}
    outcome = await store.call(write(sid, state))
    assert (outcome.status, len(outcome.sets)) == (Status.OK, 18_000)
    changed = state | {"k0": "new"}
    del changed["k1"]
    again = await store.call(write(sid, changed, replace=True))
    assert (pairs(again.sets), again.deletes) == ({b"k0": b"new"}, [b"k1"])
    emptied = await store.call(write(sid, replace=True))
    assert len(emptied.deletes) == 8_999
    assert (await store.call(read(sid))).flat == []


async def test_device_cap_counts_devices_online(store: RedisStore) -> None:
    """One more than the cap is refused; a known device may always come back."""
    sid = session_id()
    for name in ("d1", "d2"):
        assert (await store.call(join(sid, name, max_devices=2))).status is Status.OK
    third = await store.call(join(sid, "d3", max_devices=2))
    assert third.status is Status.TOO_MANY_DEVICES
    again = await store.call(join(sid, "d2", "c2", max_devices=2))
    assert again.status is Status.OK
    assert sorted(device.device_id for device in again.devices) == ["d1", "d2"]


async def test_offline_devices_do_not_pile_up(store: RedisStore, io: RedisIO) -> None:
    """A client that invents a device id each time does not grow the registry for ever."""
    sid = session_id()
    for number in range(30):
        request = join(sid, f"d{number}", f"c{number}", max_devices=2)
        assert (await store.call(request)).status is Status.OK
        await store.call(leave(sid, f"d{number}", f"c{number}"))
    assert await io.execute("HLEN", session_key(sid, "o")) <= 10
