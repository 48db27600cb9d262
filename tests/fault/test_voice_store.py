"""Redis away while voice channels and webhooks are written: typed errors, nothing done twice."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from support.cutting_proxy import CuttingProxy
from support.redis_servers import RedisServer, until
from syncbridge.errors import StoreTimeout, StoreUnavailable
from syncbridge.voice.records import ChannelRecord, Final
from syncbridge.voice.stored import ChannelNews, Due, WebhookDelivery
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.inbox import RedisInbox
from syncbridge_server.redis.stores.voice import RedisChannels

GUARD = 15.0
HOUR = 3_600_000
Deed = Callable[[RedisChannels, RedisInbox], Awaitable[Any]]


class Node:
    """A node's channels and inbox, and what it was told."""

    def __init__(self, io: RedisIO, bus: RedisBus) -> None:
        self.io = io
        self.bus = bus
        self.channels = RedisChannels(io, bus, "n1", 86_400.0)
        self.inbox = RedisInbox(io, bus, "n1")
        self.news: list[ChannelNews] = []
        self.told = 0
        self.channels.on_news(self.news.append)
        self.inbox.on_arrival(self._on_arrival)

    def _on_arrival(self) -> None:
        self.told += 1


@asynccontextmanager
async def running(server: RedisServer, url: str = "") -> AsyncIterator[Node]:
    """A node whose commands go to `url`; the bus always listens to the server itself."""
    listens = RedisBus(RedisIO(server.url), "n1")
    async with RedisIO(url or server.url, deadline=1.0).running() as io, listens.running() as bus:
        yield Node(io, bus)


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[CuttingProxy]:
    made = CuttingProxy(redis_server.directory / "p", redis_server.socket)
    yield made
    made.close()


async def _write(channels: RedisChannels, _: RedisInbox) -> int | None:
    stored = await channels.read("c")
    final = Final("c", "w", "s", 1, 1, 2, "ended")
    return await channels.write(stored, stored.record, due_at=1, live=True, finals=[final])


async def _lock(channels: RedisChannels, _: RedisInbox) -> bool:
    async with channels.lock("c", "open", 60_000, 1000) as got:
        return got is not None


async def _live(channels: RedisChannels, _: RedisInbox) -> list[list[str]]:
    return [page async for page in channels.live()]


DEEDS: dict[str, Deed] = {
    "read": lambda channels, _: channels.read("c"),
    "read_many": lambda channels, _: channels.read_many(["c", "d"]),
    "write": _write,
    "claim_due": lambda channels, _: channels.claim_due(1, 10, 10),
    "live": _live,
    "live_count": lambda channels, _: channels.live_count(),
    "finals": lambda channels, _: channels.finals("c", 1),
    "channel_of": lambda channels, _: channels.channel_of("s"),
    "note_session": lambda channels, _: channels.note_session("s", "c"),
    "lock": _lock,
    "put": lambda _, inbox: inbox.put(WebhookDelivery("d", b"", 1)),
    "take": lambda _, inbox: inbox.take(1, 1),
    "done": lambda _, inbox: inbox.done([WebhookDelivery("d", b"", 1, "1-1")]),
    "bury": lambda _, inbox: inbox.bury(WebhookDelivery("d", b"", 1, "1-1"), "x"),
    "dead": lambda _, inbox: inbox.dead(1),
    "replay": lambda _, inbox: inbox.replay("1-1"),
    "discard": lambda _, inbox: inbox.discard("1-1"),
    "waiting": lambda _, inbox: inbox.waiting(),
}


async def test_every_deed_is_refused_while_redis_is_away(redis_server: RedisServer) -> None:
    """StoreUnavailable in time; what was acknowledged before is there when Redis is back."""
    async with running(redis_server) as node:
        revision = await _write(node.channels, node.inbox)
        await node.inbox.put(WebhookDelivery("d", b"body", 1))
        redis_server.kill()
        await until(lambda: not node.io.connected)
        with trio.fail_after(GUARD):
            for deed in DEEDS.values():
                with pytest.raises(StoreUnavailable):
                    await deed(node.channels, node.inbox)
        redis_server.start()
        await until(lambda: node.io.connected)
        stored = await node.channels.read("c")

        assert (revision, ChannelRecord("c")) == (stored.revision, stored.record)
        assert [Due("c", 1)] == await node.channels.claim_due(1, 10, 10)
        assert [["c"]] == await _live(node.channels, node.inbox)
        assert not await node.inbox.put(WebhookDelivery("d", b"body", 1))
        assert [b"body"] == [one.body for one in await node.inbox.take(9, HOUR)]


async def test_a_redis_that_does_not_answer_is_a_timeout(redis_server: RedisServer) -> None:
    """The outcome is not known, and that is what is said."""
    async with running(redis_server) as node:
        stored = await node.channels.read("c")
        redis_server.pause()
        with trio.fail_after(GUARD), pytest.raises(StoreTimeout):
            await node.channels.write(stored, stored.record, due_at=None, live=False)
        redis_server.resume()


async def test_a_write_whose_answer_was_lost_is_done_once(
    proxy: CuttingProxy, redis_server: RedisServer
) -> None:
    """It is sent again and recognised: one revision, one piece of news, one final."""
    async with running(redis_server, proxy.url) as node:
        stored = await node.channels.read("c")
        proxy.cut_next_reply()
        final = Final("c", "w", "s", 1, 1, 2, "ended")
        revision = await node.channels.write(
            stored, stored.record, due_at=None, live=False, news=[{"type": "a"}], finals=[final]
        )
        following = await _write(node.channels, node.inbox)
        await until(lambda: bool(node.news) and node.news[-1].revision == following)

        assert 1 == proxy.cuts
        assert revision is not None
        assert following == revision + 1
        assert [[{"type": "a"}], []] == [news.events for news in node.news]
        assert 2 == len(await node.channels.finals("c", 9))


async def test_a_lock_whose_answer_was_lost_is_ours(
    proxy: CuttingProxy, redis_server: RedisServer
) -> None:
    """Taken and given back once, though each was sent twice."""
    async with running(redis_server, proxy.url) as node, running(redis_server) as other:
        proxy.cut_next_reply()
        async with node.channels.lock("c", "open", 60_000, 1) as got:
            async with other.channels.lock("c", "open", 60_000, 0) as refused:
                proxy.cut_next_reply()
        async with other.channels.lock("c", "open", 60_000, 0) as after:
            pass

    assert [True, False, True] == [bool(each) for each in (got, refused, after)]
    assert 2 == proxy.cuts


async def test_a_delivery_whose_answer_was_lost_is_kept_once(
    proxy: CuttingProxy, redis_server: RedisServer
) -> None:
    """Also one that is done twice, or becomes a dead letter twice."""
    async with running(redis_server, proxy.url) as node:
        inbox = node.inbox
        proxy.cut_next_reply()
        await inbox.put(WebhookDelivery("d", b"", 1))
        await inbox.put(WebhookDelivery("e", b"", 1))
        first, second = await inbox.take(9, HOUR)
        proxy.cut_next_reply()
        await inbox.done([first])
        proxy.cut_next_reply()
        await inbox.bury(second, "x")
        letters, _ = await inbox.dead(9)

        assert 3 == proxy.cuts
        assert 0 == await inbox.waiting()
        assert ["e"] == [letter.delivery_id for letter in letters]


async def test_after_an_outage_somebody_looks_for_arrivals(redis_server: RedisServer) -> None:
    """Word of them may have been lost with the subscription."""
    async with running(redis_server) as node:
        assert 0 == node.told
        redis_server.kill()
        redis_server.start()
        await until(lambda: node.told == 1)
