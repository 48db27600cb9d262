"""Migrations in a channel, step by step, and sessions at the provider that nobody holds."""

import pytest

from syncbridge.voice.call_records import CallLimits, Phase
from syncbridge.voice.channel import LOST, Channel, ChannelLimits
from syncbridge.voice.evidence import Joined, Left, Source
from syncbridge.voice.records import (
    ChannelConfig,
    ChannelRecord,
    Move,
    decode_record,
    encode_record,
)

LIMITS = ChannelLimits(call=CallLimits(migration_ms=30_000), opening_ms=10_000, max_age_ms=100_000)


def again(channel: Channel) -> Channel:
    """The channel as another node reads it."""
    return Channel(decode_record(encode_record(channel.dump())), LIMITS)


def joined(generation: int, at: int, user: str, connection: str) -> Joined:
    return Joined(
        generation=generation,
        at=at,
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=connection,
    )


def channel_with(*users: str) -> Channel:
    """A channel whose room `s1` was opened at 1, with users since 10."""
    channel = Channel(ChannelRecord("x"), LIMITS)
    channel.opening(0, ChannelConfig(), "w")
    channel.opened("s1", 1)
    for user in users:
        channel.apply([joined(1, 10, user, f"{user}1")], 10)
    return channel


def moving(*users: str, reason: str = "operator") -> Channel:
    """A channel whose participants were asked at 110 to come over to `s2`."""
    channel = channel_with(*users)
    channel.migrate(100, reason)
    channel.moved("s2", 110)
    return again(channel)


def test_everybody_comes_over_early() -> None:
    """With the last one it is over before its deadline, and the old room is to be ended."""
    channel = moving("ann", "bob")
    told = channel.record.move
    channel.apply([joined(2, 120, "ann", "ann2")], 120)
    half = channel.call.phase if channel.call else None
    channel.apply([joined(2, 130, "bob", "bob2")], 130)

    assert Move("operator", 100, "moving", participants=2) == told
    assert Phase.MIGRATING is half
    assert Move("operator", 100, "moved", 2, migrated=2, ended_at=130) == channel.record.move
    assert ["s1"] == [room.session_id for room in channel.record.retired]
    assert channel.moves == [channel.record.move]


def test_who_does_not_come_is_stranded() -> None:
    """At the deadline the others are gone; the figures say how many."""
    channel = moving("ann", "bob", "cid")
    channel.apply([joined(2, 120, "ann", "ann2")], 120)
    channel.expire(110 + 30_000)

    assert channel.record.move == Move(
        "operator", 100, "moved", 3, migrated=1, stranded=2, ended_at=30_110
    )
    assert channel.call is not None
    assert channel.call.users == ("ann",)


def test_who_is_missed_is_looked_for_before_the_end() -> None:
    """Due once before the deadline, then at it; not when all have come."""
    channel, over = moving("ann"), moving("ann")
    over.apply([joined(2, 120, "ann", "ann2")], 120)

    assert (25_110, 30_110) == (channel.next_due(120), channel.next_due(25_110))
    assert [False, True] == [channel.stragglers(now) for now in (25_109, 25_110)]
    assert not over.stragglers(25_110)


def test_nobody_comes() -> None:
    """The call is empty then, and ends like every empty one."""
    channel = moving("ann")
    channel.expire(110 + 30_000)

    assert channel.record.move is not None
    assert ("stranded", 0, 1) == (
        channel.record.move.result,
        channel.record.move.migrated,
        channel.record.move.stranded,
    )


def test_reports_of_the_old_room_do_not_count() -> None:
    """Leaving the old room is how one comes over; it removes nobody from the call."""
    channel = moving("ann")
    left = Left(generation=1, at=115, source=Source.WEBHOOK, user_id="ann", connection_id="ann1")
    channel.apply([left], 120)

    assert channel.call is not None
    assert channel.call.users == ("ann",)


@pytest.mark.parametrize("asked", [True, False])
def test_a_migration_that_failed_leaves_the_call(asked: bool) -> None:
    """The call goes on; a room that was perhaps opened is to be ended; the next one waits."""
    channel = channel_with("ann")
    room = channel.migrate(100_001, "age")
    before = channel.too_old(100_002)
    channel.abandon(asked=asked)
    channel = again(channel)

    assert room is not None
    assert [room.key] * asked == [one.key for one in channel.record.retired]
    assert channel.live
    assert channel.record.move == Move("age", 100_001, "failed")
    assert [channel.too_old(now) for now in (100_002, 130_001)] == [before, True] == [False, True]


def test_a_migration_that_nobody_finished_is_due() -> None:
    """Whoever began it may be gone: the channel is due when the attempt is over, then given up."""
    channel = channel_with("ann")
    channel.migrate(100, "operator")
    channel = again(channel)

    assert (10_100, 30_100) == (channel.next_due(200), channel.next_due(10_100))
    assert [channel.unfinished(now) for now in (10_099, 10_100)] == [False, True]


def test_the_same_room_is_opened_by_whoever_carries_on() -> None:
    """Another node asks under the same key."""
    channel = channel_with("ann")
    room = channel.migrate(100, "operator")

    assert room == again(channel).migrate(20_000, "operator")


def test_a_lost_room_is_replaced_and_not_ended() -> None:
    """There is nothing to end at the provider."""
    channel = moving("ann", reason=LOST)
    channel.apply([joined(2, 120, "ann", "ann2")], 120)

    assert channel.record.retired == []


def test_a_session_that_nobody_holds_is_to_be_ended() -> None:
    """Rooms of the channel, also those that are coming or retired, are no orphans."""
    channel = moving("ann")
    channel.expire(110 + 30_000)
    coming = channel.migrate(40_000, "operator")
    assert coming is not None
    known = [channel.orphaned(name, 50_000) for name in ("s1", "s2", coming.key)]
    found = [channel.orphaned("s0", 50_000) for _ in "12"]

    assert ([False] * 3, [True, False]) == (known, found)
    assert ["s1", "s0"] == [room.session_id for room in channel.record.retired]
    assert channel.has_tasks


def test_a_call_that_ends_while_it_migrates() -> None:
    """Both rooms are to be ended, and the migration is said to have ended with the call."""
    channel = moving("ann")
    channel.end(200, "operator")

    assert channel.record.move is not None
    assert "ended" == channel.record.move.result
    assert {"s1", "s2"} == {room.session_id for room in channel.record.retired}


def test_a_call_that_was_over_when_its_new_room_opened() -> None:
    """The idle deadline passed while the provider was asked: both rooms are to be ended."""
    channel = channel_with()
    channel.migrate(100, "operator")
    late = 1 + CallLimits().unjoined_ms
    channel.moved("s2", late)

    assert not channel.live
    assert {"s1", "s2"} == {room.session_id for room in channel.record.retired}
