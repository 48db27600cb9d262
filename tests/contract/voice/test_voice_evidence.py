"""The evidence of calls in Redis: timelines, calls of users, and what could not be verified."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from support.redis_servers import RedisServer
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice.evidence import Teller
from syncbridge.voice.records import ChannelRecord
from syncbridge.voice.timeline import TimelineEntry
from syncbridge.voice.verification import ALL, Unverified
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.evidence import (
    CALLS_MOST,
    PAGE,
    UNVERIFIED,
    RedisEvidence,
    user_key,
)
from syncbridge_server.redis.stores.voice import (
    TIMELINE_MOST,
    TIMELINE_TTL_MS,
    RedisChannels,
    bucket_keys,
    bucket_of,
    channel_key,
    timeline_key,
)

BARE: dict[str, Any] = {"due_at": None, "live": False}


class Store:
    """A node's channels and the evidence of their calls."""

    def __init__(self, io: RedisIO, bus: RedisBus) -> None:
        self.channels = RedisChannels(io, bus, "n", 3600.0)
        self.evidence = RedisEvidence(io)

    async def add(self, channel_id: str, *entries: TimelineEntry) -> int | None:
        stored = await self.channels.read(channel_id)
        record = ChannelRecord(channel_id)
        return await self.channels.write(stored, record, timeline=entries, **BARE)

    async def kept(self, channel_id: str, limit: int = 10_000, **more: str) -> list[TimelineEntry]:
        found, _ = await self.evidence.timeline(channel_id, limit, **more)
        return [entry for _, entry in found]


@pytest.fixture
async def store(server: RedisServer, raw: redis.Redis) -> AsyncIterator[Store]:
    raw.flushall()
    async with AsyncExitStack() as stack:
        io = await stack.enter_async_context(RedisIO(server.url, deadline=8.0).running())
        bus = await stack.enter_async_context(RedisBus(io, "n").running())
        yield Store(io, bus)


def entry(at: int, user: str = "ann", what: str = "joined") -> TimelineEntry:
    return TimelineEntry(at, Teller.WEBHOOK, what, user, ref=f"m{at}")


async def test_entries_are_kept_with_the_change(store: Store, raw: redis.Redis) -> None:
    """The latest first, in the slot of their channel, for a week after the last one."""
    await store.add("c{ä}", entry(1), entry(2))
    await store.add("c{ä}")
    await store.add("c{ä}", entry(3))

    assert [entry(3), entry(2), entry(1)] == await store.kept("c{ä}")
    key = timeline_key("c{ä}")
    assert key.startswith(channel_key("c{ä}").partition("}")[0])
    assert 0 < raw.pttl(key) <= TIMELINE_TTL_MS
    assert [] == await store.kept("another")


async def test_a_write_that_loses_keeps_no_entry(store: Store) -> None:
    """Nothing was changed, so nothing is told."""
    old = await store.channels.read("c")
    await store.add("c", entry(1))
    lost = await store.channels.write(old, old.record, timeline=[entry(2)], **BARE)

    assert lost is None
    assert [entry(1)] == await store.kept("c")


async def test_a_write_that_is_sent_again_keeps_its_entries_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an answer that was lost: the token of the write is the same."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "same")
    stored = await store.channels.read("c")
    answers = [
        await store.channels.write(stored, stored.record, timeline=[entry(1)], **BARE)
        for _ in range(2)
    ]

    assert answers[0] is not None
    assert answers[0] == answers[1]
    assert [entry(1)] == await store.kept("c")


async def test_a_timeline_is_bounded(store: Store) -> None:
    """The oldest make room, a node of the stream at a time."""
    for start in range(0, 1_000, 100):
        await store.add("c", *(entry(start + number) for number in range(100)))
    kept = await store.kept("c")

    assert TIMELINE_MOST <= len(kept) < TIMELINE_MOST + 100
    assert [entry(999), entry(998)] == kept[:2]


async def test_a_timeline_is_read_in_pages(store: Store) -> None:
    """Each entry once, also those of one user; what is about the whole call is everybody's."""
    whole = TimelineEntry(0, Teller.PROVIDER, "opened")
    users = ["ann", "bob", "cleo"]
    await store.add("c", whole, *(entry(n + 1, users[n % 3]) for n in range(2 * PAGE)))
    found, cursor, pages = list[TimelineEntry](), "", 0
    while True:
        page, cursor = await store.evidence.timeline("c", 50, cursor, "bob")
        found += [one for _, one in page]
        pages += 1
        if not cursor:
            break
    every = await store.kept("c")

    assert [one for one in every if one.user_id in ("", "bob")] == found
    assert (2 * PAGE + 1, whole) == (len(every), found[-1])
    assert pages > 1
    with pytest.raises(SyncBridgeError) as refused:
        await store.evidence.timeline("c", 50, "nonsense")
    assert refused.value.code is ErrorCode.INVALID_FIELD


async def test_an_entry_that_cannot_be_read_is_left_out(store: Store, raw: redis.Redis) -> None:
    """Junk, and an entry without its field; a key of another type begins anew."""
    await store.add("c", entry(1))
    raw.xadd(timeline_key("c"), {"e": "junk"})
    raw.xadd(timeline_key("c"), {"x": "y"})
    await store.add("c", entry(2))
    assert [entry(2), entry(1)] == await store.kept("c")

    raw.set(timeline_key("c"), "not this")
    assert [] == await store.kept("c")
    raw.set(timeline_key("c"), "not this")
    assert await store.add("c", entry(3))
    assert [entry(3)] == await store.kept("c")


async def test_calls_of_a_user_are_noted(store: Store, raw: redis.Redis) -> None:
    """The latest first, so many, with the latest time; each user's apart."""
    calls = [("ann", f"c{number}", 1_000 + number) for number in range(CALLS_MOST + 5)]
    await store.evidence.note_calls([*calls, ("bob", "c1", 7)])
    await store.evidence.note_calls([("ann", "c50", 9_000), ("ann", "c51", 3)])
    await store.evidence.forget_calls("ann", ["c60", "never"])
    found = await store.evidence.calls_of("ann")

    assert ("c50", 9_000) == found[0]
    assert CALLS_MOST - 1 == len(found)
    assert ("c51", 1_051) in found
    assert not {"c0", "c60"} & {channel_id for channel_id, _ in found}
    assert [("c1", 7)] == await store.evidence.calls_of("bob")
    assert raw.pttl(user_key("ann")) > 0


async def test_a_damaged_index_begins_anew(store: Store, raw: redis.Redis) -> None:
    """It is made out of the channels: the others of the same note are written."""
    raw.set(user_key("ann"), "not this")
    await store.evidence.note_calls([("ann", "c", 1), ("bob", "c", 1)])
    assert [("c", 1)] == await store.evidence.calls_of("bob")
    assert [("c", 1)] == await store.evidence.calls_of("ann")
    raw.set(user_key("ann"), "not this")
    assert [] == await store.evidence.calls_of("ann")


async def test_what_is_unverified_is_replaced(store: Store, raw: redis.Redis) -> None:
    """Of a channel, or of all of them, whichever has lasted longer; damage is nothing noted."""
    evidence = store.evidence
    await evidence.note_unverified({"a": Unverified(1, 5, "empty"), "b": Unverified(2, 5, "x")})
    await evidence.note_unverified({"a": Unverified(3, 5, "empty"), ALL: Unverified(2, 9, "list")})
    found = [await evidence.unverified(one) for one in ("a", "b")]

    assert [Unverified(3, 5, "empty"), Unverified(2, 9, "list")] == found
    assert {"a", ALL} == set(await evidence.all_unverified())
    raw.hset(UNVERIFIED, "a", "junk")
    assert Unverified(2, 9, "list") == await evidence.unverified("a")
    raw.set(UNVERIFIED, "not this")
    assert (None, {}) == (await evidence.unverified("a"), await evidence.all_unverified())
    await evidence.note_unverified({})
    assert {} == await evidence.all_unverified()


async def test_live_channels_are_listed_in_pages(store: Store, raw: redis.Redis) -> None:
    """Each once, in an order that stays while others come and go; a damaged bucket is left out."""
    ids = [f"channel-{number}" for number in range(60)]
    for channel_id in ids:
        stored = await store.channels.read(channel_id)
        await store.channels.write(stored, stored.record, due_at=None, live=True)
    found, cursor = list[str](), ""
    while page := await store.channels.live_page(7, cursor):
        found += page
        cursor = page[-1]
        stored = await store.channels.read(page[0])
        await store.channels.write(stored, stored.record, due_at=None, live=True)
    assert (sorted(ids), len(ids)) == (sorted(found), len(found))

    bad = bucket_of(ids[0])
    raw.set(bucket_keys(bad)[1], "not this")
    rest = await store.channels.live_page(100)
    assert [channel_id for channel_id in found if bucket_of(channel_id) != bad] == rest
