"""The rules of a channel: its rooms, its seats, its call, and rooms that are kept or made early."""

import msgspec
import pytest

from support.voice.channel_kit import (
    LIMITS,
    MAY,
    MINUTE,
    NOW,
    again,
    empty,
    joined,
    kinds,
    left,
    opened,
    peopled,
    sessions,
    used,
    users,
)
from syncbridge.voice.ahead import prewarm, wanted_config
from syncbridge.voice.call_records import Phase, UserJoined, UserLeft
from syncbridge.voice.channel import ChannelLimits
from syncbridge.voice.channel_limits import DAY
from syncbridge.voice.evidence import Ended, Joined, Polled, Source
from syncbridge.voice.provider.errors import SessionFull
from syncbridge.voice.provider.records import Permissions
from syncbridge.voice.records import ChannelConfig, Room

# Opening


def test_opening_repeated_is_the_same_room() -> None:
    """One key until it is open, whoever asks and however they would have it."""
    channel = empty()
    first = channel.opening(NOW, ChannelConfig(max_participants=5), "w")
    second = again(channel).opening(NOW + 5, ChannelConfig(max_participants=9), "other")

    assert first == second == Room(1, f"waddle_c_{NOW}_1", NOW)
    assert not channel.live
    assert (5, "w") == (channel.record.config.max_participants, channel.record.waddle_id)


def test_an_opened_room_begins_the_call() -> None:
    """It is live, in the room's generation, with the bounds of the channel; once."""
    channel = opened(most=7)
    channel.opened("other", NOW + 1)

    assert channel.live
    assert channel.call is not None
    assert (1, Phase.WAITING, 7) == (
        channel.call.generation,
        channel.call.phase,
        channel.call.limits.max_participants,
    )
    assert (NOW, NOW) == (channel.record.created_at, channel.record.last_activity)
    assert channel.record.room is not None
    assert ("s1", 1) == (channel.record.room.session_id, channel.record.room.generation)
    assert [1, None, None] == [channel.generation_of(s) for s in ("s1", "other", "")]


def test_a_room_that_is_not_wanted_any_more_begins_nothing() -> None:
    """Its answer comes late: another one is wanted, or none. It is ended all the same."""
    channel = empty()
    late = channel.opening(NOW, ChannelConfig(), "w")
    channel.end(NOW + 1, "ended")
    channel.opened("s1", NOW + 2, late.key)
    assert (None, None, [late]) == (channel.record.room, channel.call, channel.record.retired)

    wanted = channel.opening(NOW + 3, ChannelConfig(), "w")
    channel.opened("s1", NOW + 4, late.key)
    assert (wanted, None) == (channel.record.room, channel.call)
    channel.opened("s2", NOW + 5, wanted.key)
    assert "s2" == channel.record.room.session_id
    assert late.generation < wanted.generation


def test_a_refusal_is_noted_until_the_room_is_open() -> None:
    """As a code."""
    channel = empty()
    room = channel.opening(NOW, ChannelConfig(), "w")
    channel.failed("RATE_LIMITED")
    assert "RATE_LIMITED" == again(channel).record.last_error
    channel.opened("s1", NOW, room.key)

    assert "" == channel.record.last_error


def test_a_recording_is_wanted_when_somebody_is_there() -> None:
    """Noted with the room; there is nothing to record before."""
    channel = empty()
    channel.opening(NOW, ChannelConfig(recording=True), "w")
    channel.opened("s1", NOW)
    assert ("wanted", False) == (channel.record.recording, channel.has_tasks)
    channel.apply([joined("ann", NOW + 1)], NOW + 1)

    assert channel.has_tasks
    assert channel.next_due(NOW + 1) == NOW + 1 + LIMITS.retry_ms


# Seats


def test_seats_are_kept_for_tokens_and_participants() -> None:
    """One for each user; a token that nobody uses gives its seat back."""
    channel = opened(most=2)
    channel.admit("ann", MAY, NOW)
    channel.admit("ann", MAY, NOW + 1)
    channel.apply([joined("ann", NOW + 2)], NOW + 2)
    channel.admit("bob", MAY, NOW + 3)
    with pytest.raises(SessionFull) as caught:
        channel.admit("cy", MAY, NOW + 4)
    channel = again(channel)
    over = NOW + 3 + LIMITS.seat_ms

    assert LIMITS.seat_ms / 1000 == caught.value.retry_after
    assert [2, 1] == [channel.taken(now) for now in (over - 1, over)]
    channel.admit("cy", MAY, over)
    assert ["ann", "cy"] == sorted(channel.record.participants)


def test_who_is_in_the_call_always_has_a_seat() -> None:
    """Also when the provider lets in more than there are seats: a token may have to be renewed."""
    channel = opened(most=1)
    channel.apply([joined("ann", NOW), joined("bob", NOW)], NOW)
    channel.admit("bob", MAY, NOW + 1)
    with pytest.raises(SessionFull):
        channel.admit("cy", MAY, NOW + 1)

    assert {"bob"} == set(channel.record.participants)


def test_a_seat_is_given_back() -> None:
    """At once; a participant's is not."""
    channel = opened(most=2)
    channel.admit("ann", MAY, NOW)
    channel.admit("bob", MAY, NOW)
    channel.apply([joined("bob", NOW)], NOW)
    for user in ("ann", "bob", "nobody"):
        channel.unseat(user, NOW)

    assert (1, {"bob"}) == (channel.taken(NOW), set(channel.record.participants))


def test_guests_are_forgotten_when_they_are_gone() -> None:
    """Who is in the call stays known; the number of the others has a bound in time."""
    channel = peopled("ann")
    for n, user in enumerate(("ann", "bob")):
        channel.admit(user, Permissions(can_record=True), NOW + n)
    assert {"ann", "bob"} == set(channel.record.participants)
    channel.expire(NOW + 1 + LIMITS.seat_ms)

    assert {"ann"} == set(channel.record.participants)
    assert channel.record.participants["ann"].permissions.can_record


# The call


def test_evidence_is_told_once() -> None:
    """Who comes and who goes, in order; repetitions tell nothing."""
    channel = opened()
    come = [joined("ann", NOW + 1), joined("bob", NOW + 2)]
    events = channel.apply([*come, left("ann", NOW + 3), *come], NOW + 3)
    told = kinds(channel)
    channel = again(channel)
    channel.apply([*come, left("ann", NOW + 3)], NOW + 4)

    assert {"ann", "bob"} == {e.user_id for e in events if isinstance(e, UserJoined | UserLeft)}
    assert ["connected", "connected", "disconnected"] == told
    assert [] == channel.news
    assert ("bob",) == users(channel)


def test_nothing_is_heard_without_a_call() -> None:
    """No room, or one that is being opened."""
    channel = empty()
    assert [] == channel.apply([joined("ann", NOW)], NOW)
    channel.opening(NOW, ChannelConfig(), "w")

    assert [] == channel.apply([joined("ann", NOW)], NOW)
    assert [] == channel.expire(NOW)
    assert not channel.live


def test_what_a_poll_repeats_is_no_activity() -> None:
    """Looking is not doing; a poll that shows somebody new is."""
    channel = peopled("ann")
    channel.apply([Polled(generation=1, at=NOW + 50, present=(("ann", "ANN1"),))], NOW + 50)
    assert NOW + 1 == channel.record.last_activity
    both = (("ann", "ANN1"), ("bob", "BOB1"))
    channel.apply([Polled(generation=1, at=NOW + 60, present=both)], NOW + 60)

    assert NOW + 60 == channel.record.last_activity


def test_a_call_that_nobody_joined_ends() -> None:
    """At its deadline and not before; its room is to be ended, its figures are kept."""
    channel = opened()
    over = NOW + 15 * MINUTE
    assert over == channel.next_due(NOW)
    channel.expire(over - 1)
    assert channel.live
    channel.expire(over)
    final = channel.finals[0]

    assert (None, None, ["s1"]) == (
        channel.call,
        channel.record.room,
        sessions(channel.record.retired),
    )
    assert ("c", "w", "s1", 1, NOW, over, "idle", 0, 0) == msgspec.structs.astuple(final)[:9]
    assert ["session_ended"] == kinds(channel)
    assert not channel.idle


def test_late_news_do_not_save_a_call_that_is_over() -> None:
    """Evidence after the deadline finds it ended, for the reason that it was idle."""
    channel = opened()
    channel.apply([joined("ann", NOW + 15 * MINUTE)], NOW + 15 * MINUTE)

    assert [("idle", 0)] == [(f.reason, f.peak_participants) for f in channel.finals]
    assert ["s1"] == sessions(channel.record.retired)


def test_a_call_waits_for_who_has_a_token() -> None:
    """Nobody is let into a room that is ended under their feet."""
    channel = opened()
    over = NOW + 15 * MINUTE
    channel.admit("ann", MAY, over - 1)
    channel = again(channel)
    kept = over - 1 + LIMITS.seat_ms
    assert kept == channel.next_due(over)
    channel.expire(kept - 1)
    channel.apply([joined("ann", kept - 1)], kept - 1)
    assert ("ann",) == users(channel)

    other = opened()
    other.admit("ann", MAY, over - 1)
    other.expire(kept)
    assert not other.live


def test_an_ended_call_leaves_nothing_behind() -> None:
    """By us or by the provider: everybody is gone, with figures, and nobody keeps a seat."""
    by_us, by_provider = peopled("ann", "bob"), peopled("ann", "bob")
    for channel in (by_us, by_provider):
        channel.admit("cy", MAY, NOW + 5)
    by_us.end(NOW + 1001, "admin")
    by_provider.apply([Ended(generation=1, at=NOW + 1001)], NOW + 1001)
    for channel, reason in ((by_us, "admin"), (by_provider, "ended")):
        final = channel.finals[0]
        assert (reason, 2, 2000) == (
            final.reason,
            final.peak_participants,
            final.total_participant_ms,
        )
        assert ["disconnected", "disconnected", "session_ended"] == kinds(channel)
        assert {} == channel.record.participants
        channel = again(channel)
        assert [] == channel.end(NOW + 1002, "again") == channel.finals
        room = channel.record.retired[0]
        assert NOW + 1002 + LIMITS.retry_ms == channel.next_due(NOW + 1002)
        channel.confirm_ended(room)
        assert (True, False, None) == (
            channel.idle,
            channel.has_tasks,
            channel.next_due(NOW + 1002),
        )


def test_the_next_call_has_a_room_and_a_generation_of_its_own() -> None:
    """What is said of the one before does not concern it."""
    channel = peopled("ann")
    channel.end(NOW + 10, "ended")
    room = channel.opening(NOW + 11, ChannelConfig(), "w")
    channel.opened("s2", NOW + 11, room.key)
    channel.apply([joined("ann", NOW + 12, 1), joined("bob", NOW + 12, 2)], NOW + 12)

    assert ("bob",) == users(channel)
    assert (None, 2) == (channel.generation_of("s1"), channel.generation_of("s2"))


# Pooling and scheduled events


def test_the_room_of_a_frequent_channel_is_kept() -> None:
    """For the next call, in the same generation; after its time it is ended."""
    channel = used(2)
    kept = channel.record.room
    assert kept is not None
    assert (False, NOW + LIMITS.pool_ms) == (channel.live, channel.next_due(NOW))
    channel.expire(NOW + LIMITS.pool_ms - 1)
    assert kept == channel.opening(NOW + 5, ChannelConfig(max_participants=1), "other")
    channel.opened(kept.session_id, NOW + 5, kept.key)

    assert (True, 0, kept) == (channel.live, channel.record.pooled_until, channel.record.room)
    expired = used(2)
    expired.expire(NOW + LIMITS.pool_ms)
    assert (None, ["s2"]) == (expired.record.room, sessions(expired.record.retired))


@pytest.mark.parametrize(
    ("times", "limits"),
    [
        (1, LIMITS),
        (5, msgspec.structs.replace(LIMITS, pool_uses=0)),
        (2, msgspec.structs.replace(LIMITS, max_age_ms=20 * MINUTE)),
    ],
)
def test_other_rooms_are_not_kept(times: int, limits: ChannelLimits) -> None:
    """Of a rare channel, without pooling, and one that would be too old in the pool."""
    channel = used(times, limits=limits)

    assert (None, [f"s{times}"]) == (channel.record.room, sessions(channel.record.retired))


def test_old_uses_do_not_count() -> None:
    """A channel is frequent by its calls of one day."""
    channel = peopled("ann")
    channel.end(NOW + 10, "ended")
    room = channel.opening(NOW + DAY, ChannelConfig(), "w")
    channel.opened("s2", NOW + DAY, room.key)
    channel.expire(NOW + DAY + 15 * MINUTE)

    assert [NOW + DAY] == channel.record.uses
    assert channel.record.room is None


def test_a_call_that_was_ended_keeps_no_room() -> None:
    """Only one that ended by itself does; a pooled room can be ended, too."""
    channel = used(2)
    channel.opened("s2", NOW + 1)
    channel.end(NOW + 2, "admin")
    assert channel.record.room is None
    pooled = used(2)
    pooled.end(NOW + 1, "admin")

    assert (None, ["s2"]) == (pooled.record.room, sessions(pooled.record.retired))


def test_a_room_is_opened_ahead_of_an_event_and_kept_for_it() -> None:
    """Due at that time; kept until somebody should have come, and the first who comes is in."""
    channel = empty()
    starts = NOW + 60 * MINUTE
    prewarm(channel, NOW, starts, ChannelConfig(max_participants=3), "w")
    channel = again(channel)
    assert (starts, False) == (channel.next_due(NOW), channel.idle)
    assert [False, True] == [channel.cold(starts - 1), channel.cold(starts)]
    room = channel.opening(starts, wanted_config(channel, starts, ChannelConfig()), "w")
    channel.opened("s1", starts, room.key)
    until = channel.record.warm_until
    channel = again(channel)

    assert until == channel.next_due(starts)
    channel.expire(until - 1)
    channel.apply([joined("ann", until - 1)], until - 1)
    assert ("ann",) == users(channel)
    channel = again(channel)
    assert 3 == channel.record.config.max_participants


def test_a_room_that_is_open_stays_for_an_event() -> None:
    """Its call would have ended before; evidence in between does not end it either."""
    channel = opened()
    prewarm(channel, NOW, NOW + 10 * MINUTE, ChannelConfig(), "w")
    until = channel.record.warm_until
    assert until == NOW + 25 * MINUTE
    channel.expire(NOW + 15 * MINUTE)
    channel.apply([Polled(generation=1, at=NOW, present=())], NOW + 20 * MINUTE)
    assert channel.live
    channel.expire(until)

    assert not channel.live
    assert not channel.cold(until)


def test_leases_end_while_an_event_is_near() -> None:
    """What keeps an empty call says nothing about who is in it."""
    channel = opened()
    prewarm(channel, NOW, NOW, ChannelConfig(), "w")
    sign = Joined(generation=1, at=NOW, source=Source.CLIENT, user_id="ann", connection_id="ANN1")
    channel.apply([sign], NOW)
    lease = NOW + LIMITS.call.lease_ms

    assert lease == channel.next_due(NOW)
    channel.expire(lease)
    assert () == users(channel)
    assert channel.live
