"""A node's worker on webhooks, without a server around it, on a real Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx

from support.redis_servers import PATIENCE
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.inbox import RedisInbox
from syncbridge_server.redis.stores.recordings import RedisRecordings
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.provider.calling import ProviderCalls
from syncbridge_server.voice.provider.rtk import RtkProvider
from syncbridge_server.voice.webhooks.inbox_worker import InboxWorker


class Effects:
    """Notes what became of deliveries."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.dead: list[str] = []
        self.seen_waiting: list[int] = []

    def took_effect(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def buried(self, reason: str) -> None:
        self.dead.append(reason)

    def waiting(self, count: int) -> None:
        self.seen_waiting.append(count)


@dataclass
class Worker:
    """A worker, and what it works with."""

    io: RedisIO
    inbox: RedisInbox
    channels: RedisChannels
    writer: ChannelWriter
    recordings: RedisRecordings
    effects: Effects
    worker: InboxWorker

    async def open(self, channel_id: str, session: str) -> None:
        """A channel with a session; no provider is asked."""
        await self.channels.note_session(session, channel_id)
        await self.writer.change(channel_id, lambda c, now: c.opening(now, ChannelConfig(), "w"))
        await self.writer.change(channel_id, partial(_opened, session))

    async def users(self, channel_id: str) -> tuple[str, ...]:
        """Who is in the call."""
        call = (await self.writer.read(channel_id)).call
        return call.users if call is not None else ()


def _opened(session: str, channel: Channel, now: int) -> None:
    channel.opened(session, now)


@asynccontextmanager
async def worker(url: str, name: str, now: float, idle_ms: int = 60_000) -> AsyncIterator[Worker]:
    """A node that works on webhooks of the specification. Its clock stands at `now`."""
    async with RedisIO(url, deadline=PATIENCE).running() as io, RedisBus(io, name).running() as bus:
        async with httpx.AsyncClient() as client:
            provider = RtkProvider(
                ProviderCalls(client, "http://127.0.0.1:9", "", RequestBudget(1, 1))
            )
            inbox, channels = RedisInbox(io, bus, name), RedisChannels(io, bus, name, 3600)
            writer, effects = ChannelWriter(channels, ChannelLimits(), lambda: now), Effects()
            recordings = RedisRecordings(io, 3600)
            made = InboxWorker(
                provider, inbox, channels, writer, recordings, effects, idle_ms=idle_ms
            )
            yield Worker(io, inbox, channels, writer, recordings, effects, made)
