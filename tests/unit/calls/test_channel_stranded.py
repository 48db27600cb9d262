"""Who has not come over to another session is gone, although the client goes on as before."""

from collections.abc import Callable

import pytest

from support.voice.channel_kit import LIMITS, NOW, again, kinds, opened, users
from syncbridge.voice import reporting
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Evidence, Joined, Polled, Source
from syncbridge.voice.holding import ClientReport

LEASE = LIMITS.call.lease_ms
OVER = NOW + LIMITS.call.migration_ms
LATER = OVER + 5_000


def shown(connection: str, user: str = "ann", generation: int = 2) -> Joined:
    """The provider shows a connection, some time after the migration."""
    return Joined(
        generation=generation,
        at=LATER - 1,
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=connection,
    )


def says(channel: Channel, connection: str = "", session: str = "", at: int = LATER) -> None:
    """Ann's phone reports."""
    said = ClientReport("ann", "phone", "sid", connection, session)
    reporting.report(channel, said, at)


def stranded(connection: str = "c1") -> Channel:
    """Ann's phone was in session s1 and reported; Bob has come over to s2, she has not."""
    channel = opened(NOW - 1000)
    said = ClientReport("ann", "phone", "sid", connection)
    reporting.report(channel, said, NOW - 500)
    room = channel.migrate(NOW, "age")
    assert room is not None
    channel.moved("s2", NOW, room.key)
    bob = Joined(
        generation=2, at=NOW + 10, source=Source.WEBHOOK, user_id="bob", connection_id="b2"
    )
    channel.apply([bob], NOW + 10)
    channel.expire(OVER)
    assert ("bob",) == users(channel)
    return again(channel)


@pytest.mark.parametrize(("before", "now"), [("", ""), ("c1", ""), ("c1", "c1")])
def test_a_report_without_news_brings_nobody_back(before: str, now: str) -> None:
    """For ever, as long as the client repeats it; nobody is told anything, and nothing is held."""
    channel = stranded(before)
    for n in range(1, 10):
        says(channel, now, at=OVER + n * LEASE // 4)
        says(channel, now, "s1", at=OVER + n * LEASE // 4)
        channel = again(channel)

    assert (("bob",), []) == (users(channel), kinds(channel))


BACK: dict[str, Callable[[Channel], None]] = {
    "the new session": lambda c: says(c, "c1", "s2"),
    "the new session, without a connection": lambda c: says(c, "", "s2"),
    "a connection that was not in the old one": lambda c: says(c, "c2"),
    "a webhook": lambda c: heard(c, shown("c2")),
    "a webhook with the old id": lambda c: heard(c, shown("c1")),
    "a poll without ids": lambda c: heard(
        c, Polled(generation=2, at=LATER, present=(("ann", ""), ("bob", "b2")))
    ),
}


def heard(channel: Channel, evidence: Evidence) -> None:
    """The provider says it."""
    channel.apply([evidence], LATER)


@pytest.mark.parametrize("case", BACK)
def test_a_real_join_does(case: str) -> None:
    """From then on the plain report counts again."""
    channel = stranded()
    says(channel, "c1")
    BACK[case](channel)
    says(channel, at=LATER + 10)

    assert ("bob", "ann") == users(channel)
    assert "connected" == kinds(channel)[0]


def test_a_client_that_was_silent_is_a_newcomer() -> None:
    """Without a name for its connection; one of the old session stays one of the old session."""
    channel, named = stranded(""), stranded()
    says(channel, at=LATER)
    says(named, "c1", at=LATER)
    silence = LATER + LEASE + 1
    says(channel, at=silence)
    says(named, "c1", at=silence)

    assert (("bob", "ann"), ("bob",)) == (users(channel), users(named))


def test_another_device_that_came_over_stays_alone() -> None:
    """The phone goes on reporting its old connection beside the tablet's new one."""
    channel = stranded()
    heard(channel, shown("c2"))
    says(channel, "c1")

    assert channel.call is not None
    assert ("c2",) == channel.call.connections("ann")


def test_whom_polls_have_refuted_before_does_not_come_back_by_moving() -> None:
    """The call has another room, but this client does not say that it is in it."""
    channel = opened(NOW - 1000)
    heard_at = [NOW - 900, NOW - 800, NOW - 700]
    bob = shown("b1", "bob", 1)
    channel.apply([bob], NOW - 950)
    says(channel, "c1", at=heard_at[0])
    for at in heard_at[1:]:
        channel.apply([Polled(generation=1, at=at, present=(("bob", "b1"),))], at + 1)
    assert ("bob",) == users(channel)
    room = channel.migrate(NOW, "age")
    assert room is not None
    channel.moved("s2", NOW, room.key)
    channel.apply([shown("b2", "bob")], LATER)

    says(channel, "")
    says(channel, "c1")
    assert ("bob",) == users(channel)
    says(channel, "c2")
    assert ("bob", "ann") == users(channel)
