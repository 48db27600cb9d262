"""Changes channels: reads a channel, applies a rule, and writes it back with optimistic locking.

If another node wrote first, the change is retried. A node makes one change at a time for each
channel, so only other nodes can conflict. When a change leaves provider tasks (see `Channel`), the
`on_tasks` handlers are called. The published news of a write includes the change of the view.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
import trio

from syncbridge.errors import StoreUnavailable
from syncbridge.voice import announcements, view
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.stored import Stored
from syncbridge_server.isolation import Isolation
from syncbridge_server.ports.channels import Channels
from syncbridge_server.redis.stores.cold import StateDamaged

log = structlog.get_logger("voice")

ATTEMPTS = 20
T = TypeVar("T")
Rule = Callable[[Channel, int], T]
"""(channel, now in Unix ms) -> result for the caller. After a conflict, the rule is called again on
the newer channel, so it must change nothing but the channel."""


class ChannelWriter:
    """Reads and changes channels.

    Args:
        clock: Unix seconds.
        isolation: isolates failures of single channels; None: a new one.
    """

    def __init__(
        self,
        channels: Channels,
        limits: ChannelLimits,
        clock: Callable[[], float],
        isolation: Isolation | None = None,
    ) -> None:
        self.isolation = isolation or Isolation()
        self.channels = channels
        self.limits = limits
        self._clock = clock
        self._turns: dict[str, tuple[trio.Lock, int]] = {}
        self._tasks: list[Callable[[str], None]] = []
        self._written: list[Callable[[Channel], None]] = []

    def now(self) -> int:
        """Unix ms."""
        return int(self._clock() * 1000)

    def on_tasks(self, handler: Callable[[str], None]) -> None:
        """Call `handler` with the channel id after each change that leaves provider tasks."""
        self._tasks.append(handler)

    def on_written(self, handler: Callable[[Channel], None]) -> None:
        """Call `handler` with each channel that this node has written."""
        self._written.append(handler)

    async def read(self, channel_id: str) -> Channel:
        """Read a channel without changing it. Raises StoreError."""
        return self.channel_of(await self.channels.read(channel_id))

    async def change(self, channel_id: str, rule: Rule[T]) -> T:
        """Apply a rule to a channel and write it. Raises StoreError and the rule's exceptions."""
        async with self._turn(channel_id):
            for _ in range(ATTEMPTS):
                stored = await self.channels.read(channel_id)
                before = view.of_record(stored.record)
                channel = self.channel_of(stored)
                answer = rule(channel, self.now())
                if await self._write(stored, channel, before):
                    return answer
        raise StoreUnavailable("the channel changes too often")

    def channel_of(self, stored: Stored) -> Channel:
        """The channel of a stored record. Raises StateDamaged for an invalid call."""
        try:
            return Channel(stored.record, self.limits)
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise StateDamaged(f"a voice channel is damaged: {type(error).__name__}") from None

    async def _write(self, stored: Stored, channel: Channel, before: view.View | None) -> bool:
        """Write a changed channel; False when another node wrote first."""
        now = self.now()
        record = channel.dump()
        shown = view.difference(before, view.of_record(record))
        told = [
            announcements.named(one, record.public_id, record.waddle_id) for one in channel.news
        ]
        revision = await self.channels.write(
            stored,
            record,
            due_at=channel.next_due(now),
            live=channel.live,
            news=told if shown is None else [*told, view.to_message(shown)],
            finals=channel.finals,
            timeline=channel.timeline.entries,
        )
        if revision is None:
            return False
        channel.revision = revision
        for handle in self._written:
            handle(channel)
        if channel.has_tasks:
            for handler in self._tasks:
                handler(record.channel_id)
        return True

    @asynccontextmanager
    async def _turn(self, channel_id: str) -> AsyncIterator[None]:
        """Hold the channel's lock. The lock is dropped with its last waiter."""
        lock, users = self._turns.get(channel_id, (trio.Lock(), 0))
        self._turns[channel_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(channel_id)
            if users > 1:
                self._turns[channel_id] = (lock, users - 1)
