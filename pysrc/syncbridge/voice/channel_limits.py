"""The bounds of a voice channel: how long seats, rooms and attempts last."""

import msgspec

from syncbridge.voice.call_records import CallLimits

DAY = 86_400_000


class ChannelLimits(msgspec.Struct, frozen=True):
    """Bounds of a channel, in ms.

    Attributes:
        seat_ms: how long a token keeps a seat for who has not come yet.
        retry_ms: after which a deed at the provider that was not confirmed is due again; twice as
            long after each failure, at most `retry_most_ms`.
        opening_ms: after which a room that was asked for may be asked for by somebody else.
        max_age_ms: age of a room at which the call is migrated; 0: never.
        pool_uses: calls within a day that make a channel a frequent one; 0: no pooling.
        pool_ms: how long the room of a frequent channel is kept after its call.
        handoff_ms: how long a device has to take a call over.
        last_look_ms: before the deadline of a migration, when the provider is asked who has come
            over: the news of somebody may be lost. At most half of the time there is.
        renew_ms: a channel that has a configuration is written again so often, so that it is not
            forgotten.
        removed_ms: how long who was sent away is kept out: longer than a token lives.
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
