"""Providers whose looks must be apart, and from one life; connections that are replaced."""

import pytest

from syncbridge.voice.call import ChannelCall
from syncbridge.voice.call_records import CallLimits, Event, UserJoined, UserLeft
from syncbridge.voice.evidence import Evidence, Joined, Left, Polled, Source, Vacant

APART = 20_000
BOB = ("bob", "b1")
GONE = [UserLeft("ann", "verified")]
REPLACED_MS = CallLimits().replaced_ms


def heard(call: ChannelCall, *evidence: Evidence) -> list[Event]:
    """What each piece changed, when it was applied 5 ms after it was true."""
    return [event for one in evidence for event in call.apply(one, one.at + 5)]


def shown(user: str, connection: str, at: int) -> Joined:
    return Joined(
        generation=1, at=at, source=Source.WEBHOOK, user_id=user, connection_id=connection
    )


def left(at: int, connection: str = "a1", *, replaced: bool = False) -> Left:
    return Left(
        generation=1,
        at=at,
        source=Source.WEBHOOK,
        user_id="ann",
        connection_id=connection,
        replaced=replaced,
    )


def polled(at: int, life: str = "L1", *pending: str) -> Polled:
    """A poll that shows Bob alone."""
    return Polled(generation=1, at=at, present=(BOB,), pending=pending, life=life, apart_ms=APART)


def vacant(at: int, life: str = "L1") -> Vacant:
    return Vacant(generation=1, at=at, life=life, apart_ms=APART)


def in_call() -> ChannelCall:
    """Bob and Ann have a connection each, since 10."""
    call = ChannelCall(0)
    heard(call, shown("bob", "b1", 10), shown("ann", "a1", 10))
    return call


def test_two_looks_remove_when_they_are_apart() -> None:
    """As many as there may be before that are one."""
    call = in_call()

    assert heard(call, polled(100), polled(700), polled(100 + APART - 1)) == []
    assert call.doubted == {"ann"}
    assert heard(call, polled(100 + APART)) == GONE


def test_a_restart_between_begins_anew() -> None:
    """The first look of the new life is the first one; it has to be apart from no older one."""
    call = in_call()

    assert heard(call, polled(100), polled(100 + APART, "L2"), polled(200 + APART, "L2")) == []
    assert heard(call, polled(100 + 2 * APART, "L2")) == GONE


def test_restarts_that_never_end_remove_nobody() -> None:
    """Each look is of another life."""
    call = in_call()

    assert heard(call, *[vacant(100 + n * APART, f"L{n}") for n in range(1, 9)]) == []
    assert {"ann", "bob"} == set(call.users)


@pytest.mark.parametrize("second", [polled(50_000), vacant(50_000)])
def test_whoever_is_shown_meanwhile_stays(second: Evidence) -> None:
    """By a webhook that was on its way: the look before says nothing any more."""
    call = in_call()

    assert heard(call, polled(100), shown("ann", "a1", 30_000), second) == []


def test_an_empty_call_ends_by_two_looks() -> None:
    """The ghosts of the last call."""
    call = in_call()
    found = heard(call, vacant(100), vacant(100 + APART))

    assert {"ann", "bob"} == {one.user_id for one in found if isinstance(one, UserLeft)}


def test_a_webhook_and_a_look_are_independent_at_once() -> None:
    """A word of another source needs neither time nor life."""
    call = ChannelCall(0)
    heard(call, shown("bob", "b1", 10), shown("ann", "", 10))

    assert heard(call, left(100, "a9"), polled(200)) == GONE


def test_who_is_on_the_way_in_is_not_spoken_of() -> None:
    """Neither doubted nor shown, however often."""
    call = in_call()
    polls = [polled(100 + n * APART, "L1", "ann", "carl") for n in range(4)]

    assert heard(call, *polls) == []
    assert (frozenset(), {"ann", "bob"}) == (call.doubted, set(call.users))


def test_a_reconnect_is_nothing_that_is_told() -> None:
    """A device comes back with another connection in the place of the first."""
    call = in_call()

    assert heard(call, left(100, replaced=True), shown("ann", "a2", 130)) == []
    assert ("a2",) == call.connections("ann")
    assert call.expire(10 * REPLACED_MS) == []


def test_a_reconnect_that_is_told_of_the_other_way_round() -> None:
    """The new connection first, then the end of the old one."""
    call = in_call()

    assert heard(call, shown("ann", "a2", 130), left(100, replaced=True)) == []
    assert ("a2",) == call.connections("ann")


def test_who_does_not_come_back_has_left() -> None:
    """After a moment, in time for `next_due`, and not before; the user's lease stays as it was."""
    call = in_call()
    heard(call, left(100, replaced=True))

    assert 105 + REPLACED_MS == call.next_due()
    assert call.expire(104 + REPLACED_MS) == []
    assert call.expire(105 + REPLACED_MS) == [UserLeft("ann", "left")]


def test_one_of_two_devices_that_is_replaced_needs_no_moment() -> None:
    """The other one holds the user."""
    call = in_call()
    heard(call, shown("ann", "other", 50), left(100, replaced=True))

    assert ("other",) == call.connections("ann")


def test_the_connection_that_was_replaced_stays_gone() -> None:
    """An old word about it brings nobody back after the moment."""
    call = in_call()
    heard(call, left(100, replaced=True))
    call.expire(105 + REPLACED_MS)

    assert heard(call, shown("ann", "a1", 50)) == []
    assert heard(call, shown("ann", "a2", 7_000)) == [UserJoined("ann")]


def test_a_moment_and_a_life_are_stored() -> None:
    """A node that dies leaves both to the next one."""
    call = in_call()
    heard(call, left(100, replaced=True), polled(200))
    again = ChannelCall.load(call.dump())

    assert again.next_due() == 105 + REPLACED_MS
    assert heard(again, shown("ann", "a2", 300), polled(400), polled(450 + APART)) == GONE
