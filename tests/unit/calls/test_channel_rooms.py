"""A call moves to another room: with everybody, with some, or not at all; and what is due when."""

import msgspec

from support.voice.channel_kit import (
    LIMITS,
    MINUTE,
    NOW,
    again,
    empty,
    joined,
    kinds,
    left,
    migrating,
    peopled,
    sessions,
    used,
    users,
)
from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import LOST, RETIRED_MOST
from syncbridge.voice.channel_limits import DAY
from syncbridge.voice.records import ChannelConfig


def test_a_migration_asks_for_one_room_and_moves_the_call_there() -> None:
    """The same room until it is open; then the old one waits for those who come over."""
    channel = peopled("ann", "bob")
    first = channel.migrate(NOW + 5, "limit")
    second = again(channel).migrate(NOW + 6, "other")
    assert first is not None
    assert first == second
    assert (2, "limit") == (first.generation, first.reason)
    assert NOW + 5 + LIMITS.opening_ms == channel.next_due(NOW + 5)
    assert ("ann", "bob") == users(channel)
    channel.moved("s2", NOW + 7, first.key)
    told = channel.news[-1]
    channel = again(channel)

    assert (2, 1) == (channel.generation_of("s2"), channel.generation_of("s1"))
    assert ("s1", "s2", "limit", 30_000) == (
        told["oldSessionId"],
        told["newSessionId"],
        told["cause"],
        told["deadlineMs"],
    )
    last_look = NOW + 7 + 30_000 - LIMITS.last_look_ms
    assert [last_look, NOW + 7 + 30_000] == [channel.next_due(at) for at in (NOW + 7, last_look)]
    assert channel.migrate(NOW + 8, "again") is None
    assert channel.call is not None
    assert (Phase.MIGRATING, ("ann", "bob")) == (channel.call.phase, users(channel))


def test_a_migration_ends_when_everybody_has_come_over() -> None:
    """Before its deadline; the old room is to be ended, and nobody is told to have left."""
    channel = migrating("ann", "bob")
    channel.apply([joined("ann", NOW + 1, 2), left("ann", NOW + 1)], NOW + 1)
    channel = again(channel)
    assert channel.record.previous is not None
    channel.apply([joined("bob", NOW + 2, 2)], NOW + 2)

    assert (None, ["s1"]) == (channel.record.previous, sessions(channel.record.retired))
    assert ("ann", "bob") == users(channel)
    assert [] == kinds(channel)
    assert [] == again(channel).apply([left("ann", NOW + 3)], NOW + 3)


def test_who_has_not_come_over_by_the_deadline_is_gone() -> None:
    """With the old room; the call goes on with the others."""
    channel = migrating("ann", "bob")
    channel.apply([joined("ann", NOW + 1, 2)], NOW + 1)
    channel.expire(NOW + 29_999)
    assert ("ann", "bob") == users(channel)
    channel.expire(NOW + 30_000)

    assert ("ann",) == users(channel)
    assert [("bob", "migration")] == [(m["userId"], m["reason"]) for m in channel.news[-1:]]
    assert (None, ["s1"]) == (channel.record.previous, sessions(channel.record.retired))


def test_a_migration_to_which_nobody_came_is_an_empty_call() -> None:
    """It waits as any other does, and its figures count the migration."""
    channel = migrating("ann")
    channel.expire(NOW + 30_000)
    channel = again(channel)
    over = NOW + 30_000 + 5 * MINUTE
    assert ((), True) == (users(channel), channel.live)
    assert NOW + 30_000 + LIMITS.retry_ms == channel.next_due(NOW + 30_000)
    channel.expire(over)

    assert [("s2", 2, 1)] == [(f.session_id, f.generation, f.migrations) for f in channel.finals]
    assert ["s1", "s2"] == sessions(channel.record.retired)


def test_a_room_that_is_lost_is_not_to_be_ended() -> None:
    """The provider has it no more. The one that took its place is to be, in its time."""
    channel = migrating("ann", reason=LOST)
    channel.apply([joined("ann", NOW + 1, 2)], NOW + 1)
    assert (None, []) == (channel.record.previous, channel.record.retired)
    channel.end(NOW + 2, "ended")

    assert ["s2"] == sessions(channel.record.retired)


def test_a_migration_that_does_not_come_about_is_given_up() -> None:
    """The call goes on; what was asked for is ended, and is never taken for a later one."""
    channel = peopled("ann")
    late = channel.migrate(NOW, "limit")
    assert late is not None
    until = channel.record.coming_until
    channel.expire(until - 1)
    assert late == channel.record.coming
    channel.expire(until)
    channel = again(channel)
    assert (None, [late.key]) == (channel.record.coming, [r.key for r in channel.record.retired])
    assert [] == channel.moved("s2", until + 1, late.key)
    later = channel.migrate(until + 2, "limit")
    assert later is not None
    assert [] == channel.moved("s2", until + 3, late.key)

    assert (3, "s1") == (later.generation, channel.record.room.session_id)
    channel.moved("s3", until + 4, later.key)
    assert "s3" == channel.record.room.session_id
    assert ("ann",) == users(channel)


def test_a_call_that_ends_while_it_migrates_leaves_no_room() -> None:
    """Neither the one that it left nor the one that was coming."""
    moved, asked = migrating("ann"), peopled("ann")
    coming = asked.migrate(NOW + 5, "limit")
    assert coming is not None
    for channel in (moved, asked):
        channel.end(NOW + 5, "admin")
        record = channel.record
        assert (None, None, None) == (record.room, record.coming, record.previous)
    following = asked.opening(NOW + 5, ChannelConfig(), "w")

    assert ["s1", "s2"] == sessions(moved.record.retired)
    assert [coming.key, "s1"] == [r.session_id or r.key for r in asked.record.retired]
    assert following.key != coming.key
    assert following.generation > coming.generation


def test_nothing_is_migrated_without_a_call_or_with_too_many_rooms_to_end() -> None:
    """A provider that ends nothing is not asked to open more and more."""
    assert empty().migrate(NOW, "limit") is None
    assert used(2).migrate(NOW, "limit") is None
    channel = peopled("ann")
    for n in range(RETIRED_MOST):
        assert channel.migrate(NOW + n, "limit") is not None
        channel.abandon()

    assert channel.migrate(NOW + 100, "limit") is None
    assert [] == channel.moved("s2", NOW + 100)


def test_a_room_that_is_too_old_is_to_be_left() -> None:
    """From its age on, unless it is being left; a room that was kept is as old as it is."""
    channel = peopled("ann")
    assert NOW + DAY == channel.next_due(NOW)
    assert [False, True] == [channel.too_old(NOW + age) for age in (DAY - 1, DAY)]
    room = channel.migrate(NOW + DAY, "limit")
    assert room is not None
    channel.moved("s2", NOW + DAY, room.key)
    assert not channel.too_old(NOW + DAY)
    never = peopled("ann", limits=msgspec.structs.replace(LIMITS, max_age_ms=0))
    assert (False, None) == (never.too_old(NOW + 9 * DAY), never.next_due(NOW))

    kept = used(2)
    kept.opened("s2", NOW + 5)
    since = kept.record.room.opened_at
    assert since < NOW
    assert kept.too_old(since + DAY)


def test_every_deed_that_is_noted_is_due() -> None:
    """A room that was asked for, one that is coming, one to be ended; again after each failure."""
    channel = empty()
    assert channel.next_due(NOW) is None
    room = channel.opening(NOW, ChannelConfig(), "w")
    assert NOW + LIMITS.opening_ms == channel.next_due(NOW)
    channel.postpone(NOW + LIMITS.opening_ms)
    channel.postpone(NOW + LIMITS.opening_ms)
    again_at = NOW + LIMITS.opening_ms + 2 * LIMITS.retry_ms
    assert again_at == channel.next_due(NOW + LIMITS.opening_ms)
    channel.opened("s1", NOW + 20_000, room.key)
    assert NOW + 20_000 + 15 * MINUTE == channel.next_due(NOW + 20_000)
    channel.end(NOW + 30_000, "ended")

    assert channel.has_tasks
    assert NOW + 30_000 + LIMITS.retry_ms == channel.next_due(NOW + 30_000)
    channel.postpone(NOW + 30_000, 60_000)
    assert NOW + 90_000 == channel.next_due(NOW + 30_000)
