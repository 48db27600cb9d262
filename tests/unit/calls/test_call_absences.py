"""Webhooks that somebody has left and empty answers: neither is proof, both together are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.voice.call import ChannelCall
from syncbridge.voice.call_records import Event, UserLeft
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.evidence import Evidence, Joined, Left, Migrated, Polled, Source
from syncbridge.voice.intake import WebhookReport, apply_webhooks
from syncbridge.voice.provider.events import ParticipantLeft
from syncbridge.voice.records import ChannelConfig, ChannelRecord


def joined(user: str, at: int, connection: str = "", source: Source = Source.WEBHOOK) -> Joined:
    return Joined(generation=1, at=at, source=source, user_id=user, connection_id=connection)


def left(user: str, at: int, connection: str = "", source: Source = Source.WEBHOOK) -> Left:
    return Left(generation=1, at=at, source=source, user_id=user, connection_id=connection)


def polled(at: int, *users: str) -> Polled:
    return Polled(generation=1, at=at, present=tuple((user, "") for user in users))


def heard(call: ChannelCall, *evidence: Evidence) -> list[Event]:
    """What each piece changed, when it was applied 5 ms after it was true."""
    return [event for one in evidence for event in call.apply(one, one.at + 5)]


def gone(events: list[Event]) -> list[UserLeft]:
    return [event for event in events if isinstance(event, UserLeft)]


def in_call(*users: str) -> ChannelCall:
    """Each is known by a webhook of 10 that names no connection."""
    call = ChannelCall(0)
    heard(call, *(joined(user, 10) for user in users))
    return call


def test_an_empty_answer_confirms_the_webhook_before_it() -> None:
    """The last one leaves, and is gone with the next answer, although that names nobody."""
    call = in_call("ann")
    assert heard(call, left("ann", 100)) == []

    assert gone(heard(call, polled(120))) == [UserLeft("ann", "verified")]
    assert heard(call, joined("ann", 90)) == []
    assert heard(call, joined("ann", 130)) != []


def test_it_says_nothing_while_somebody_is_not_in_doubt() -> None:
    """It contradicts what is known of Bob: so it is not believed about Ann either."""
    call = in_call("ann", "bob")
    heard(call, left("ann", 100))
    assert heard(call, polled(120), polled(140)) == []
    assert call.ignored == 2

    heard(call, left("bob", 150))
    assert {event.user_id for event in gone(heard(call, polled(170)))} == {"ann", "bob"}


@pytest.mark.parametrize(
    ("before", "at"),
    [
        ((left("ann", 100),), 104),  # it was asked before the webhook had result effect
        ((left("ann", 100), joined("ann", 110)), 120),  # who was there later
        ((left("ann", 9),), 120),  # a late webhook, of before
        ((left("ann", 100, source=Source.CLIENT),), 120),  # a client's word
        ((polled(100, "bob"), left("bob", 110, "b1")), 120),  # a poll's doubt
    ],
)
def test_what_it_does_not_confirm(before: tuple[Evidence, ...], at: int) -> None:
    """Nobody goes who is not result out by a webhook that holds when the answer was asked for."""
    call = in_call("ann")
    heard(call, *before)

    assert heard(call, polled(at)) == []
    assert "ann" in call.users


def test_it_says_nothing_of_the_session_before() -> None:
    """A call that moves: those who have not come over wait for the deadline."""
    call = in_call("ann")
    heard(call, left("ann", 100), Migrated(generation=2, at=110))

    assert call.apply(Polled(generation=2, at=200, present=()), 205) == []
    assert call.users == ("ann",)


def known_by_poll(user: str = "ann") -> ChannelCall:
    """The `joined` was lost; a poll of 10 shows the user, and Bob."""
    call = ChannelCall(0)
    heard(call, polled(10, user, "bob"))
    return call


def test_a_left_of_an_unheard_connection_is_one_negative() -> None:
    """It removes nobody alone; a poll without the user, or an empty one, confirms it."""
    one = known_by_poll()
    assert heard(one, left("ann", 100, "p1")) == []
    assert one.doubted == {"ann"}
    assert heard(one, polled(120, "bob")) == [UserLeft("ann", "verified")]

    both = known_by_poll()
    heard(both, left("ann", 100, "p1"), left("bob", 100, "p2"))
    assert {"ann", "bob"} == {e.user_id for e in gone(heard(both, polled(120)))}


def test_a_poll_that_shows_the_user_undoes_it() -> None:
    """It was another device: the user stays, also when the webhook comes a second time."""
    call = known_by_poll()
    heard(call, left("ann", 100, "p1"), polled(120, "ann", "bob"))
    assert not call.doubted

    assert heard(call, left("ann", 130, "p1"), left("ann", 110, "p0")) == []
    assert not call.doubted
    assert heard(call, polled(140, "bob")) == []


def test_connections_that_are_known_to_be_gone_say_nothing_more() -> None:
    """A `left` of what has ended, or of what polls have removed, is about nobody who is there."""
    call = ChannelCall(0)
    heard(call, joined("ann", 10, "p1"), joined("bob", 10, "b1"), left("ann", 20, "p1"))
    heard(call, polled(30, "ann", "bob"), left("ann", 40, "p1"))
    assert not call.doubted

    call = ChannelCall(0)
    heard(call, joined("ann", 10, "p1"), joined("bob", 10, "b1"))
    heard(call, polled(20, "bob"), polled(40, "bob"), polled(60, "ann", "bob"))
    heard(call, left("ann", 70, "p1"))
    assert not call.doubted


def test_a_left_of_an_unheard_connection_spares_a_named_one() -> None:
    """Who has a connection with an id has no unnamed one."""
    call = ChannelCall(0)
    heard(call, joined("ann", 10, "p2"))

    assert heard(call, left("ann", 100, "p1"), polled(120)) == []
    assert (("p2",), frozenset()) == (call.connections("ann"), call.doubted)


HAPPENINGS = st.lists(
    st.tuples(
        st.integers(1, 50_000),
        st.sampled_from(["join", "leave", "poll", "empty"]),
        st.sampled_from(["ann", "bob"]),
        st.lists(st.integers(0, 6), max_size=3),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=500)
@given(HAPPENINGS, st.booleans())
def test_who_was_shown_and_is_there_stays(
    happenings: list[tuple[int, str, str, list[int]]], named: bool
) -> None:
    """Late, repeated and lost webhooks, and answers that are empty by mistake, remove nobody."""
    call, now, made = ChannelCall(0), 0, 0
    there: dict[str, str] = {}
    shown: set[tuple[str, str]] = set()
    post: list[tuple[int, Evidence]] = []
    for number, (wait, what, user, arrivals) in enumerate(happenings):
        now += wait
        if what in ("poll", "empty"):
            call.apply(polled(now, *(there if what == "poll" else ())), now)
            shown = set(there.items()) if what == "poll" and there else shown
        elif what == "join" and user not in there:
            made += 1
            there[user] = f"c{made}"
            said: Evidence = joined(user, now, there[user] if named else "")
            post += [(number + later, said) for later in arrivals]
        elif what == "leave" and user in there:
            connection = there.pop(user)
            said = left(user, now, connection if named else "")
            post += [(number + later, said) for later in arrivals]
        for _, evidence in [item for item in post if item[0] <= number]:
            call.apply(evidence, now)
        post = [item for item in post if item[0] > number]
        assert {user for user, _ in shown & set(there.items())} <= set(call.users)


def live() -> Channel:
    """A channel whose session `s1` was opened at 500, where a poll has shown Ann."""
    channel = Channel(ChannelRecord("c"), ChannelLimits())
    channel.opening(500, ChannelConfig(), "w")
    channel.opened("s1", 500)
    channel.apply([polled(600, "ann")], 600)
    return channel


def asks(channel: Channel, peer: str, at: int) -> bool:
    """Whether a webhook that Ann has left has the provider asked."""
    event = ParticipantLeft(session_id="s1", user_id="ann", peer_id=peer, occurred_at=at / 1000)
    return apply_webhooks(channel, [WebhookReport(event, at)], at).check_state


def test_a_left_of_an_unheard_connection_asks_for_a_look() -> None:
    """At once, instead of at the next comparison; old news and repetitions ask for nothing."""
    channel = live()

    assert not asks(channel, "p0", 550)
    assert asks(channel, "p1", 700)
    channel.apply([polled(800, "ann")], 800)
    assert not asks(channel, "p1", 900)
