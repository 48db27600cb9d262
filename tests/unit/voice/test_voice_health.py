"""The health of a call: four checks, one score, one word."""

import pytest

from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.evidence import Joined, Polled, Source
from syncbridge.voice.health import RECENT_MS, check_health, judged
from syncbridge.voice.records import ChannelConfig, ChannelRecord


def channel_with(*users: str) -> Channel:
    """A channel that was opened at 0, with users since 10."""
    channel = Channel(ChannelRecord("x"), ChannelLimits())
    channel.opening(0, ChannelConfig(), "w")
    channel.opened("s", 0)
    for user in users:
        sign = Joined(
            generation=1, at=10, source=Source.WEBHOOK, user_id=user, connection_id=f"{user}1"
        )
        channel.apply([sign], 10)
    return channel


@pytest.mark.parametrize(
    ("good", "score", "status"),
    [
        (4, 1.0, "healthy"),
        (3, 0.75, "degraded"),
        (2, 0.5, "unhealthy"),
        (0, 0.0, "unhealthy"),
    ],
)
def test_the_word_for_a_score(good: int, score: float, status: str) -> None:
    """Above three quarters healthy, above a half degraded."""
    health = judged({str(n): n < good for n in range(4)})

    assert (score, status) == (health.score, health.status)


def test_a_call_in_use_is_healthy() -> None:
    """Somebody is in it, and it was heard of lately."""
    assert check_health(channel_with("ann"), 100).status == "healthy"


def test_what_takes_points() -> None:
    """Nobody there, no activity for five minutes, an error of the provider, no room."""
    silent = channel_with("ann")
    failed = channel_with("ann")
    failed.failed("SERVICE_UNAVAILABLE")
    checks = {
        "hasParticipants": check_health(channel_with(), 100).checks,
        "recentActivity": check_health(silent, 10 + RECENT_MS).checks,
        "noErrors": check_health(failed, 100).checks,
    }

    assert {
        name: [c for c, good in found.items() if not good] for name, found in checks.items()
    } == {name: [name] for name in checks}
    assert not check_health(Channel(ChannelRecord("y"), ChannelLimits()), 0).checks["isActive"]


def test_a_poll_that_names_somebody_is_activity() -> None:
    """A long call in which nobody comes or goes stays healthy as long as polls see it."""
    channel = channel_with("ann")
    channel.apply([Polled(generation=1, at=RECENT_MS, present=(("ann", "ann1"),))], RECENT_MS)

    assert check_health(channel, RECENT_MS + 10).checks["recentActivity"]
    assert 10 == channel.record.last_activity
