"""Moves a call to a new session at the provider, without anybody having to wait here.

`begin` notes the coming room in the channel, has it opened, and makes it the room: that news tells
participants to rejoin. From then on the channel's own deadline (30 seconds) and its early end, when
all have come over, decide; then the old room is retired and ended by the chores. Whoever finds a
coming room that nobody opened in time carries on (`carry_on`): the node that began may be gone.

When the provider refuses, or does not answer, the call goes on where it is. A token opens one
session only, so one for the old room does not open the new one, and what webhooks report of the old
one afterwards belongs to a generation that does not count any more.
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
    """Opens the room that a migration has noted, and makes it the call's."""

    def coming(self, channel_id: str) -> Awaitable[Room | None]: ...


class NothingToMigrate(Exception):
    """There is no call, or it is migrating already; nothing is to be written."""


class Migration:
    """Moves calls."""

    def __init__(
        self, writer: ChannelWriter, opening: OpensComing, metrics: ChannelMetrics
    ) -> None:
        self._writer = writer
        self._opening = opening
        self._metrics = metrics
        writer.on_written(self._count)

    async def begin(self, channel_id: str, reason: str) -> bool:
        """Move a channel's call. True: its participants were told to come over.

        False when there is no call, and when it migrates already. Raises StoreError, and
        ProviderError when no room could be opened: the call goes on where it is.
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
        """Open the coming room of a migration that was begun, here or elsewhere. As `begin`."""
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
        """The call goes on in its room. A room that was perhaps opened is to be ended."""

        def abandon(channel: Channel, now: int) -> None:
            if channel.record.coming is None:
                raise NothingToMigrate
            channel.abandon(asked=asked)

        try:
            await self._writer.change(channel_id, abandon)
        except NothingToMigrate:
            pass

    def _count(self, channel: Channel) -> None:
        """Count migrations that are over, and calls that have ended, once they are written."""
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
    """A reason as a label: words that come from outside are one."""
    return reason if reason in ("idle", "ended", "lost") else "other"
