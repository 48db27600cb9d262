"""Migrates a call to a new session at the provider.

`begin` notes the coming room in the channel, opens it, and makes it the current room; the news of
that write tell participants to rejoin. The migration ends at the channel's deadline (30 seconds),
or earlier when all participants have come over. Then the old room is retired and ended by the
provider tasks. If the node that began dies, another node finds the unopened coming room and
continues (`carry_on`).

When the provider refuses or does not answer, the call stays in its room. A token is valid for one
session, so a token for the old room does not open the new one. Later webhooks about the old room
belong to an old generation and are ignored.
"""

from collections.abc import Awaitable
from typing import Protocol

import structlog

from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.records import Move, Room
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.figures.metrics import ChannelMetrics

log = structlog.get_logger("voice")


class OpensComing(Protocol):
    """Opens the coming room of a migration and moves the call into it."""

    def coming(self, channel_id: str) -> Awaitable[Room | None]: ...


class NothingToMigrate(Exception):
    """There is no call, or it is already migrating; nothing is written."""


class Migration:
    """Migrates calls."""

    def __init__(
        self, writer: ChannelWriter, opening: OpensComing, metrics: ChannelMetrics
    ) -> None:
        self._writer = writer
        self._opening = opening
        self._metrics = metrics
        writer.on_written(self._count)

    async def begin(self, channel_id: str, reason: str) -> bool:
        """Migrate a channel's call. True: its participants were asked to rejoin.

        False when there is no call, or when it is already migrating. Raises StoreError, and
        ProviderError when no room could be opened; the call then stays in its room.
        """

        def note(channel: Channel, now: int) -> None:
            if channel.migrate(now, reason) is None:
                raise NothingToMigrate

        try:
            await self._writer.change(channel_id, note)
        except NothingToMigrate:
            return False
        return await self.carry_on(channel_id)

    async def carry_on(self, channel_id: str) -> bool:
        """Open the coming room of a migration that any node began. As `begin`."""
        try:
            room = await self._opening.coming(channel_id)
        except ProviderError as error:
            log.warning("voice_migration_failed", channel_id=channel_id, code=error.code.value)
            await self._give_up(channel_id, asked=error.outcome_unknown)
            raise
        if room is not None:
            log.info("voice_migration", channel_id=channel_id, reason=room.reason)
        return room is not None

    async def _give_up(self, channel_id: str, *, asked: bool) -> None:
        """Abandon the migration. `asked`: the room may have been opened and must be ended."""

        def abandon(channel: Channel, now: int) -> None:
            if channel.record.coming is None:
                raise NothingToMigrate
            channel.abandon(asked=asked)

        try:
            await self._writer.change(channel_id, abandon)
        except NothingToMigrate:
            pass

    def _count(self, channel: Channel) -> None:
        """Count finished migrations and ended calls after the write."""
        metrics = self._metrics
        for move in channel.moves:
            metrics.migrations.labels(move.result).inc()
            metrics.migrated.inc(move.migrated)
            metrics.stranded.inc(move.stranded)
            _tell(channel.record.channel_id, move)
        for final in channel.finals:
            metrics.finals.labels(_reason(final.reason)).inc()
            metrics.participant_seconds.inc(final.total_participant_ms / 1000)


def _tell(channel_id: str, move: Move) -> None:
    log.info(
        "voice_migration_over",
        channel_id=channel_id,
        result=move.result,
        reason=move.reason,
        migrated=move.migrated,
        stranded=move.stranded,
    )


def _reason(reason: str) -> str:
    """A reason as a metric label; external reasons share one label."""
    return reason if reason in ("idle", "ended", "lost") else "other"
