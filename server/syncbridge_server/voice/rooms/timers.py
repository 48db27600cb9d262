"""What is due in channels: deadlines, leases, rooms to open ahead, chores, calls that are too old.

Theory of operation. When a channel wants to be looked at is stored with it, so no timer is lost
with a node. Every node claims channels that are due, and who claims has them for a while: a node
that dies lets go by itself. What is due is then carried out as a change of the channel, which says
anew when it is due; only what follows from that change is done at the provider. When the store
cannot be read, nothing is due.
"""

from collections.abc import Awaitable
from functools import partial
from random import uniform
from typing import NamedTuple, Protocol

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.timeline import TIMEOUT
from syncbridge_server.isolation import Left
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.rooms.opening import Opening
from syncbridge_server.voice.rooms.provider_tasks import ProviderTasks

log = structlog.get_logger("voice")

POLL_SECONDS = 1.0
"""Between two looks for what is due, on average."""
AT_ONCE = 16
"""Channels that a node works on at the same time."""
LEASE_MS = 30_000
UNWANTED = "unopened"
"""Why a room that could not be opened for so long, and for nobody any more, is given up."""


class Migrating(Protocol):
    """Begins and carries on migrations."""

    def begin(self, channel_id: str, reason: str) -> Awaitable[bool]:
        """Have the call of a channel move to another room; False when it does not."""

    def carry_on(self, channel_id: str) -> Awaitable[bool]:
        """Open the room of a migration that was begun; False when the call does not move."""


class Looks(Protocol):
    """Asks the provider who is in a call."""

    def check(self, channel_id: str) -> Awaitable[object]:
        """Let a channel's call hear who is in it. Raises StoreError."""


class Fetches(Protocol):
    """Fetches what the provider has written down."""

    def fetch(self, channel_id: str) -> Awaitable[None]:
        """What a channel wants. Raises StoreError."""


class DueWork(NamedTuple):
    """What is to be done at the provider after a channel was looked at."""

    waddle_id: str = ""
    opening: bool = False
    tasks: bool = False
    coming: bool = False
    too_old: bool = False
    stragglers: bool = False
    texts: bool = False


class Timers:
    """Carries out what is due. `waiting`: the store could not be read the last time."""

    def __init__(
        self,
        writer: ChannelWriter,
        opening: Opening,
        tasks: ProviderTasks,
        migration: Migrating,
        state_check: Looks,
        texts: Fetches | None = None,
    ) -> None:
        self._texts = texts
        self._writer = writer
        self._opening = opening
        self._tasks = tasks
        self._migration = migration
        self._state_check = state_check
        self._at_work: set[str] = set()
        self.waiting = False

    async def run(self) -> None:
        """Look for what is due, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                claimed = await self._claim()
                for channel_id in claimed:
                    self._at_work.add(channel_id)
                    nursery.start_soon(self._work, channel_id)
                if len(claimed) < AT_ONCE:
                    await trio.sleep(POLL_SECONDS * uniform(0.5, 1.5))  # noqa: S311

    async def look_after(self, channel_id: str) -> Left | None:
        """Carry out what is due in one channel; LEFT as `ProviderTasks.do`. Raises StoreError."""
        wanted = await self._writer.change(channel_id, settled)
        if wanted.stragglers:
            await self._state_check.check(channel_id)
        try:
            if wanted.opening:
                await self._opening.room(channel_id, wanted.waddle_id)
            if wanted.coming:
                await self._migration.carry_on(channel_id)
            elif wanted.too_old:
                await self._migration.begin(channel_id, "age")
        except ProviderError:
            pass  # noted in the channel, which is due again
        done = await self._tasks.do(channel_id) if wanted.tasks else None
        if wanted.texts and self._texts is not None:
            await self._texts.fetch(channel_id)
        return done

    async def _claim(self) -> list[str]:
        """Channels that are due, and that nobody is at work on."""
        free = AT_ONCE - len(self._at_work)
        if free <= 0:
            return []
        try:
            claimed = await self._writer.channels.claim_due(self._writer.now(), LEASE_MS, free)
        except StoreError as error:
            if not self.waiting:
                log.warning("voice_timers_wait", reason=error.detail)
            self.waiting = True
            return []
        self.waiting = False
        return [due.channel_id for due in claimed if due.channel_id not in self._at_work]

    async def _work(self, channel_id: str) -> None:
        try:
            with trio.move_on_after(LEASE_MS / 1000):
                work = partial(self.look_after, channel_id)
                await self._writer.isolation.run("due", channel_id, work, None)
        except StoreError as error:
            log.info("voice_due_again", channel_id=channel_id, reason=error.detail)
        finally:
            self._at_work.discard(channel_id)


def settled(channel: Channel, now: int) -> DueWork:
    """Carry out what is due, and say what follows from it."""
    channel.expire(now)
    record, limits = channel.record, channel.limits
    room = record.room
    unopened = room is not None and not room.session_id
    if room is not None and unopened and now - room.asked_at >= limits.call.unjoined_ms:
        channel.end(now, UNWANTED, TIMEOUT)
        unopened = False
    ready = record.retry_at <= now
    late = room is not None and now - room.asked_at >= limits.opening_ms
    return DueWork(
        waddle_id=record.waddle_id,
        opening=ready and (channel.cold(now) or (unopened and late)),
        tasks=ready and channel.has_tasks,
        coming=channel.unfinished(now),
        too_old=channel.too_old(now),
        stragglers=channel.stragglers(now),
        texts=bool(record.texts) and record.texts_at <= now,
    )
