"""How the rooms of a channel are opened, as it is said ahead: for an event, or until further word.

A room in which nobody is, and for which nobody has a seat, is given up when another way to open it
is asked for. One with people in it stays as it is.
"""

from syncbridge.voice.channel import REPLACED, Channel
from syncbridge.voice.records import ChannelConfig


def prewarm(
    channel: Channel, now: int, starts_at: int, config: ChannelConfig, waddle_id: str
) -> None:
    """Have a room open from `starts_at` on, and keep it until somebody should have come.

    One such time is remembered, the latest. Times in Unix ms.
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
    """How rooms are opened from now on; None: by default."""
    channel.record.standing = config
    _give_up(channel, now, wanted_config(channel, now, default))


def wanted_config(channel: Channel, now: int, default: ChannelConfig) -> ChannelConfig:
    """How a room is to be opened now: as an event ahead has it, as the channel has it by
    `configure`, else as `default`.
    """
    record = channel.record
    ahead = record.warm_config if record.warm_until > now else None
    return ahead or record.standing or default


def _give_up(channel: Channel, now: int, config: ChannelConfig) -> None:
    """Give up a room that is opened in another way, and that nobody needs."""
    record = channel.record
    if record.room is not None and record.config != config and not channel.taken(now):
        channel.end(now, REPLACED)
