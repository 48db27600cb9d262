"""Keys of the channels of an id: its owner's, those of other waddles, and older records."""

import uuid
from collections.abc import AsyncIterator

import pytest
import redis
import trio

from support.redis_servers import RedisServer
from syncbridge.errors import StoreError
from syncbridge.voice.naming import qualified_key
from syncbridge.voice.records import ChannelRecord, encode_record
from syncbridge_server.ports.channels import Named
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.channel_names import (
    FOUND_MOST,
    RedisChannelNames,
    owner_key,
    waddles_key,
)
from syncbridge_server.redis.stores.voice import RedisChannels, channel_key

DAY = 86_400.0


class Store:
    """The names and the channels of one node."""

    def __init__(self, io: RedisIO, bus: RedisBus) -> None:
        self.names = RedisChannelNames(io, DAY)
        self.channels = RedisChannels(io, bus, "n1", DAY)

    async def open(self, waddle: str, channel: str) -> str:
        """A stored channel of a waddle; its key."""
        key = await self.names.claim(waddle, channel)
        stored = await self.channels.read(key)
        record = ChannelRecord(key, waddle)
        assert await self.channels.write(stored, record, due_at=None, live=False)
        return key

    async def seen(self, channel: str, *waddles: str) -> dict[str, str]:
        """Waddle -> key of what is stored of an id; without waddles, in any."""
        found = await self.names.named(channel, waddles or None)
        return {one.waddle_id: one.key for one in found if is_stored(one)}


def is_stored(one: Named) -> bool:
    assert not isinstance(one.stored, StoreError)
    return one.stored.revision > 0


def old_record(raw: redis.Redis, channel: str, waddle: str) -> None:
    """What a version before waddles had channels of their own has stored."""
    record = encode_record(ChannelRecord(channel, waddle))
    raw.hset(channel_key(channel), mapping={"r": "7", "t": "t", "d": record})


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[Store]:
    async with (
        RedisIO(server.url, deadline=8.0).running() as io,
        RedisBus(io, "n1").running() as bus,
    ):
        yield Store(io, bus)


def new_id() -> str:
    return f"{uuid.uuid4().hex[:8]}-{{ä}}"


async def test_the_first_waddle_has_the_id_and_the_others_keys_of_their_own(store: Store) -> None:
    """Each has one channel; a second opening finds it again."""
    channel = new_id()
    own = [await store.open(waddle, channel) for waddle in ("a", "b", "c/d")]
    assert [channel, qualified_key("b", channel), qualified_key("c/d", channel)] == own
    assert own == [await store.names.claim(waddle, channel) for waddle in ("a", "b", "c/d")]
    assert dict(zip(("a", "b", "c/d"), own, strict=True)) == await store.seen(channel)
    assert {"b": own[1]} == await store.seen(channel, "b", "z")
    assert {} == await store.seen(channel, "z")


async def test_of_many_at_once_one_becomes_the_owner(store: Store) -> None:
    """No two waddles get one key."""
    channel, keys = new_id(), dict[str, str]()

    async def claim(waddle: str) -> None:
        keys[waddle] = await store.names.claim(waddle, channel)

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(claim, f"w{n}")
    assert 20 == len(set(keys.values()))
    assert 1 == list(keys.values()).count(channel)


async def test_an_owner_keeps_the_id_after_the_channel_was_forgotten(store: Store) -> None:
    """What it has left under its key is not the next waddle's; and that one keeps its key, too."""
    channel = new_id()
    await store.open("a", channel)
    await store.channels.delete(await store.channels.read(channel))
    other = await store.open("b", channel)
    assert other == qualified_key("b", channel)
    assert channel == await store.names.claim("a", channel)
    await store.channels.delete(await store.channels.read(other))
    assert other == await store.names.claim("b", channel)


@pytest.mark.parametrize("first", ["its own", "another"])
async def test_an_older_record_belongs_to_the_waddle_that_opened_it(
    store: Store, raw: redis.Redis, first: str
) -> None:
    """Whoever comes first after the upgrade; it is found before anybody opens it again."""
    channel = new_id()
    old_record(raw, channel, "old")
    assert {"old": channel} == await store.seen(channel, "old")
    assert {} == await store.seen(channel, "new")
    for waddle in ("old", "new") if first == "its own" else ("new", "old"):
        expected = channel if waddle == "old" else qualified_key("new", channel)
        assert expected == await store.names.claim(waddle, channel)


async def test_a_record_of_an_older_node_takes_an_id_that_was_only_claimed(
    store: Store, raw: redis.Redis
) -> None:
    """While nodes are upgraded: who finds another's record says so, and gets a key of their own."""
    channel = new_id()
    assert channel == await store.names.claim("a", channel)
    old_record(raw, channel, "old")
    assert qualified_key("a", channel) == await store.names.claim("a", channel, contested=True)
    assert channel == await store.names.claim("old", channel)


async def test_an_id_that_looks_like_a_key_is_never_one(store: Store) -> None:
    """So nobody has another's channel by choosing its key as their id."""
    channel = new_id()
    await store.open("x", channel)
    victim = await store.open("victim", channel)
    taken = await store.open("squatter", victim)
    assert taken == qualified_key("squatter", victim)
    assert {"squatter": taken} == await store.seen(victim)


async def test_what_an_older_node_keeps_under_a_waddles_key_is_not_the_waddles(
    store: Store, raw: redis.Redis
) -> None:
    """There, the key was an id that a tenant could choose."""
    channel = new_id()
    await store.open("a", channel)
    key = await store.names.claim("b", channel)
    old_record(raw, key, "squatter")
    assert {} == await store.seen(channel, "b")
    assert {"a": channel} == await store.seen(channel)


async def test_names_are_bounded_in_number_and_in_time(store: Store, raw: redis.Redis) -> None:
    """Of many waddles the latest are found; all keys expire; who comes again stays."""
    channel = new_id()
    await store.open("owner", channel)
    for n in range(FOUND_MOST + 3):
        await store.names.claim(f"w{n}", channel)
    found = await store.names.named(channel, None)
    assert FOUND_MOST + 1 == len(found)
    assert "w0" not in {one.waddle_id for one in found}
    assert ["w0"] == [o.waddle_id for o in await store.names.named(channel, ["w0"])]
    for key in (owner_key(channel), waddles_key(channel)):
        assert 0 < raw.pttl(key) <= DAY * 1000
    raw.zadd(waddles_key(channel), {"w0": 1})
    await store.names.claim("w1", channel)
    assert None is raw.zscore(waddles_key(channel), "w0")


async def test_a_damaged_record_is_an_error_in_its_place(store: Store, raw: redis.Redis) -> None:
    """And no reason why another waddle has no channel."""
    channel = new_id()
    await store.open("a", channel)
    own = await store.open("b", channel)
    raw.hset(channel_key(channel), "d", b"\xff{")
    found = {one.waddle_id: one for one in await store.names.named(channel, None)}
    assert isinstance(found["a"].stored, StoreError)
    assert own == found["b"].key
    assert is_stored(found["b"])
