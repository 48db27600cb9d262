"""Totals of all live calls, computed from the store."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import cast

import msgspec
import trio

from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.stored import Stored
from syncbridge_server.voice.channel_writer import ChannelWriter

MOST = 20_000
"""Maximum number of channels to read."""
SECONDS = 5.0


class VoiceFigures(msgspec.Struct, rename="camel"):
    """Totals of the live calls. `complete`: all of them were read.

    Attributes:
        channels: number of live channels. phases: number of calls by phase.
        largest: users in the largest call. peak_participants: highest peak of a call.
        total_participant_ms: time of all users in these calls.
        recording: recorded calls. failing: calls whose latest request failed.
        retired: rooms to end at the provider.
    """

    channels: int = 0
    phases: dict[str, int] = {}
    participants: int = 0
    largest: int = 0
    peak_participants: int = 0
    total_participant_ms: int = 0
    recording: int = 0
    failing: int = 0
    retired: int = 0
    complete: bool = True


async def survey(writer: ChannelWriter) -> VoiceFigures:
    """Read at most `MOST` live channels within `SECONDS`. Raises StoreError. O(calls)."""
    figures, phases, seen = VoiceFigures(), Counter[str](), set[str]()
    figures.channels = await writer.channels.live_count()
    live = cast("AsyncGenerator[list[str], None]", writer.channels.live())
    with trio.move_on_after(SECONDS) as scope:
        async with aclosing(live) as pages:
            async for page in pages:
                fresh = [channel_id for channel_id in page if channel_id not in seen]
                seen.update(fresh)
                now = writer.now()
                read = zip(fresh, await writer.channels.read_many(fresh), strict=True)
                add = partial(_add, figures, phases, writer.limits, now)
                await writer.isolation.each("survey", read, add)
                if len(seen) >= MOST:
                    figures.complete = False
                    break
    figures.complete = figures.complete and not scope.cancelled_caught
    figures.phases = dict(phases)
    return figures


def _add(
    figures: VoiceFigures, phases: "Counter[str]", limits: ChannelLimits, now: int, stored: Stored
) -> None:
    channel = Channel(stored.record, limits)
    call, record = channel.call, channel.record
    figures.retired += len(record.retired)
    if call is None:
        return
    statistics = call.statistics(now)
    phases[call.phase.value] += 1
    figures.participants += statistics.participants
    figures.largest = max(figures.largest, statistics.participants)
    figures.peak_participants = max(figures.peak_participants, statistics.peak)
    figures.total_participant_ms += statistics.total_ms
    figures.recording += record.recording == "started"
    figures.failing += bool(record.last_error)
