"""Users who were sent away: kept out until they get a new token, or theirs is over."""

import msgspec

from support.voice.channel_kit import LIMITS, MAY, NOW, again, joined, left, peopled
from syncbridge.voice.channel import REMOVED_MOST, Channel

LATER = NOW + 1_000


def sent_away(*others: str) -> Channel:
    """Ann was removed from a call in which these are."""
    channel = peopled("ann", *others)
    channel.keep_out("ann", NOW + 10)
    channel.apply([left("ann", NOW + 20)], NOW + 20)
    return again(channel)


def comes_back(channel: Channel, at: int = LATER) -> list[str]:
    """Ann has another connection; who is to be removed then."""
    again = msgspec.structs.replace(joined("ann", at), connection_id="new")
    channel.apply([again], at)
    return channel.record.unwelcome


def test_whoever_comes_back_without_a_token_is_to_be_removed() -> None:
    """It is a chore of the channel until it is done; what is true is shown meanwhile."""
    channel = sent_away("bob")
    assert not channel.has_tasks
    assert ["ann"] == comes_back(channel)
    assert channel.call is not None
    assert ("bob", "ann") == channel.call.users
    assert channel.has_tasks
    channel = again(channel)
    channel.sent_away("ann")

    assert not channel.has_tasks


def test_a_new_token_lets_somebody_in() -> None:
    """Whoever is trusted with one is welcome, also when the removal is still to be done."""
    channel = sent_away("bob")
    channel.admit("ann", MAY, NOW + 100)
    assert [] == comes_back(channel)
    other = sent_away("bob")
    comes_back(other)
    other.admit("ann", MAY, LATER + 1)

    assert ([], {}) == (other.record.unwelcome, other.record.removed)


def test_it_is_over_when_the_token_is() -> None:
    """Then the provider keeps them out by itself, and nothing is remembered."""
    channel = sent_away("bob")
    late = NOW + 10 + LIMITS.removed_ms
    channel.expire(late)

    assert ([], {}) == (comes_back(channel, late), channel.record.removed)


def test_others_come_and_go() -> None:
    """And who was sent away while not there is kept out as well."""
    channel = peopled("ann")
    channel.keep_out("bob", NOW)
    channel.apply([joined("carl", LATER), joined("bob", LATER)], LATER)

    assert ["bob"] == channel.record.unwelcome


def test_the_end_of_a_call_leaves_nothing_to_be_done() -> None:
    """Its room is ended for everybody; a room that is kept keeps them out."""
    channel = sent_away("bob")
    comes_back(channel)
    channel.end(LATER + 1, "ended")

    assert ([], ["ann"]) == (channel.record.unwelcome, list(channel.record.removed))


def test_what_is_remembered_has_a_bound() -> None:
    """The oldest make room."""
    channel = peopled("ann")
    for number in range(REMOVED_MOST + 5):
        channel.keep_out(f"user-{number}", NOW + number)

    assert REMOVED_MOST == len(channel.record.removed)
    assert "user-4" not in channel.record.removed
