"""The state machine of one channel's call, rule by rule."""

from pathlib import Path

import pytest

from syncbridge.voice.call import ChannelCall
from syncbridge.voice.call_records import (
    TRANSITIONS,
    CallLimits,
    Cause,
    Event,
    Phase,
    PhaseChanged,
    UserJoined,
    UserLeft,
)
from syncbridge.voice.evidence import Ended, Joined, Left, Migrated, Polled, Source, Vacant

DOCS = Path(__file__).parents[3] / "docs" / "voice-calls.md"
MINUTE = 60_000


def joined(user: str, connection: str, at: int, source: Source = Source.WEBHOOK) -> Joined:
    return Joined(generation=1, at=at, source=source, user_id=user, connection_id=connection)


def left(user: str, connection: str, at: int, source: Source = Source.WEBHOOK) -> Left:
    return Left(generation=1, at=at, source=source, user_id=user, connection_id=connection)


def polled(at: int, *present: tuple[str, str]) -> Polled:
    return Polled(generation=1, at=at, present=present)


def call_with(*users: str) -> ChannelCall:
    """A call since 0 in which each user has the connection `<user>1`, seen at 10."""
    call = ChannelCall(0)
    for user in users:
        call.apply(joined(user, f"{user}1", 10), 10)
    return call


def test_the_first_one_makes_it_active() -> None:
    """Somebody comes: the user is told, and the call is active."""
    events: list[Event] = ChannelCall(0).apply(joined("ann", "a1", 5), 5)

    assert events == [UserJoined("ann"), PhaseChanged(Phase.ACTIVE, Cause.CAME, 1)]


def test_a_repeated_join_is_no_news() -> None:
    """The same evidence again changes nothing."""
    call = call_with("ann")

    assert call.apply(joined("ann", "ann1", 10), 20) == []
    assert call.users == ("ann",)


def test_left_of_an_older_connection_is_ignored() -> None:
    """A delayed `left` after a rejoin does not remove the user."""
    call = call_with("ann")
    call.apply(joined("ann", "ann2", 20), 20)

    assert call.apply(left("ann", "ann1", 15), 30) == []
    assert call.connections("ann") == ("ann2",)


def test_left_of_a_connection_whose_user_was_there_later() -> None:
    """A poll without ids has shown the user since: there is another one, not heard of yet."""
    call = call_with("ann")
    call.apply(polled(40, ("ann", "")), 41)

    assert call.apply(left("ann", "ann1", 30), 50) == []
    assert call.connections("ann") == ("",)
    assert call.apply(joined("ann", "ann2", 35), 60) == []
    assert call.connections("ann") == ("ann2",)
    assert call.apply(left("ann", "ann2", 45), 70)[0] == UserLeft("ann", "left")


def test_old_news_do_not_hide_that_a_user_was_there_later() -> None:
    """Both ends of an older connection are reported when polls have long shown the next one."""
    call = ChannelCall(0)
    call.apply(polled(40, ("ann", "")), 41)

    assert [] == call.apply(joined("ann", "ann1", 10), 50) + call.apply(left("ann", "ann1", 20), 50)
    assert call.users == ("ann",)


def test_left_before_its_joined() -> None:
    """Swapped deliveries end like the right order: nobody is there."""
    call = ChannelCall(0)

    assert call.apply(left("ann", "a1", 20), 20) == []
    assert call.apply(joined("ann", "a1", 10), 21) == []
    assert call.users == ()


def test_one_poll_removes_nobody_and_the_second_does() -> None:
    """A user who is missing from two polls, one after the other, is gone."""
    call = call_with("ann", "bob")

    assert call.apply(polled(100, ("bob", "bob1")), 110) == []
    assert call.apply(polled(105, ("bob", "bob1")), 111) == []
    assert call.apply(polled(120, ("bob", "bob1")), 130) == [UserLeft("ann", "verified")]


def test_an_empty_poll_says_nothing() -> None:
    """However often a poll is empty, everybody stays."""
    call = call_with("ann")
    for at in range(100, 1000, 100):
        assert call.apply(polled(at), at) == []

    assert call.users == ("ann",)


def test_poll_and_client_are_two_sources() -> None:
    """The client's own word and one poll are independent."""
    call = call_with("ann", "bob")
    call.apply(left("ann", "", 50, Source.CLIENT), 50)

    assert call.apply(polled(60, ("bob", "bob1")), 70) == [UserLeft("ann", "verified")]


def test_a_sign_of_life_clears_the_doubt() -> None:
    """A poll that names the connection undoes an earlier negative."""
    call = call_with("ann", "bob")
    both = (("ann", "ann1"), ("bob", "bob1"))
    call.apply(polled(100, both[1]), 110)
    call.apply(polled(120, *both), 130)

    assert call.apply(polled(140, both[1]), 150) == []


def test_a_poll_that_began_before_the_join_does_not_count() -> None:
    """Absence is no news when the list is older than the connection."""
    call = call_with("bob")
    call.apply(joined("ann", "a1", 200), 200)

    assert call.apply(polled(150, ("bob", "bob1")), 210) == []
    assert call.apply(left("ann", "", 220, Source.CLIENT), 220) == []
    assert call.users == ("bob", "ann")


def test_a_lease_is_held_by_reports_and_expires() -> None:
    """A client that reported once and then no more is removed when its lease ends."""
    call = call_with("ann")
    call.apply(joined("ann", "ann1", 1000, Source.CLIENT), 1000)
    call.apply(joined("ann", "ann1", 90_000, Source.CLIENT), 90_000)

    assert call.next_due() == 210_000
    assert call.expire(209_999) == []
    assert call.expire(210_000)[0] == UserLeft("ann", "expired")


def test_without_a_lease_silence_is_no_evidence() -> None:
    """Who is known from the provider alone stays for a day without a word."""
    call = call_with("ann")

    assert call.expire(24 * 60 * MINUTE) == []
    assert call.users == ("ann",)


@pytest.mark.parametrize(("ever", "wait"), [(False, 15 * MINUTE), (True, 5 * MINUTE)])
def test_idle_calls_end(ever: bool, wait: int) -> None:
    """15 minutes if nobody came, 5 after the last one left."""
    call = call_with("ann") if ever else ChannelCall(0)
    if ever:
        call.apply(left("ann", "ann1", 0), 10)
    began = 10 if ever else 0

    assert call.next_due() == began + wait
    assert call.expire(began + wait - 1) == []
    assert call.expire(began + wait) == [PhaseChanged(Phase.ENDED, Cause.IDLE, 1)]
    assert (call.next_due(), call.apply(joined("x", "x1", 9), 10**9)) == (None, [])


def test_a_migration_keeps_users_until_its_deadline() -> None:
    """Who comes over stays; who does not is gone after 30 s; the old session is not heard."""
    call = call_with("ann", "bob")
    call.apply(Migrated(generation=2, at=100), 100)
    over = Joined(generation=2, at=150, source=Source.WEBHOOK, user_id="ann", connection_id="n1")

    assert call.apply(left("bob", "bob1", 120), 120) == []
    assert call.apply(Ended(generation=1, at=130), 130) == []
    assert call.apply(over, 150) == []
    assert call.expire(30_099) == []
    assert call.expire(30_100) == [
        UserLeft("bob", "migration"),
        PhaseChanged(Phase.ACTIVE, Cause.MOVED, 2),
    ]
    assert call.connections("ann") == ("n1",)


def test_the_end_tells_everybody() -> None:
    """A call that ends has nobody in it, and comes back in no way."""
    call = call_with("ann")
    events = call.apply(Ended(generation=1, at=50, reason="ended"), 50)

    assert events == [PhaseChanged(Phase.ENDED, Cause.END, 1), UserLeft("ann", "ended")]
    assert call.apply(joined("ann", "a2", 60), 60) == []


def test_the_room_is_for_so_many() -> None:
    """A full call has room for those who are in it."""
    call = ChannelCall(0, limits=CallLimits(max_participants=1))
    call.apply(joined("ann", "a1", 1), 1)

    assert (call.session_full("ann"), call.session_full("bob")) == (False, True)


def test_peak_and_total_time() -> None:
    """Times of all users add up, those who left and those who are there."""
    call = call_with("ann", "bob")
    call.apply(left("ann", "ann1", 110), 110)
    figures = call.statistics(210)

    assert (figures.participants, figures.peak, figures.total_ms) == (1, 2, 100 + 200)


def test_what_is_held_is_bounded() -> None:
    """Connections and tombstones have a bound."""
    call = ChannelCall(0, limits=CallLimits(max_connections=2, tombstones=1))
    for n in range(5):
        call.apply(joined(f"u{n}", "c", 1), 1)
    for n in range(5):
        call.apply(left("x", f"c{n}", 1), 1)

    assert call.users == ("u0", "u1")
    assert len(call.dump().gone) == 1


def test_the_documented_table_is_the_table() -> None:
    """docs/voice-calls.md lists exactly TRANSITIONS."""
    rows = [f"| {a.value} | {cause.value} | {b.value} |" for (a, cause), b in TRANSITIONS.items()]
    lines = DOCS.read_text().splitlines()

    assert [line for line in lines if line.count("|") == 4][2:] == rows


def vacant(at: int, generation: int = 1) -> Vacant:
    return Vacant(generation=generation, at=at)


def test_two_looks_at_a_vacant_call_remove_everybody() -> None:
    """The first one is a negative for each connection; the second, begun later, removes them."""
    call = call_with("ann", "bob")
    first = call.apply(vacant(20), 30)
    doubted = call.doubtful
    second = call.apply(vacant(31), 40)

    assert ([], True) == (first, doubted)
    assert second == [
        UserLeft("ann", "verified"),
        UserLeft("bob", "verified"),
        PhaseChanged(Phase.EMPTY, Cause.WENT, 1),
    ]


def test_a_second_look_that_began_too_early_removes_nobody() -> None:
    """Two looks at the same moment are one: the second must begin after the first was applied."""
    call = call_with("ann")
    call.apply(vacant(20), 30)

    assert call.apply(vacant(30), 31) == []
    assert call.users == ("ann",)


def test_a_vacant_look_says_nothing_about_who_came_later() -> None:
    """Who was seen after the look had begun is not doubted by it."""
    call = call_with("ann")
    call.apply(vacant(5), 30)

    assert not call.doubtful


def test_somebody_seen_between_two_vacant_looks_stays() -> None:
    """A sign that is newer than the doubt clears it."""
    call = call_with("ann")
    call.apply(vacant(20), 30)
    call.apply(joined("ann", "ann1", 35), 35)
    call.apply(vacant(36), 40)

    assert call.users == ("ann",)


def test_a_vacant_older_session_says_nothing_of_the_newer_one() -> None:
    """While a call migrates, the old session runs empty; that removes nobody."""
    call = call_with("ann")
    call.apply(Migrated(generation=2, at=15), 15)
    call.apply(vacant(20), 30)
    call.apply(vacant(31, generation=2), 40)
    call.apply(vacant(41, generation=2), 50)

    assert call.users == ("ann",)


def test_a_migration_is_over_when_all_connections_have_come() -> None:
    """A user with two devices in the old session is waited for until both are in the new one."""
    call = call_with("ann")
    call.apply(joined("ann", "ann2", 11), 11)
    call.apply(Migrated(generation=2, at=20), 20)
    settled = []
    for number, connection in enumerate(("new1", "new2")):
        sign = Joined(
            generation=2, at=30, source=Source.WEBHOOK, user_id="ann", connection_id=connection
        )
        call.apply(sign, 30 + number)
        settled.append(call.settle(30 + number))

    assert settled == [[], [PhaseChanged(Phase.ACTIVE, Cause.MOVED, 2)]]
    assert call.connections("ann") == ("new1", "new2")


def test_time_ends_with_the_last_sign() -> None:
    """Shown until two polls agreed at 900; the last one that named bob was that of 300."""
    call = call_with("ann", "bob")
    both, ann = (("ann", "ann1"), ("bob", "bob1")), (("ann", "ann1"),)
    for at, present in ((300, both), (600, ann), (900, ann)):
        call.apply(Polled(generation=1, at=at, present=present), at)

    assert ("ann",) == call.users
    assert call.statistics(900).total_ms == (900 - 10) + (300 - 10)


def test_time_ends_with_a_left_that_is_late() -> None:
    """Who left at 110 was there until then, whenever that is told; never before coming."""
    call = call_with("ann", "bob")
    call.apply(left("ann", "ann1", 110), 500)
    call.apply(left("bob", "bob1", 5), 500)

    assert call.statistics(900).total_ms == 100


def test_time_ends_with_the_last_of_several_connections() -> None:
    """However they go, and in whatever order that is told."""
    call = call_with("ann")
    call.apply(joined("ann", "ann2", 50), 50)
    call.apply(left("ann", "ann2", 400), 400)
    call.apply(left("ann", "ann1", 200), 450)

    assert call.statistics(900).total_ms == 400 - 10


def test_a_lease_that_is_over_was_the_last_sign() -> None:
    """A client that fell silent is not paid for the time in which it was waited for."""
    call = call_with("ann")
    call.apply(Joined(generation=1, at=100, source=Source.CLIENT, user_id="ann"), 100)
    call.expire(100 + call.limits.lease_ms)

    assert () == call.users
    assert call.statistics(900_000).total_ms == 90
