"""Logs and counts repairs: corrections of a call by a comparison or a deadline.

Each repair has one log line with the channel, the user, the cause and the longest time for which
the call was wrong. Metrics count repairs by cause.
"""

import structlog

from syncbridge.voice.channel import Channel
from syncbridge.voice.timeline import repair_of
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.figures.metrics import SyncMetrics

log = structlog.get_logger("voice")


class Repairs:
    """Counts and logs the repairs in this node's writes."""

    def __init__(self, writer: ChannelWriter, metrics: SyncMetrics) -> None:
        self._metrics = metrics
        writer.on_written(self._tell)

    def _tell(self, channel: Channel) -> None:
        for entry in channel.timeline.entries:
            cause = repair_of(entry)
            if not cause:
                continue
            self._metrics.repairs.labels(cause).inc()
            self._metrics.wrong.labels(cause).observe(entry.wrong_ms / 1000)
            log.info(
                "voice_repaired",
                channel_id=channel.record.channel_id,
                user_id=entry.user_id,
                cause=cause,
                wrong_ms=entry.wrong_ms,
            )
