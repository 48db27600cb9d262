"""Configuration of a channel's future rooms: for one event (prewarming), or permanently.

A new configuration retires an open room without participants and reserved seats. A room with
participants keeps its configuration.
"""

from syncbridge.voice.channel import REPLACED, Channel
from syncbridge.voice.records import ChannelConfig


def prewarm(
    channel: Channel, now: int, starts_at: int, config: ChannelConfig, waddle_id: str
) -> None:
    """Open a room at `starts_at`, and keep it for the time in which users should join.

    A channel remembers one such time, the latest. Times in Unix ms.
    """
    record = channel.record
    _give_up(channel, now, config)
    record.warm_from = max(starts_at, now)
    record.warm_until = record.warm_from + channel.limits.call.unjoined_ms
    record.warm_config = config
    if record.room is None:
        record.waddle_id = record.waddle_id or waddle_id


def configure(
    channel: Channel, now: int, config: ChannelConfig | None, default: ChannelConfig
) -> None:
    """Set the configuration of future rooms; None: the default."""
    channel.record.standing = config
    _give_up(channel, now, wanted_config(channel, now, default))


def wanted_config(channel: Channel, now: int, default: ChannelConfig) -> ChannelConfig:
    """The configuration for a room opened now: that of a prewarmed event, else that of `configure`,
    else `default`.
    """
    record = channel.record
    ahead = record.warm_config if record.warm_until > now else None
    return ahead or record.standing or default


def _give_up(channel: Channel, now: int, config: ChannelConfig) -> None:
    """Retire an unused room with another configuration."""
    record = channel.record
    if record.room is not None and record.config != config and not channel.taken(now):
        channel.end(now, REPLACED)
