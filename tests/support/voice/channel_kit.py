"""Builds channels and evidence for tests.

A channel from here was written and read again, so that nothing is remembered outside of its record.
"""

from syncbridge.voice.call_records import CallLimits
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.evidence import Joined, Left, Source
from syncbridge.voice.provider.records import Permissions
from syncbridge.voice.records import (
    ChannelConfig,
    ChannelRecord,
    Room,
    decode_record,
    encode_record,
)

MINUTE = 60_000
LIMITS = ChannelLimits(
    call=CallLimits(unjoined_ms=15 * MINUTE, empty_ms=5 * MINUTE, migration_ms=30_000),
    pool_uses=2,
)
NOW = 1_800_000_000_000
MAY = Permissions()


def again(channel: Channel, limits: ChannelLimits = LIMITS) -> Channel:
    """The channel after a round trip through its stored form."""
    return Channel(decode_record(encode_record(channel.dump())), limits)


def empty(limits: ChannelLimits = LIMITS) -> Channel:
    return Channel(ChannelRecord("c"), limits)


def opened(now: int = NOW, limits: ChannelLimits = LIMITS, most: int = 100) -> Channel:
    """A channel with an open, empty room."""
    channel = empty(limits)
    room = channel.opening(now, ChannelConfig(max_participants=most), "w")
    channel.opened("s1", now, room.key)
    return again(channel, limits)


def joined(user: str, at: int, generation: int = 1) -> Joined:
    """The provider shows a connection that is named as its user, in capitals."""
    return Joined(
        generation=generation,
        at=at,
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=f"{user.upper()}{generation}",
    )


def left(user: str, at: int, generation: int = 1) -> Left:
    return Left(
        generation=generation,
        at=at,
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=f"{user.upper()}{generation}",
    )


def peopled(*users: str, now: int = NOW, limits: ChannelLimits = LIMITS) -> Channel:
    """A call in which these are."""
    channel = opened(now, limits)
    channel.apply([joined(user, now + 1) for user in users], now + 1)
    return again(channel, limits)


def migrating(*users: str, now: int = NOW, reason: str = "limit") -> Channel:
    """A call that moved to session s2 at `now`; no participant has followed yet."""
    channel = peopled(*users, now=now - 10)
    room = channel.migrate(now, reason)
    assert room is not None
    channel.moved("s2", now, room.key)
    return again(channel)


def users(channel: Channel) -> tuple[str, ...]:
    return channel.call.users if channel.call else ()


def kinds(channel: Channel) -> list[str]:
    return [str(message.get("state") or message["type"]) for message in channel.news]


def sessions(rooms: list[Room]) -> list[str]:
    return [room.session_id for room in rooms]


def used(times: int, now: int = NOW, limits: ChannelLimits = LIMITS) -> Channel:
    """A channel that has had so many calls, of which the last one ended idle at `now`."""
    channel = empty(limits)
    for n in range(times):
        at = now - 15 * MINUTE - (times - n - 1) * 1000
        room = channel.opening(at, ChannelConfig(), "w")
        channel.opened(f"s{n + 1}", at, room.key)
        if n < times - 1:
            channel.end(at + 1, "ended")
            channel.record.retired.clear()
    channel.expire(now)
    return again(channel, limits)
