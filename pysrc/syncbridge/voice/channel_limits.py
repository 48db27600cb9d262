"""Bounds of a voice channel: lifetimes of seats, rooms and attempts."""

import msgspec

from syncbridge.voice.call_records import CallLimits

DAY = 86_400_000


class ChannelLimits(msgspec.Struct, frozen=True):
    """Bounds of a channel, in ms.

    Attributes:
        seat_ms: how long a token reserves a seat for a user who has not joined yet.
        retry_ms: delay of the first retry of work at the provider; doubles after each failure, up
            to `retry_most_ms`.
        opening_ms: after this time, another node may request a room again.
        max_age_ms: age of a room at which the call migrates; 0: never.
        pool_uses: calls within a day from which a channel's room is pooled; 0: no pooling.
        pool_ms: how long a pooled room is kept after its call.
        handoff_ms: how long a device has to take over a call.
        last_look_ms: time before the deadline of a migration at which the provider is asked who
            came over, because webhooks can be lost; at most half of the migration time.
        renew_ms: interval at which a channel with a configuration is rewritten, so that it does not
            expire.
        removed_ms: how long a removed user is kept out; longer than a token is valid.
    """

    call: CallLimits = CallLimits()
    seat_ms: int = 60_000
    retry_ms: int = 10_000
    retry_most_ms: int = 300_000
    opening_ms: int = 10_000
    max_age_ms: int = DAY
    pool_uses: int = 10
    pool_ms: int = 3_600_000
    handoff_ms: int = 60_000
    last_look_ms: int = 5_000
    renew_ms: int = DAY
    removed_ms: int = 3_660_000
