"""Voice channels in memory, for tests of what reads and changes many of them; and such channels."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from syncbridge.errors import StoreError, StoreUnavailable
from syncbridge.voice.channel import Channel
from syncbridge.voice.channel_limits import ChannelLimits
from syncbridge.voice.evidence import Polled
from syncbridge.voice.records import (
    ChannelConfig,
    ChannelRecord,
    decode_record,
    encode_record,
)
from syncbridge.voice.stored import Stored
from syncbridge_server.redis.stores.cold import StateDamaged
from syncbridge_server.voice.channel_writer import ChannelWriter


class MemoryChannels:
    """The part of `Channels` that reading and changing takes.

    Attributes:
        page: live ids of one page. fail_at: the read (1 is the first) that fails; 0: none.
        damaged: channels that cannot be read. writes: how many there were.
    """

    def __init__(self, page: int = 4) -> None:
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.sessions: dict[str, str] = {}
        self.page = page
        self.fail_at = 0
        self.reads = 0
        self.writes = 0
        self.damaged: set[str] = set()

    async def read(self, channel_id: str) -> Stored:
        found = (await self.read_many([channel_id]))[0]
        if isinstance(found, StoreError):
            raise found
        return found

    async def read_many(self, ids: list[str]) -> list[Stored | StoreError]:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        if self.reads == self.fail_at:
            raise StoreUnavailable("away")
        return [self._stored(channel_id) for channel_id in ids]

    def _stored(self, channel_id: str) -> Stored | StoreError:
        if channel_id in self.damaged:
            return StateDamaged("a voice channel is damaged")
        record, revision = self.kept.get(channel_id, (encode_record(ChannelRecord(channel_id)), 0))
        return Stored(decode_record(record), revision)

    async def write(self, stored: Stored, record: ChannelRecord, **_: Any) -> int | None:
        await trio.lowlevel.checkpoint()
        if self.kept.get(record.channel_id, (b"", 0))[1] != stored.revision:
            return None
        self.writes += 1
        self.kept[record.channel_id] = (encode_record(record), stored.revision + 1)
        return stored.revision + 1

    async def live(self) -> AsyncIterator[list[str]]:
        ids = list(self.kept)
        for start in range(0, len(ids), self.page):
            await trio.lowlevel.checkpoint()
            yield ids[start : start + self.page]

    async def live_count(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self.kept)

    async def channel_of(self, session_id: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return self.sessions.get(session_id)


def desk_of(
    channels: MemoryChannels, clock: Callable[[], float] = trio.current_time
) -> ChannelWriter:
    """A writer over these channels; its seconds are Trio's, a day ahead."""
    store: Any = channels
    return ChannelWriter(store, ChannelLimits(), lambda: 86_400.0 + clock())


async def open_call(writer: ChannelWriter, channel_id: str, *users: str) -> None:
    """A call in session `s-<channel>`, in which users have been seen just now."""

    def rule(channel: Channel, now: int) -> None:
        room = channel.opening(now, ChannelConfig(), "w")
        channel.opened(f"s-{channel_id}", now)
        there = tuple((user, "") for user in users)
        channel.apply([Polled(generation=room.generation, at=now, present=there)], now)
        channel.record.last_sync_at = now

    await writer.change(channel_id, rule)
