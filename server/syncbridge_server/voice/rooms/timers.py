"""Due work of channels: deadlines, leases, prewarming, provider tasks, calls that are too old.

Theory of operation. The time at which a channel is due is stored with it, so no timer is lost when
a node dies. Every node claims due channels for a limited time; a dead node's claims expire. Due
work is a change of the channel, which sets the next due time. Requests to the provider follow that
change. When the store cannot be read, nothing is due.
"""

from collections.abc import Awaitable
from functools import partial
from random import uniform
from typing import NamedTuple, Protocol

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.channel import Channel
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.timeline import TIMEOUT
from syncbridge_server.isolation import Busy
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.rooms.opening import Opening
from syncbridge_server.voice.rooms.provider_tasks import ProviderTasks

log = structlog.get_logger("voice")

POLL_SECONDS = 1.0
"""Average interval of claims."""
AT_ONCE = 16
"""Maximum number of channels in progress on a node."""
LEASE_MS = 30_000
UNWANTED = "unopened"
"""Reason for abandoning a room that could not be opened in time."""


class Migrating(Protocol):
    """Begins and continues migrations."""

    def begin(self, channel_id: str, reason: str) -> Awaitable[bool]:
        """Migrate the call of a channel; False when it does not migrate."""

    def carry_on(self, channel_id: str) -> Awaitable[bool]:
        """Open the coming room of a migration; False when the call does not move."""


class ChecksCalls(Protocol):
    """Asks the provider who is in a call."""

    def check(self, channel_id: str) -> Awaitable[object]:
        """Ask the provider and apply the answer to the channel's call. Raises StoreError."""


class Fetches(Protocol):
    """Fetches transcripts and summaries."""

    def fetch(self, channel_id: str) -> Awaitable[None]:
        """Fetch the texts that a channel lists. Raises StoreError."""


class Names(Protocol):
    """Keeps the keys of channels: see `ports.channels.ChannelNames`."""

    def claim(self, waddle_id: str, channel_id: str) -> Awaitable[object]:
        """A waddle keeps the key of its channel. Raises StoreError."""


class DueWork(NamedTuple):
    """Work that follows from a channel's due work.

    `configured`: its configuration is all that keeps it, and is found by its name.
    """

    waddle_id: str = ""
    configured: bool = False
    opening: bool = False
    tasks: bool = False
    coming: bool = False
    too_old: bool = False
    stragglers: bool = False
    texts: bool = False


class Timers:
    """Carries out due work. `waiting`: the latest claim failed at the store."""

    def __init__(
        self,
        writer: ChannelWriter,
        opening: Opening,
        tasks: ProviderTasks,
        migration: Migrating,
        state_check: ChecksCalls,
        texts: Fetches | None = None,
        names: Names | None = None,
    ) -> None:
        self._texts = texts
        self._names = names
        self._writer = writer
        self._opening = opening
        self._tasks = tasks
        self._migration = migration
        self._state_check = state_check
        self._at_work: set[str] = set()
        self.waiting = False

    async def run(self) -> None:
        """Claim and carry out due work for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                claimed = await self._claim()
                for channel_id in claimed:
                    self._at_work.add(channel_id)
                    nursery.start_soon(self._work, channel_id)
                if len(claimed) < AT_ONCE:
                    await trio.sleep(POLL_SECONDS * uniform(0.5, 1.5))  # noqa: S311

    async def look_after(self, channel_id: str) -> Busy | None:
        """Carry out a channel's due work; BUSY as `ProviderTasks.do`. Raises StoreError."""
        wanted = await self._writer.change(channel_id, settled)
        if wanted.configured and self._names is not None:
            await self._names.claim(wanted.waddle_id, id_of_key(channel_id))
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
            pass  # stored in the channel, which becomes due again
        done = await self._tasks.do(channel_id) if wanted.tasks else None
        if wanted.texts and self._texts is not None:
            await self._texts.fetch(channel_id)
        return done

    async def _claim(self) -> list[str]:
        """Claim due channels that are not in progress here."""
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
    """Carry out a channel's due work; returns the work at the provider that follows."""
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
        configured=bool(record.standing is not None and record.waddle_id and room is None),
        opening=ready and (channel.cold(now) or (unopened and late)),
        tasks=ready and channel.has_tasks,
        coming=channel.unfinished(now),
        too_old=channel.too_old(now),
        stragglers=channel.stragglers(now),
        texts=bool(record.texts) and record.texts_at <= now,
    )
