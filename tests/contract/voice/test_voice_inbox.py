"""The inbox of webhooks in Redis: kept once, taken by one, never lost."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis
import trio

from support.redis_servers import RedisServer, until
from syncbridge.errors import ErrorCode, StoreOverloaded, StoreUnavailable, SyncBridgeError
from syncbridge.voice.stored import WebhookDelivery
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.inbox import (
    DEAD,
    GROUP,
    SEEN,
    TOLD,
    WAITING,
    RedisInbox,
    is_entry,
)

HOUR = 3_600_000


class Node:
    """A node's inbox, and how often it was told of arrivals."""

    def __init__(self, name: str, io: RedisIO, bus: RedisBus) -> None:
        self.name = name
        self.io = io
        self.bus = bus
        self.inbox = self.another()
        self.told = 0
        self.inbox.on_arrival(self._on_arrival)

    def another(self, **options: Any) -> RedisInbox:
        """An inbox as of a process that was started again."""
        return RedisInbox(self.io, self.bus, self.name, **options)

    def _on_arrival(self) -> None:
        self.told += 1


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
def inbox(nodes: list[Node]) -> RedisInbox:
    return nodes[0].inbox


def delivery(delivery_id: str = "", body: bytes = b"{}") -> WebhookDelivery:
    return WebhookDelivery(delivery_id or uuid.uuid4().hex, body, 1_700_000_000_000)


def ids(deliveries: list[WebhookDelivery]) -> list[str]:
    return [one.delivery_id for one in deliveries]


async def filled(inbox: RedisInbox, count: int) -> list[str]:
    """Ids of deliveries that now wait."""
    sent = [delivery() for _ in range(count)]
    for one in sent:
        assert await inbox.put(one)
    return ids(sent)


async def test_what_is_put_is_taken_whole(inbox: RedisInbox) -> None:
    """Any bytes, in the order of arrival; it waits until it is done."""
    sent = [delivery("ä b", b"\x00\xff\r\n"), delivery(body=b"")]
    assert [True, True] == [await inbox.put(one) for one in sent]
    taken = await inbox.take(10, HOUR)

    assert [(s.delivery_id, s.body, s.received_at, 1) for s in sent] == [
        (t.delivery_id, t.body, t.received_at, t.attempts) for t in taken
    ]
    assert 2 == await inbox.waiting()
    await inbox.done(taken[:1])
    assert 1 == await inbox.waiting()
    await inbox.done(taken)
    await inbox.done([])
    assert 0 == await inbox.waiting()
    assert [] == await inbox.take(10, 0)


async def test_an_empty_inbox(inbox: RedisInbox) -> None:
    """Nothing is there before the first delivery, and asking for nothing gives nothing."""
    assert [] == await inbox.take(10, 0)
    assert 0 == await inbox.waiting()
    assert ([], "") == await inbox.dead(10)
    await filled(inbox, 1)
    assert [] == await inbox.take(0, 0)


async def test_a_repetition_is_known(nodes: list[Node], raw: redis.Redis) -> None:
    """On any node, after a restart, while it waits and after it took effect or died."""
    one, two = nodes
    sent = delivery("d")
    answers = [await one.inbox.put(sent), await two.inbox.put(delivery("d", b"other"))]
    answers.append(await one.another().put(sent))
    await one.inbox.done(await one.inbox.take(1, HOUR))
    answers.append(await two.another().put(sent))
    await two.inbox.put(delivery("e"))
    await two.inbox.bury((await two.inbox.take(1, HOUR))[0], "x")
    answers.append(await one.another().put(delivery("e")))

    assert [True, False, False, False, False] == answers
    assert 0 == await one.inbox.waiting()
    assert 2 * 86_400_000 < raw.pttl(SEEN) <= 3 * 86_400_000


async def test_of_one_delivery_sent_at_once_one_is_kept(nodes: list[Node]) -> None:
    """Twenty at a time over two nodes."""
    answers = []

    async def put(node: Node) -> None:
        answers.append(await node.inbox.put(delivery("same")))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(put, nodes[number % 2])

    assert [False] * 19 + [True] == sorted(answers)
    assert ["same"] == ids(await nodes[0].inbox.take(10, HOUR))


async def test_ids_are_forgotten_by_age_and_number(nodes: list[Node], raw: redis.Redis) -> None:
    """The oldest make room, and after their time they are unknown."""
    few = nodes[0].another(most_ids=3)
    for name in "abcd":
        await few.put(delivery(name))
    assert 3 == raw.zcard(SEEN)
    assert [False, True] == [await few.put(delivery("d")), await few.put(delivery("a"))]

    aged = {
        member: score - 4 * 86_400_000_000 for member, score in raw.zrange(SEEN, 0, -1, False, True)
    }
    raw.zadd(SEEN, aged)
    await nodes[0].inbox.put(delivery("z"))
    assert 1 == raw.zcard(SEEN)


async def test_two_nodes_share_the_work(nodes: list[Node]) -> None:
    """Every delivery once."""
    sent = await filled(nodes[0].inbox, 50)
    taken: list[str] = []

    async def work(node: Node) -> None:
        while batch := await node.inbox.take(3, HOUR):
            taken.extend(ids(batch))
            await node.inbox.done(batch)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(work, node)

    assert sorted(sent) == sorted(taken)
    assert 0 == await nodes[0].inbox.waiting()


async def test_what_a_node_took_and_lost_is_taken_over(nodes: list[Node]) -> None:
    """Not before it has been idle, then once, with its attempts counted; before new ones."""
    one, two = nodes
    lost = await filled(one.inbox, 3)
    await one.inbox.take(3, HOUR)
    new = await filled(one.inbox, 2)
    early = await two.inbox.take(1, HOUR)
    over = await two.inbox.take(4, 0)
    third = await one.inbox.take(9, 0)
    await one.inbox.done(third)

    assert new[:1] == ids(early)
    assert [*lost, *new[:1]] == ids(over)
    assert [2, 2, 2, 2] == [t.attempts for t in over]
    assert [*lost, *new] == ids(third)
    assert [3, 3, 3, 3, 1] == [t.attempts for t in third]
    assert 0 == await two.inbox.waiting()


async def test_a_node_gets_what_it_did_not_finish_itself(inbox: RedisInbox) -> None:
    """A failed attempt needs no word: it comes again."""
    sent = await filled(inbox, 1)
    attempts = [[(t.delivery_id, t.attempts) for t in await inbox.take(5, 0)] for _ in range(3)]

    assert [[(sent[0], n)] for n in (1, 2, 3)] == attempts


async def test_an_entry_that_was_removed_is_not_taken(inbox: RedisInbox, raw: redis.Redis) -> None:
    """Somebody deleted it behind our back: nobody waits for it, and it keeps nobody back."""
    await filled(inbox, 2)
    first, second = await inbox.take(2, HOUR)
    raw.xdel(WAITING, first.entry)

    assert [second.entry] == [t.entry for t in await inbox.take(2, 0)]
    assert 1 == raw.xpending(WAITING, GROUP)["pending"]


@pytest.mark.parametrize("loss", ["group", "scripts", "everything"])
async def test_nothing_that_waits_is_lost_with_the_group(
    inbox: RedisInbox, raw: redis.Redis, loss: str
) -> None:
    """The group is made anew from the first entry; what took effect does not come back."""
    sent = await filled(inbox, 4)
    taken = await inbox.take(2, HOUR)
    await inbox.done(taken[:1])
    if loss == "group":
        raw.xgroup_destroy(WAITING, GROUP)
    elif loss == "scripts":
        raw.script_flush()
    else:
        raw.flushall()
        sent = [sent[0], *await filled(inbox, 3)]
    again = await inbox.take(9, 0)

    assert sent[1:] == ids(again)
    await inbox.done(again)
    assert 0 == await inbox.waiting()


async def test_too_many_wait(nodes: list[Node], raw: redis.Redis) -> None:
    """StoreOverloaded at the bound; a repetition is known all the same, and room comes back."""
    small = nodes[0].another(most_waiting=2)
    sent = await filled(small, 2)
    extra = delivery()
    with pytest.raises(StoreOverloaded) as caught:
        await small.put(extra)
    assert not await small.put(delivery(sent[0]))
    await small.done(await small.take(1, HOUR))

    assert ErrorCode.OVERLOADED is caught.value.code
    assert await small.put(extra)
    assert 2 == raw.xlen(WAITING)


async def test_a_dead_letter_is_kept_until_it_is_replayed(nodes: list[Node]) -> None:
    """It does not wait any more; replayed it is as new, in spite of its id."""
    one, two = nodes
    await one.inbox.put(delivery("d", b"body\n"))
    taken = (await one.inbox.take(1, HOUR))[0]
    await one.inbox.bury(taken, "no such channel " + "x" * 500)
    await one.inbox.bury(taken, "again")
    letters, cursor = await two.inbox.dead(10)
    waiting = await one.inbox.waiting()
    answers = [await two.inbox.replay(letters[0].entry) for _ in range(2)]
    back = await two.inbox.take(10, HOUR)

    assert [("d", b"body\n", taken.received_at)] == [
        (x.delivery_id, x.body, x.received_at) for x in letters
    ]
    assert letters[0].reason.startswith("no such channel x")
    assert len(letters[0].reason) == 200
    assert abs(letters[0].failed_at - int(taken.entry.partition("-")[0])) < 60_000
    assert ("", 0) == (cursor, waiting)
    assert [True, False] == answers
    assert [("d", b"body\n", 1)] == [(t.delivery_id, t.body, t.attempts) for t in back]
    assert ([], "") == await one.inbox.dead(10)


async def test_what_another_node_has_finished_is_not_buried(nodes: list[Node]) -> None:
    """It took effect: there is nothing to report."""
    one, two = nodes
    await filled(one.inbox, 1)
    mine = await one.inbox.take(1, HOUR)
    await two.inbox.done(await two.inbox.take(1, 0))
    await one.inbox.bury(mine[0], "late")

    assert ([], "") == await one.inbox.dead(10)


async def buried(node: Node, count: int, **options: Any) -> list[str]:
    """Ids of dead letters, the oldest first."""
    inbox = node.another(**options)
    sent = await filled(inbox, count)
    for one in await inbox.take(count, HOUR):
        await inbox.bury(one, "bad")
    return sent


async def test_dead_letters_in_pages(nodes: list[Node]) -> None:
    """The latest first; any size of a page walks through all of them."""
    sent = await buried(nodes[0], 7)
    for limit in (1, 3, 7, 100):
        walk, cursor, pages = [], "", 0
        while pages == 0 or cursor:
            letters, cursor = await nodes[1].inbox.dead(limit, cursor)
            assert 0 < len(letters) <= limit
            walk += [letter.delivery_id for letter in letters]
            pages += 1
        assert sent[::-1] == walk
        assert pages == -(-7 // limit)


async def test_dead_letters_are_bounded_and_discarded(nodes: list[Node]) -> None:
    """The oldest make room; one that is discarded is gone, and cannot be replayed."""
    sent = await buried(nodes[0], 6, most_dead=4)
    inbox = nodes[1].inbox
    letters, _ = await inbox.dead(10)
    entry = letters[0].entry

    assert sent[:1:-1] == [letter.delivery_id for letter in letters]
    assert [True, False] == [await inbox.discard(entry), await inbox.discard(entry)]
    assert not await inbox.replay(entry)
    assert 3 == len((await inbox.dead(10))[0])


async def test_a_replay_needs_room(nodes: list[Node]) -> None:
    """The letter stays a letter when too many wait."""
    await buried(nodes[0], 1)
    small = nodes[0].another(most_waiting=1)
    await filled(small, 1)
    letter = (await small.dead(1))[0][0]
    with pytest.raises(StoreOverloaded):
        await small.replay(letter.entry)

    assert [letter] == (await small.dead(1))[0]


@pytest.mark.parametrize(
    "entry", ["", "x", "1", "1-", "-1", "1-x", "1-2-3", "+", "(1-1", "²-1", f"{2**64}-0", "9" * 30]
)
async def test_what_is_no_entry(inbox: RedisInbox, entry: str) -> None:
    """There is no such letter, and no such page."""
    assert not is_entry(entry)
    assert [False, False] == [await inbox.replay(entry), await inbox.discard(entry)]
    if entry:
        with pytest.raises(SyncBridgeError) as caught:
            await inbox.dead(1, entry)
        assert ErrorCode.INVALID_FIELD is caught.value.code


async def test_every_node_is_told_of_arrivals(nodes: list[Node], raw: redis.Redis) -> None:
    """Once for a burst; again for what comes after the end was seen, and for a replay."""
    one, two = nodes
    await filled(one.inbox, 20)
    await until(lambda: one.told >= 1 and two.told >= 1)
    raw.persist(TOLD)
    first = await two.inbox.take(20, HOUR)  # 20 of 20: whether more follow is not known
    assert raw.exists(TOLD)
    assert [] == await two.inbox.take(20, HOUR)
    assert not raw.exists(TOLD)
    told = one.told
    await filled(two.inbox, 1)
    await until(lambda: one.told == told + 1)
    await two.inbox.take(2, HOUR)
    await two.inbox.bury(first[0], "x")
    await one.inbox.replay((await one.inbox.dead(1))[0][0].entry)
    await until(lambda: one.told == told + 2)

    assert 20 == len(first)
    assert 0 < raw.pttl(TOLD) <= 1000
    assert told <= 3


async def test_takers_that_are_gone_are_forgotten(
    nodes: list[Node], raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have nothing; one whose deliveries are not done stays until they are."""
    one, two = nodes

    def takers() -> set[bytes]:
        return {info["name"] for info in raw.xinfo_consumers(WAITING, GROUP)}

    await filled(one.inbox, 2)
    await one.inbox.take(1, HOUR)
    third = RedisInbox(one.io, one.bus, "n3")
    await third.done(await third.take(1, HOUR))
    await two.inbox.take(1, HOUR)
    assert {b"n1", b"n3"} <= takers()
    monkeypatch.setattr("syncbridge_server.redis.stores.inbox.TAKER_IDLE_MS", -1)
    await two.inbox.take(1, HOUR)
    assert {b"n1"} == takers() - {b"n2"}
    await two.inbox.done(await two.inbox.take(1, 0))
    await two.inbox.take(1, HOUR)

    assert set() == takers() - {b"n2"}


async def test_an_entry_without_its_parts_is_taken_and_buried(
    inbox: RedisInbox, raw: redis.Redis
) -> None:
    """It reaches its reader as an empty one, and does not stop what is behind it."""
    raw.xadd(WAITING, {"b": b"x", "i": b"\xff", "t": b"soon"})
    raw.xadd(WAITING, {"z": b""})
    sent = await filled(inbox, 1)
    taken = await inbox.take(9, HOUR)
    for one in taken[:2]:
        await inbox.bury(one, "bad")

    assert ["\ufffd", "", *sent] == ids(taken)
    assert [0, 0] == [one.received_at for one in taken[:2]]
    assert [b"", b"x"] == [letter.body for letter in (await inbox.dead(9))[0]]


@pytest.mark.parametrize("key", [WAITING, SEEN, TOLD, DEAD])
async def test_a_key_of_another_type_stops_a_change_before_it_begins(
    inbox: RedisInbox, raw: redis.Redis, key: str
) -> None:
    """Refused with Redis's code; nothing is kept, taken or moved by halves."""
    await filled(inbox, 2)
    taken = await inbox.take(1, HOUR)
    raw.delete(key)
    raw.hset(key, "not", "this")
    keys = (WAITING, SEEN, TOLD, DEAD)
    before = [raw.dump(one) for one in keys]
    deeds = {
        WAITING: lambda: inbox.put(delivery()),
        SEEN: lambda: inbox.put(delivery()),
        TOLD: lambda: inbox.take(1, 0),
        DEAD: lambda: inbox.bury(taken[0], "x"),
    }
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await deeds[key]()

    assert before == [raw.dump(one) for one in keys]
