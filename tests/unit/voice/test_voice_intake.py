"""What webhooks do to a channel, in whatever order they come."""

import itertools
from typing import Any

import pytest

from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.intake import MAX_VACATED, IntakeResult, WebhookReport, apply_webhooks
from syncbridge.voice.provider.events import (
    Event,
    ParticipantJoined,
    ParticipantLeft,
    RecordingFailed,
    RecordingReady,
    SessionEnded,
    SessionStarted,
)
from syncbridge.voice.records import ChannelConfig, ChannelRecord

NOW = 1_000_000
LIMITS = ChannelLimits()


def live(limits: ChannelLimits = LIMITS) -> Channel:
    """A channel whose session `s1` was opened at 500 s."""
    channel = Channel(ChannelRecord("c"), limits)
    channel.opening(500_000, ChannelConfig(), "w")
    channel.opened("s1", 500_000)
    return channel


def joined(user: str, peer: str, at: float, occupancy: str = "") -> Event:
    return ParticipantJoined(
        session_id="s1", user_id=user, peer_id=peer, occurred_at=at, provider_session_id=occupancy
    )


def left(user: str, peer: str, at: float) -> Event:
    return ParticipantLeft(session_id="s1", user_id=user, peer_id=peer, occurred_at=at)


def ended(at: float | None, occupancy: str = "") -> Event:
    return SessionEnded(session_id="s1", occurred_at=at, provider_session_id=occupancy)


def take(channel: Channel, *events: Event, now: int = NOW) -> IntakeResult:
    return apply_webhooks(channel, [WebhookReport(event, now) for event in events], now)


def users(channel: Channel) -> tuple[str, ...]:
    return channel.call.users if channel.call is not None else ()


def told(channel: Channel) -> list[Any]:
    return [(n["type"], n.get("userId"), n.get("state")) for n in channel.news]


@pytest.mark.parametrize(
    ("occurred_at", "at"),
    [(None, NOW), (900.5, 900_500), (1000.001, NOW), (5e11, NOW), (0.0, NOW), (-5.0, NOW)],
)
def test_only_a_time_before_the_arrival_is_believed(occurred_at: float | None, at: int) -> None:
    """None, the future, zero and negative times count as the time of the arrival."""
    event = SessionStarted(session_id="s1", occurred_at=occurred_at)

    assert at == WebhookReport(event, NOW).at


def test_swapped_events_of_a_batch_are_told_in_order() -> None:
    """`left` before `joined`: sockets hear that the user came and went."""
    channel = live()
    take(channel, left("ann", "p1", 700), joined("ann", "p1", 699.7))

    assert () == users(channel)
    assert [
        ("voice_state_update", "ann", "connected"),
        ("voice_state_update", "ann", "disconnected"),
    ] == told(channel)


def test_a_left_without_joined_makes_nobody() -> None:
    """Nobody is told of, and the `joined` that comes in a later batch changes nothing."""
    channel = live()
    take(channel, left("ann", "p1", 700))
    take(channel, joined("ann", "p1", 699))

    assert ((), []) == (users(channel), told(channel))


def test_a_left_of_an_older_connection_leaves_the_user_in() -> None:
    """Ann came back before her first leaving was reported."""
    channel = live()
    take(channel, joined("ann", "p1", 600))
    take(channel, joined("ann", "p2", 650))
    take(channel, left("ann", "p1", 640))

    assert ("ann",) == users(channel)


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_the_order_of_arrival_does_not_matter(order: tuple[int, ...]) -> None:
    """Every order of the same five events, each in a batch of its own and twice, ends the same."""
    story = [
        joined("ann", "p1", 600, "o1"),
        joined("bob", "p2", 610, "o1"),
        left("ann", "p1", 620),
        ended(630, "o1"),
        joined("ann", "p3", 640, "o2"),
    ]
    channel = live()
    for index in order:
        take(channel, story[index])
        take(channel, story[index])

    assert channel.call is not None
    assert (("ann",), ("p3",)) == (channel.call.users, channel.call.connections("ann"))


def test_the_end_of_a_session_empties_the_room() -> None:
    """Who was in it is gone; whether the room is closed the provider is to be asked."""
    channel = live()
    result = take(channel, joined("ann", "p1", 600), ended(700))

    assert channel.call is not None
    assert (Phase.EMPTY, ()) == (channel.call.phase, channel.call.users)
    assert IntakeResult(concerned=True, check_state=True) == result
    assert (1, NOW - 1) == (channel.record.lost, channel.record.last_sync_at)


def test_an_end_before_the_latest_sign_removes_nobody() -> None:
    """Somebody was seen after it: the provider is to be asked."""
    channel = live()
    result = take(channel, joined("ann", "p1", 800), ended(700))

    assert ("ann",) == users(channel)
    assert (True, 0) == (result.check_state, channel.record.lost)


def test_who_comes_back_at_once_is_in_the_call() -> None:
    """The only participant loses the network for a moment; the end comes last of all."""
    channel = live()
    take(channel, joined("ann", "p1", 600))
    take(channel, left("ann", "p1", 700))
    take(channel, ended(700))
    take(channel, joined("ann", "p2", 700.2))

    assert ("ann",) == users(channel)


def test_an_end_in_the_midst_of_a_migration_ends_nothing() -> None:
    """Whoever has not come over yet is still in the old room, and the call goes on."""
    channel = live()
    take(channel, joined("ann", "p1", 600))
    assert channel.migrate(NOW, "manual") is not None
    channel.moved("s2", NOW)
    event = SessionEnded(session_id="s2", occurred_at=None)

    assert take(channel, event, now=NOW + 100).check_state
    assert ("ann",) == users(channel)
    assert not take(channel, ended(None), now=NOW + 200).check_state
    assert ("ann",) == users(channel)


def test_a_left_without_a_connection_asks_for_a_look() -> None:
    """It is one negative: the provider is asked at once, instead of at the next comparison."""
    channel = live()
    take(channel, joined("ann", "", 600), joined("bob", "p2", 600))

    assert take(channel, left("ann", "", 700)).check_state
    assert not take(channel, left("bob", "p2", 700)).check_state
    assert not take(channel, left("eve", "", 700)).check_state
    assert ("ann",) == users(channel)


def test_the_end_of_an_occupancy_empties_the_room() -> None:
    """Its connections are gone, the room stays, and the idle time begins."""
    channel = live()
    result = take(channel, joined("ann", "p1", 600, "o1"), ended(700, "o1"))

    assert channel.call is not None
    assert (Phase.EMPTY, ()) == (channel.call.phase, channel.call.users)
    assert (True, 0) == (result.check_state, channel.record.lost)


def test_the_end_of_an_occupancy_spares_the_next_one() -> None:
    """Who was seen after it is in another occupancy; it looks odd, so the provider is asked."""
    channel = live()
    result = take(channel, joined("ann", "p1", 600, "o1"), joined("bob", "p2", 800, "o2"))
    result = take(channel, ended(700, "o1"))

    assert ("bob",) == users(channel)
    assert result.check_state


def test_remembered_occupancies_are_bounded() -> None:
    """The latest are kept."""
    channel = live()
    for number in range(20):
        take(channel, ended(600 + number, f"o{number}"))

    assert [f"o{n}" for n in range(20 - MAX_VACATED, 20)] == channel.record.vacated


def test_other_sessions_are_no_concern() -> None:
    """Events of a session that the channel does not hold change nothing."""
    channel = live()
    event = ParticipantJoined(session_id="s0", user_id="ann", peer_id="p")

    assert IntakeResult() == take(channel, event)
    assert () == users(channel)


def test_a_started_session_is_activity() -> None:
    """Its time is noted, and no older one after it."""
    channel = live()
    take(channel, SessionStarted(session_id="s1", occurred_at=800))
    take(channel, SessionStarted(session_id="s1", occurred_at=700))

    assert 800_000 == channel.record.last_activity


def test_who_enters_a_pooled_room_begins_a_call() -> None:
    """With a token from before; but not who is said to have joined before the call ended."""
    channel = live(ChannelLimits(pool_uses=1))
    take(channel, joined("ann", "p1", 600), left("ann", "p1", 610))
    channel.expire(NOW + LIMITS.call.empty_ms)
    assert channel.call is None
    assert channel.record.room is not None

    later = NOW + LIMITS.call.empty_ms + 5_000
    take(channel, joined("bob", "p2", 700), now=later)
    assert channel.call is None
    take(channel, joined("bob", "p2", later / 1000), now=later)
    assert ("bob",) == users(channel)


def test_the_end_of_a_pooled_room_forgets_it() -> None:
    """Nobody is let into a room that the provider has closed."""
    channel = live(ChannelLimits(pool_uses=1))
    take(channel, joined("ann", "p1", 600), left("ann", "p1", 610))
    channel.expire(NOW + LIMITS.call.empty_ms)
    take(channel, ended(None), now=NOW + LIMITS.call.empty_ms + 5_000)

    assert channel.record.room is None


def test_a_recording_is_told_without_its_address() -> None:
    """Also long after its session has ended, for the address opens it."""
    channel = live()
    channel.end(NOW, "ended")
    channel.news.clear()
    event = RecordingReady(session_id="s1", recording_id="r1", url="https://secret", duration=9.5)

    assert take(channel, event).concerned
    assert [
        {"type": "recording_ready", "channelId": "c", "recordingId": "r1", "duration": 9.5}
    ] == channel.news
    assert "secret" not in repr(channel.record)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        ("r1", RecordingReady(session_id="s1", recording_id="r1"), "ready"),
        ("r1", RecordingFailed(session_id="s1", recording_id="r1"), "failed"),
        ("wanted", RecordingReady(session_id="s1", recording_id="r0"), "wanted"),
        ("r1", RecordingReady(session_id="s0", recording_id="r0"), "r1"),
    ],
)
def test_what_is_noted_of_a_recording(before: str, event: Event, after: str) -> None:
    """One that is still wanted stays so, and those of other sessions are not noted."""
    channel = live()
    channel.record.recording = before
    take(channel, event)

    assert after == channel.record.recording


def test_a_channel_that_never_was_hears_of_no_recording() -> None:
    """It was forgotten: there is nobody to tell, and nothing is to be written."""
    channel = Channel(ChannelRecord("c"), LIMITS)

    assert IntakeResult() == take(channel, RecordingReady(session_id="s1", recording_id="r1"))
    assert [] == channel.news
