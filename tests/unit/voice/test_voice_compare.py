"""What is held about calls beside what the provider says: differences, and who is looked at."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.compare import (
    ChannelSummary,
    Discrepancy,
    Listing,
    Mismatch,
    Reason,
    compare_states,
    held_of,
    strangers,
    suspects,
    unknown_yet,
)
from syncbridge.voice.evidence import Joined, Left, Source
from syncbridge.voice.records import ChannelConfig, ChannelRecord

NOW, STALE = 1_000_000, 300_000
USERS = st.sets(st.sampled_from("abcdef"))


def held(name: str, users: int = 1, **more: object) -> ChannelSummary:
    """A channel with the session `s-<name>`, synchronised just now."""
    values: dict[str, object] = {"connections": users, "synced_at": NOW} | more
    return ChannelSummary(name, f"s-{name}", users, **values)  # type: ignore[arg-type]


def reasons(listed: Mapping[str, int] | None, *calls: ChannelSummary) -> dict[str, Reason]:
    return suspects(calls, listed, NOW, STALE)


def test_the_three_kinds_of_difference() -> None:
    """A count that differs, somebody only we have, somebody only the provider has."""
    found = compare_states(["ann", "bob"], ["bob", "cid", "dan"])

    assert found == [
        Discrepancy(Mismatch.COUNT, local=2, remote=3),
        Discrepancy(Mismatch.MISSING_REMOTE, "ann"),
        Discrepancy(Mismatch.MISSING_LOCAL, "cid"),
        Discrepancy(Mismatch.MISSING_LOCAL, "dan"),
    ]


@given(USERS, USERS)
def test_equal_states_and_only_those_have_no_difference(ours: set[str], theirs: set[str]) -> None:
    """Nothing is found exactly when both sides name the same users; repairing ours makes it so."""
    found = compare_states(ours, theirs)
    repaired = set(ours)
    for one in found:
        if one.type is Mismatch.MISSING_REMOTE:
            repaired.remove(one.participant_id)
        elif one.type is Mismatch.MISSING_LOCAL:
            repaired.add(one.participant_id)

    assert (found == []) == (ours == theirs)
    assert repaired == theirs


def test_a_call_that_agrees_is_left_alone() -> None:
    """The list may count users or connections: agreeing with either is agreeing."""
    call = held("x", 2, connections=3)

    assert [reasons({"s-x": n}, call) for n in (2, 3)] == [{}, {}]
    assert reasons({"s-x": 4}, call) == {"x": Reason.COUNT}


def test_why_a_call_is_looked_at() -> None:
    """A doubt, a session that is not listed, another count, and having been right for long."""
    calls = [
        held("stale", synced_at=NOW - STALE),
        held("count", 3),
        held("unlisted"),
        held("doubtful", doubtful=True),
        held("fine"),
        held("nobody", 0),
    ]
    listed = {"s-stale": 1, "s-count": 1, "s-doubtful": 1, "s-fine": 1}

    assert reasons(listed, *calls) == {
        "doubtful": Reason.DOUBTFUL,
        "unlisted": Reason.UNLISTED,
        "count": Reason.COUNT,
        "stale": Reason.STALE,
    }
    assert list(reasons(listed, *calls)) == ["doubtful", "unlisted", "count", "stale"]


def test_somebody_is_listed_where_we_have_nobody() -> None:
    """A join whose webhook was lost shows in the list."""
    assert reasons({"s-x": 1}, held("x", 0)) == {"x": Reason.COUNT}


def test_without_a_list_every_call_with_people_is_suspect() -> None:
    """No list says nothing about anybody: each call may be wrong, the longest unseen first."""
    calls = [held("new"), held("old", synced_at=5), held("empty", 0)]

    assert list(reasons(None, *calls).items()) == [
        ("old", Reason.UNLISTED),
        ("new", Reason.UNLISTED),
    ]


def test_strangers_are_listed_sessions_that_no_call_holds() -> None:
    """The old session of a migration is ours; a session without people does not matter."""
    call = held("x", other_sessions=("s-old",))

    assert strangers([call], {"s-x": 1, "s-old": 2, "s-unknown": 1, "s-void": 0}) == ["s-unknown"]


@given(
    st.lists(st.integers(0, 3), max_size=12),
    st.dictionaries(st.integers(0, 15).map(lambda n: f"s-{n}"), st.integers(0, 3), max_size=12),
)
def test_every_listed_session_is_right_suspect_or_strange(
    counts: list[int], listed: dict[str, int]
) -> None:
    """No difference of numbers is overlooked, and nothing that agrees is looked at."""
    calls = [held(str(n), users) for n, users in enumerate(counts)]
    wrong = set(reasons(listed, *calls))
    strange = set(strangers(calls, listed))

    for call in calls:
        told = listed.get(call.session_id)
        agrees = call.users == (told or 0)
        assert (call.channel_id in wrong) == (not agrees)
        assert call.session_id not in strange
    known = {call.session_id for call in calls}
    assert strange == {name for name, people in listed.items() if people and name not in known}


def test_a_channel_in_brief() -> None:
    """Users and connections of the present generation, and whether somebody is in doubt."""
    channel = Channel(ChannelRecord("x"), ChannelLimits())
    before = held_of(channel)
    channel.opening(1, ChannelConfig(), "w")
    channel.opened("s-x", 2)
    signs = [("ann", "a1"), ("ann", "a2"), ("bob", "b1")]
    for user, connection in signs:
        sign = Joined(
            generation=1, at=3, source=Source.WEBHOOK, user_id=user, connection_id=connection
        )
        channel.apply([sign], 3)
    left = Left(generation=1, at=4, source=Source.CLIENT, user_id="bob", connection_id="b1")
    channel.apply([left], 4)

    assert before is None
    assert held_of(channel) == ChannelSummary("x", "s-x", 2, 3, doubtful=True)


def test_what_a_list_leaves_out() -> None:
    """A call is left out by a list that names others with people in them, and by no other list."""
    left_out = [
        Listing(1, one).leaves_out("x") for one in ({}, {"y": 0}, {"y": 1}, {"x": 0, "y": 1})
    ]

    assert left_out == [False, False, True, False]


def test_a_difference_is_told_once() -> None:
    """The second look at a doubt finds the same difference; only what is new counts."""
    found = compare_states(["ann", "bob"], ["bob"])
    more = compare_states(["ann", "bob"], ["bob", "cid"])

    assert (found, []) == (unknown_yet(found, []), unknown_yet(found, ["ann"]))
    assert unknown_yet(more, ["ann"]) == [Discrepancy(Mismatch.MISSING_LOCAL, "cid")]
