"""Joining, leaving, presence, and which nodes are in a session."""

from support.contract.requests import join, leave, session_id, touch, write
from syncbridge.records.nodes import Sweep
from syncbridge.records.sessions import Device, Status, Welcome
from syncbridge.slots import session_key
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

DAY_MS = 86_400_000


def online(welcome: Welcome) -> dict[str, bool]:
    """Device ids and whether they are online."""
    return {device.device_id: device.online for device in welcome.devices}


async def test_devices_are_listed(store: RedisStore) -> None:
    """Every joined device with its info, and a lease in the future."""
    sid = session_id()
    await store.call(join(sid, "d1", info=b'{"device_type":"mac"}'))
    welcome = await store.call(join(sid, "d2", "c2", info=b'{"device_type":"ios"}'))
    infos = {device.device_id: device.info for device in welcome.devices}
    assert infos == {"d1": b'{"device_type":"mac"}', "d2": b'{"device_type":"ios"}'}
    assert online(welcome) == {"d1": True, "d2": True}
    assert welcome.replaced is None


async def test_the_same_device_replaces_itself(store: RedisStore) -> None:
    """The answer names the node and connection that the device had before."""
    sid = session_id()
    await store.call(join(sid, conn="c1", node="n1"))
    assert (await store.call(join(sid, conn="c2", node="n2"))).replaced == ("n1", "c1")
    assert (await store.call(join(sid, conn="c3", node="n1"))).replaced == ("n2", "c2")


async def test_a_late_close_of_the_old_connection_changes_nothing(store: RedisStore) -> None:
    """Only the connection that the device has now can take it offline."""
    sid = session_id()
    await store.call(join(sid, conn="c1"))
    await store.call(join(sid, conn="c2"))
    assert not (await store.call(leave(sid, conn="c1"))).changed
    assert online(await store.call(join(sid, "e", "x"))) == {"d": True, "e": True}
    left = await store.call(leave(sid, conn="c2"))
    assert left.changed
    assert not (await store.call(leave(sid, conn="c2"))).changed
    assert online(await store.call(join(sid, "e", "y"))) == {"d": False, "e": True}


async def test_an_offline_device_keeps_the_time_at_which_it_left(store: RedisStore) -> None:
    """It stays in the list; its deadline is that time, in the past."""
    sid = session_id()
    await store.call(join(sid, info=b'{"n":1}'))
    left = await store.call(leave(sid))
    welcome = await store.call(join(sid, "e", "c2"))
    gone = next(device for device in welcome.devices if device.device_id == "d")
    assert gone == Device("d", b'{"n":1}', left.at, False)


async def test_a_device_that_left_is_not_replaced(store: RedisStore) -> None:
    """There is no connection to close."""
    sid = session_id()
    await store.call(join(sid, conn="c1"))
    await store.call(leave(sid, conn="c1"))
    assert (await store.call(join(sid, conn="c2"))).replaced is None


async def test_forget_removes_the_device(store: RedisStore) -> None:
    """Online by its connection, offline by an empty one."""
    sid = session_id()
    await store.call(join(sid, "d1", "c1"))
    await store.call(join(sid, "d2", "c2"))
    assert not (await store.call(leave(sid, "d1", "", forget=True))).changed
    assert (await store.call(leave(sid, "d1", "c1", forget=True))).changed
    await store.call(leave(sid, "d2", "c2"))
    assert (await store.call(leave(sid, "d2", "", forget=True))).changed
    assert not (await store.call(leave(sid, "d2", "", forget=True))).changed
    assert online(await store.call(join(sid, "e", "c3"))) == {"e": True}


async def test_presence_ends_with_its_node(store: RedisStore) -> None:
    """A device is there until its node is swept; a sweep of another node leaves it."""
    sid = session_id()
    await store.call(join(sid, node="n2"))
    await store.call(Sweep(sid, "n3", 1000))
    assert online(await store.call(join(sid, "e", "c2"))) == {"d": True, "e": True}
    await store.call(Sweep(sid, "n2", 1000))
    assert online(await store.call(join(sid, "e", "c4"))) == {"d": False, "e": True}


async def test_touch_brings_nobody_back(store: RedisStore) -> None:
    """Not a device that left, was forgotten, moved to another node, or never was."""
    sid = session_id()
    await store.call(join(sid, "left", "c1"))
    await store.call(leave(sid, "left", "c1"))
    await store.call(join(sid, "forgotten", "c2"))
    await store.call(leave(sid, "forgotten", "c2", forget=True))
    await store.call(join(sid, "moved", "c3", node="n2"))
    await store.call(touch(sid, "left", "forgotten", "moved", "never"))
    await store.call(Sweep(sid, "n2", 1000))
    welcome = await store.call(join(sid, "e", "c4"))
    assert online(welcome) == {"left": False, "moved": False, "e": True}


async def test_touch_tells_the_version(store: RedisStore) -> None:
    """So that a node can compare its replica; 0 when there is no session."""
    sid = session_id()
    absent = await store.call(touch(sid))
    assert (absent.version, absent.epoch) == (0, "")
    epoch = (await store.call(write(sid, {"a": "1"}))).epoch
    touched = await store.call(touch(sid))
    assert (touched.version, touched.epoch) == (1, epoch)


async def test_touch_gives_the_registry_the_life_of_the_session(
    store: RedisStore, io: RedisIO
) -> None:
    """Devices that waited for a session are kept as long as it, once it exists."""
    sid = session_id()
    await store.call(join(sid))
    await store.call(write(sid, {"a": "1"}))
    await store.call(touch(sid, "d"))
    lives = {letter: await io.execute("PTTL", session_key(sid, letter)) for letter in "mo"}
    assert {letter: left > 6 * DAY_MS for letter, left in lives.items()} == (
        dict.fromkeys("mo", True)
    )


async def test_strangers_do_not_join(store: RedisStore) -> None:
    """FORBIDDEN, and the registry is as before; a privileged caller may."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    refused = await store.call(join(sid, "x", user_id="x"))
    assert (refused.status, refused.full, refused.devices) == (Status.FORBIDDEN, None, [])
    admin = await store.call(join(sid, "y", user_id="x", owner_check=False))
    assert (admin.status, admin.owner) == (Status.OK, "u")
    assert online(admin) == {"y": True}


async def test_a_privileged_guest_does_not_take_the_session(store: RedisStore) -> None:
    """An admin who waits for a session leaves it to its user."""
    sid = session_id()
    await store.call(join(sid, "a", user_id="admin", owner_check=False))
    assert (await store.call(join(sid, "b", "c2"))).status is Status.OK
    assert (await store.call(write(sid, {"a": "1"}))).status is Status.OK


async def test_every_key_expires(store: RedisStore, io: RedisIO) -> None:
    """Whatever order they are made in: data emptied and filled again, nodes gone and back."""
    sid = session_id()
    keys = {letter: session_key(sid, letter) for letter in (*"mdkjco", "f:d")}

    async def lives() -> dict[str, int]:
        found = {letter: await io.execute("PTTL", key) for letter, key in keys.items()}
        return {letter: left for letter, left in found.items() if left != -2}

    await store.call(join(sid))
    assert {letter: 0 < left <= 3_600_000 for letter, left in (await lives()).items()} == (
        dict.fromkeys("mo", True)
    )
    await store.call(write(sid))
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, deletes="a"))
    await store.call(write(sid, {"a": "1.0"}, mutation_id="m"))
    await store.call(leave(sid, last=True))
    await store.call(join(sid, conn="c2"))
    await store.call(touch(sid, "d"))
    after = await lives()
    assert sorted(after) == sorted(keys)
    assert {letter: left > 6 * DAY_MS for letter, left in after.items()} == (
        dict.fromkeys(keys, True)
    )


async def test_the_devices_of_a_session_live_as_long_as_it(store: RedisStore, io: RedisIO) -> None:
    """Joined while it was empty, written, and left at once: the list of devices is kept with it."""
    sid = session_id()
    await store.call(join(sid))
    await store.call(write(sid, {"a": "1"}))
    await store.call(leave(sid, last=True))

    lives = {letter: await io.execute("PTTL", session_key(sid, letter)) for letter in "mdo"}
    assert {letter: left > 6 * DAY_MS for letter, left in lives.items()} == (
        dict.fromkeys("mdo", True)
    )


async def test_life_is_renewed_at_most_hourly(store: RedisStore, io: RedisIO) -> None:
    """By a write, a write that changes nothing, a hello or a touch, once an hour has passed."""
    requests = [
        lambda sid: write(sid, {"b": "2"}),
        lambda sid: write(sid, {"a": "1"}),
        join,
        lambda sid: touch(sid, "d"),
    ]
    for request in requests:
        sid = session_id()
        outcome = await store.call(write(sid, {"a": "1"}))
        meta, data = session_key(sid, "m"), session_key(sid, "d")
        await io.execute("PEXPIREAT", data, outcome.expires_at - DAY_MS)
        await store.call(request(sid))
        assert await io.execute("PTTL", data) <= 6 * DAY_MS
        await io.execute("HSET", meta, "t", outcome.created_at - 3_600_001)
        await store.call(request(sid))
        assert await io.execute("PTTL", data) > 6 * DAY_MS
        assert int(await io.execute("HGET", meta, "t")) >= outcome.created_at
