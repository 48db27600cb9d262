"""Voice channels in Redis: one winner, news in order, claims and locks that exclude."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis
import trio

from support.redis_servers import RedisServer, until
from syncbridge.errors import ErrorCode, StoreUnavailable
from syncbridge.records.sessions import Notice
from syncbridge.voice.records import ChannelRecord, Final, Room
from syncbridge.voice.stored import ChannelNews, Due, Stored
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.voice import (
    BUCKETS,
    FINALS_MOST,
    NEWS,
    ChannelDamaged,
    RedisChannels,
    bucket_keys,
    bucket_of,
    channel_key,
    finals_key,
    keys_of,
    lock_key,
    session_key,
)

DAY = 86_400.0
BARE: dict[str, Any] = {"due_at": None, "live": False}


class Node:
    """A node's channels, and the news that it got."""

    def __init__(self, name: str, io: RedisIO, bus: RedisBus) -> None:
        self.name = name
        self.io = io
        self.bus = bus
        self.channels = RedisChannels(io, bus, name, DAY)
        self.news: list[ChannelNews] = []
        self.channels.on_news(self.news.append)


@pytest.fixture
async def nodes(server: RedisServer, raw: redis.Redis) -> AsyncIterator[list[Node]]:
    """Two nodes on an empty Redis."""
    raw.flushall()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("n1", "n2"):
            io = await stack.enter_async_context(RedisIO(server.url, deadline=8.0).running())
            bus = await stack.enter_async_context(RedisBus(io, name).running())
            made.append(Node(name, io, bus))
        yield made


@pytest.fixture
def channels(nodes: list[Node]) -> RedisChannels:
    return nodes[0].channels


def new_id() -> str:
    return f"{uuid.uuid4().hex[:8]}-{{ä}}"


def final(channel_id: str, generation: int) -> Final:
    return Final(channel_id, "w", "s", generation, 1, 2, "ended")


async def made(channels: RedisChannels, **options: Any) -> Stored:
    """A new channel as it is read after its first write."""
    channel_id = new_id()
    stored = await channels.read(channel_id)
    assert await channels.write(stored, ChannelRecord(channel_id), **{**BARE, **options})
    return await channels.read(channel_id)


async def test_what_is_written_is_read(channels: RedisChannels) -> None:
    """A whole record; revisions of a channel follow each other, from far above 0."""
    channel_id = new_id()
    room = Room(1, "key", 5, session_id="s")
    record = ChannelRecord(channel_id, "w", room=room, uses=[1], last_error="ä\n")
    empty = await channels.read(channel_id)
    first = await channels.write(empty, record, **BARE)
    again = await channels.read(channel_id)
    second = await channels.write(again, again.record, **BARE)
    many = await channels.read_many([channel_id, "none", channel_id])

    assert Stored(ChannelRecord(channel_id), 0) == empty
    assert first is not None
    assert second == first + 1
    assert again == Stored(record, first)
    held = Stored(record, second)
    assert [held, Stored(ChannelRecord("none"), 0), held] == many
    assert [] == await channels.read_many([])


async def test_a_write_of_what_is_not_read_any_more_changes_nothing(
    channels: RedisChannels, raw: redis.Redis
) -> None:
    """None, for a record that is old, or that is gone, or that has come meanwhile."""
    old = await made(channels, due_at=7, live=True)
    channel_id = old.record.channel_id
    await channels.write(old, old.record, due_at=7, live=True)
    before = [raw.dump(key) for key in keys_of(channel_id)]
    other = ChannelRecord(channel_id, "other")
    late = {"due_at": 1, "live": False, "news": [{"type": "x"}], "finals": [final(channel_id, 1)]}
    answers = [
        await channels.write(old, other, **late),
        await channels.write(Stored(other, 0), other, **late),
        await channels.delete(old),
    ]

    assert [None, None, False] == answers
    assert before == [raw.dump(key) for key in keys_of(channel_id)]
    assert [] == await channels.finals(channel_id, 9)


async def test_of_two_nodes_one_wins(nodes: list[Node]) -> None:
    """Both count a channel up 40 times, each after reading: no count is lost."""
    channel_id = new_id()

    async def count(node: Node) -> None:
        done = 0
        while done < 40:
            stored = await node.channels.read(channel_id)
            record = stored.record
            record.migrations += 1
            if await node.channels.write(stored, record, **BARE) is not None:
                done += 1

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(count, node)

    assert 80 == (await nodes[0].channels.read(channel_id)).record.migrations


async def test_every_node_gets_the_news_in_the_order_of_revisions(nodes: list[Node]) -> None:
    """The writer's node too; a write without events is told as well."""
    one, two = nodes
    channel_id = new_id()
    events: list[list[dict[str, Any]]] = [[{"type": "a", "ä": '"revision":'}], [], [{"type": "b"}]]
    expected = []
    for number in range(30):
        node, told = nodes[number % 2], events[number % 3]
        stored = await node.channels.read(channel_id)
        revision = await node.channels.write(stored, stored.record, **BARE, news=told)
        assert revision is not None
        expected.append(ChannelNews(channel_id, revision, node.name, told))
    await until(lambda: len(one.news) == len(two.news) == 30)

    assert expected == one.news == two.news


async def test_a_deleted_channel_is_told_and_never_has_a_revision_again(nodes: list[Node]) -> None:
    """The news have the next revision; the channel's next life begins above it."""
    node, other = nodes
    stored = await made(node.channels, due_at=7, live=True)
    channel_id = stored.record.channel_id
    assert await node.channels.delete(stored)
    gone = await node.channels.read(channel_id)
    await until(lambda: len(other.news) == 2)

    assert 0 == gone.revision
    assert [] == await node.channels.claim_due(100, 10, 10)
    assert 0 == await node.channels.live_count()
    assert ChannelNews(channel_id, stored.revision + 1, node.name) == other.news[1]
    assert await node.channels.delete(gone)
    assert await node.channels.write(stored, stored.record, **BARE) is None
    following = await node.channels.write(gone, gone.record, **BARE)
    assert following is not None
    assert following > stored.revision + 1


async def test_a_write_that_is_sent_twice_is_done_once(
    nodes: list[Node], channels: RedisChannels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection breaks before the answer: the same revision, and one piece of news."""
    io, sent = nodes[0].io, []
    plain = io.script

    async def twice(name: str, keys: Any, args: Any, *, repeatable: bool = False) -> Any:
        sent.append(repeatable)
        first = await plain(name, keys, args)
        assert first == await plain(name, keys, args)
        return first

    monkeypatch.setattr(io, "script", twice)
    channel_id = new_id()
    stored = await channels.read(channel_id)
    revision = await channels.write(
        stored, stored.record, **BARE, news=[{"type": "a"}], finals=[final(channel_id, 1)]
    )
    await nodes[1].channels.write(
        await channels.read(channel_id), stored.record, **BARE, news=[{"type": "end"}]
    )
    await until(lambda: len(nodes[1].news) >= 2)

    assert [True] == sent
    assert [revision, (revision or 0) + 1] == [news.revision for news in nodes[1].news]
    assert 1 == len(await channels.finals(channel_id, 9))


async def test_due_channels_are_claimed_once_and_again_after_the_lease(nodes: list[Node]) -> None:
    """The longest waiting first over all buckets, and nobody else's while the lease runs."""
    one, two = nodes[0].channels, nodes[1].channels
    ids = [(await made(one, due_at=at, live=True)).record.channel_id for at in range(30, 0, -1)]
    ids.reverse()
    await made(one, due_at=1000)
    first = await one.claim_due(25, 100, 10)
    second = await two.claim_due(25, 100, 100)
    third = await one.claim_due(124, 100, 100)
    fourth = await two.claim_due(125, 100, 1)

    assert [Due(i, at) for at, i in enumerate(ids[:10], 1)] == first
    assert [Due(i, at) for at, i in enumerate(ids[10:25], 11)] == second
    assert [Due(i, at) for at, i in enumerate(ids[25:], 26)] == third
    assert [Due(min(ids[:25]), 125)] == fourth
    assert [] == await one.claim_due(100, 100, 0)


async def test_two_nodes_never_claim_the_same(nodes: list[Node]) -> None:
    """Both at once, several times over: every channel once."""
    ids = {(await made(nodes[0].channels, due_at=at)).record.channel_id for at in range(60)}
    claimed: list[str] = []

    async def claim(node: Node) -> None:
        for _ in range(12):
            claimed.extend(due.channel_id for due in await node.channels.claim_due(99, 100, 7))

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(claim, node)

    assert sorted(ids) == sorted(claimed)


async def test_a_write_sets_or_takes_back_when_the_channel_is_due(channels: RedisChannels) -> None:
    """Also of one that is claimed."""
    stored = await made(channels, due_at=5)
    channel_id = stored.record.channel_id
    assert [Due(channel_id, 5)] == await channels.claim_due(5, 1000, 9)
    await channels.write(stored, stored.record, due_at=6, live=False)
    again = await channels.claim_due(6, 1000, 9)
    stored = await channels.read(channel_id)
    await channels.write(stored, stored.record, **BARE)

    assert [Due(channel_id, 6)] == again
    assert [] == await channels.claim_due(10_000, 1, 9)


async def test_live_channels_are_all_listed(channels: RedisChannels) -> None:
    """More than a page of them; one that is not live any more leaves the list."""
    many = [await made(channels, live=n % 3 > 0) for n in range(60)]
    channel_id = many[1].record.channel_id
    await channels.write(many[1], many[1].record, **BARE)
    expected = {s.record.channel_id for n, s in enumerate(many) if n % 3} - {channel_id}
    listed = [channel_id async for page in channels.live() for channel_id in page]

    assert sorted(expected) == sorted(listed)
    assert len(expected) == await channels.live_count()


async def test_a_large_bucket_is_listed_page_by_page(
    channels: RedisChannels, raw: redis.Redis
) -> None:
    """No page holds much more than was asked for, and together they hold everything."""
    raw.zadd(bucket_keys(3)[1], {f"c{n}": 9e15 for n in range(3000)})
    pages = [page async for page in channels.live()]

    assert {f"c{n}" for n in range(3000)} == {channel_id for page in pages for channel_id in page}
    assert len(pages) > 5
    assert max(map(len, pages)) < 1000
    assert 3000 == await channels.live_count()
    async for page in channels.live():
        assert page == pages[0]
        break  # given up: nothing is left open


async def test_finals_are_kept_latest_first_within_their_bound(
    channels: RedisChannels, raw: redis.Redis
) -> None:
    """The earliest make room; they are not kept for ever, and outlive the channel."""
    stored = await made(channels)
    channel_id = stored.record.channel_id
    first = [final(channel_id, n) for n in range(FINALS_MOST)]
    await channels.write(stored, stored.record, **BARE, finals=first)
    stored = await channels.read(channel_id)
    more = [final(channel_id, n) for n in (500, 501)]
    await channels.write(stored, stored.record, **BARE, finals=more)
    await channels.delete(await channels.read(channel_id))
    kept = await channels.finals(channel_id, 1000)

    assert [*reversed(more), *reversed(first[2:])] == kept
    assert [more[1]] == await channels.finals(channel_id, 1)
    assert [] == await channels.finals(channel_id, 0)
    assert 0 < raw.pttl(finals_key(channel_id)) <= 30 * DAY * 1000


async def test_writes_and_claims_renew_the_life(channels: RedisChannels, raw: redis.Redis) -> None:
    """Of the channel and of its place among the live ones."""
    stored = await made(channels, due_at=1, live=True)
    key, _, live = keys_of(stored.record.channel_id)
    for renew in ("claim", "write"):
        raw.pexpire(key, 5_000)
        raw.zadd(live, {stored.record.channel_id: 9e14})
        if renew == "claim":
            assert 1 == len(await channels.claim_due(1, 10, 1))
        else:
            await channels.write(stored, stored.record, due_at=1, live=True)
        assert abs(raw.pttl(key) - DAY * 1000) < 60_000
        forget = raw.zscore(live, stored.record.channel_id)
        assert forget is not None
        assert abs(int(forget) - raw.time()[0] * 1000 - DAY * 1000) < 60_000


async def test_a_forgotten_channel_leaves_the_indexes(nodes: list[Node], raw: redis.Redis) -> None:
    """Whoever would claim it takes it out; a write in its bucket takes it from the live ones."""
    brief = RedisChannels(nodes[0].io, RedisBus(nodes[0].io, "n3"), "n3", 0.05)
    gone = await made(brief, due_at=1, live=True)
    other = await made(brief, due_at=None, live=True)
    await until(lambda: not raw.exists(channel_key(gone.record.channel_id)))
    await until(lambda: not raw.exists(channel_key(other.record.channel_id)))
    assert 2 == await brief.live_count()
    assert [] == await brief.claim_due(1, 10, 10)
    assert 1 == await brief.live_count()
    back = await brief.read(other.record.channel_id)
    await nodes[1].channels.write(back, back.record, **BARE)

    assert 0 == back.revision
    assert 0 == await brief.live_count()
    assert all(not raw.exists(bucket_keys(bucket)[0]) for bucket in range(BUCKETS))


async def test_the_channel_of_a_session(channels: RedisChannels, raw: redis.Redis) -> None:
    """Known to all nodes; asking for it renews its life."""
    session_id, channel_id = f"s {uuid.uuid4()}", new_id()
    before = await channels.channel_of(session_id)
    await channels.note_session(session_id, channel_id)
    raw.pexpire(session_key(session_id), 5_000)

    assert before is None
    assert channel_id == await channels.channel_of(session_id)
    assert raw.pttl(session_key(session_id)) > 60_000


def scripts_run(raw: redis.Redis) -> int:
    """How many scripts this server has run."""
    return int(raw.info("commandstats")["cmdstat_evalsha"]["calls"])


async def test_a_lock_excludes_until_it_is_released(nodes: list[Node], raw: redis.Redis) -> None:
    """From the same purpose of the same channel alone; who waits gets it after the release."""
    one, two = nodes[0].channels, nodes[1].channels
    order = []

    async def waits() -> None:
        async with two.lock("c", "open", 60_000, 20_000) as got:
            order.append(("second", bool(got)))

    async with trio.open_nursery() as nursery:
        async with one.lock("c", "open", 60_000, 0) as got:
            async with two.lock("c", "open", 60_000, 30) as refused:
                pass
            async with (
                two.lock("c", "end", 60_000, 0) as end,
                two.lock("d", "open", 60_000, 0) as d,
            ):
                pass
            asked = scripts_run(raw)
            nursery.start_soon(waits)
            await until(lambda: scripts_run(raw) >= asked + 2)
            order.append(("first", bool(got)))

    assert [False, True, True] == [bool(each) for each in (refused, end, d)]
    assert [("first", True), ("second", True)] == order
    assert not raw.exists(lock_key("c", "open"))


async def test_a_lock_is_released_by_its_holder_alone(nodes: list[Node], raw: redis.Redis) -> None:
    """Over by itself; one who is late does not release that of the next."""
    one, two = nodes[0].channels, nodes[1].channels
    key = lock_key("c", "open")
    first = one.lock("c", "open", 60_000, 0)
    got = [await first.__aenter__()]
    raw.pexpire(key, 1)
    async with two.lock("c", "open", 60_000, 10_000) as second:
        holder = raw.get(key)
        async with one.lock("c", "open", 60_000, 0) as third:
            got += [second, third]
        await first.__aexit__(None, None, None)
        assert holder is not None
        assert holder == raw.get(key)
        assert 0 < raw.pttl(key) <= 60_000

    assert [True, True, False] == [bool(each) for each in got]
    assert not raw.exists(key)


async def test_a_lock_is_kept_by_its_holder_alone(nodes: list[Node], raw: redis.Redis) -> None:
    """To keep it, and to find that it is somebody's, takes no script."""
    one, two = nodes[0].channels, nodes[1].channels
    key = lock_key("c", "open")
    async with one.lock("c", "open", 1_000, 0) as first:
        assert first is not None
        asked = scripts_run(raw)
        assert await first.keep(60_000)
        assert 1_000 < raw.pttl(key) <= 60_000
        async with two.lock("c", "open", 60_000, 0) as refused:
            assert refused is None
        assert asked == scripts_run(raw)
        raw.delete(key)
        assert not await first.keep(60_000)
        async with two.lock("c", "open", 60_000, 0) as second:
            assert second is not None
            assert not await first.keep(60_000)
            assert await second.keep(60_000)


async def test_a_lock_is_given_back_when_its_block_fails_or_is_cancelled(
    channels: RedisChannels, raw: redis.Redis
) -> None:
    """The error goes on, and the lock is free."""
    with pytest.raises(KeyError):
        async with channels.lock("c", "open", 60_000, 0):
            raise KeyError
    with trio.CancelScope() as scope:
        async with channels.lock("c", "open", 60_000, 0):
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not raw.exists(lock_key("c", "open"))


@pytest.mark.parametrize("damage", [b"", b"junk", b'{"channel_id":"another"}', b"[1]"])
async def test_a_damaged_record_is_told_and_stays(
    channels: RedisChannels, raw: redis.Redis, damage: bytes
) -> None:
    """A typed error, and nobody writes over it."""
    stored = await made(channels)
    channel_id = stored.record.channel_id
    raw.hset(channel_key(channel_id), "d", damage)
    with pytest.raises(ChannelDamaged) as caught:
        await channels.read(channel_id)
    refused = await channels.write(Stored(ChannelRecord(channel_id), 0), stored.record, **BARE)

    assert ErrorCode.STATE_DAMAGED is caught.value.code
    assert refused is None
    assert damage == raw.hget(channel_key(channel_id), "d")


@pytest.mark.parametrize("fields", [{"d": b"{}"}, {"r": b"x", "d": b"{}"}, {"r": b"5"}])
async def test_a_hash_without_its_parts_is_damaged(
    channels: RedisChannels, raw: redis.Redis, fields: dict[str, bytes]
) -> None:
    """Neither a revision nor a record is made up. A damaged final is left out of the list."""
    channel_id = new_id()
    raw.hset(channel_key(channel_id), mapping=fields)  # type: ignore[arg-type]
    raw.lpush(finals_key(channel_id), b"junk")
    with pytest.raises(ChannelDamaged):
        await channels.read(channel_id)
    assert [] == await channels.finals(channel_id, 1)


@pytest.mark.parametrize("place", range(4))
async def test_a_key_of_another_type_stops_a_write_before_it_begins(
    channels: RedisChannels, raw: redis.Redis, place: int
) -> None:
    """Refused with Redis's code; nothing has changed."""
    stored = await made(channels, due_at=3, live=True)
    channel_id = stored.record.channel_id
    keys = [*keys_of(channel_id), finals_key(channel_id)]
    raw.set(keys[place], "not this")
    before = [raw.dump(key) for key in keys]
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await channels.write(stored, stored.record, due_at=4, live=False, finals=[final("c", 1)])

    assert before == [raw.dump(key) for key in keys]


async def test_a_damaged_bucket_does_not_stop_the_others(
    channels: RedisChannels, raw: redis.Redis
) -> None:
    """What is due elsewhere is claimed, and what is live there is listed and counted."""
    stored = await made(channels, due_at=3, live=True)
    channel_id = stored.record.channel_id
    bad = (bucket_of(channel_id) + 1) % BUCKETS
    for key in bucket_keys(bad):
        raw.set(key, "not this")

    assert [Due(channel_id, 3)] == await channels.claim_due(3, 10, 10)
    assert [[channel_id]] == [page async for page in channels.live()]
    assert await channels.live_count() == 1


async def test_news_that_cannot_be_read_are_passed_over(nodes: list[Node]) -> None:
    """A node of another release may say what we do not know; what follows arrives."""
    node = nodes[0]
    node.bus.tell("*", Notice(NEWS, "", b"{}"))
    await made(node.channels)
    await until(lambda: len(node.news) == 1)
