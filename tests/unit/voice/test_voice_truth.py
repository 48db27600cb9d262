"""The judgement of random voice runs: right reports pass, and each kind of wrong one is found."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.voice_random.truth import BLINK_S, MOVED, Removal, Truth, false_removals

GRACE = 10.0


def example() -> Truth:
    """Ann is there from 0 on, Bob from 0 to 20, Cid from 0 to 20 and from 25 on."""
    truth = Truth()
    for user in ("ann", "bob", "cid"):
        truth.came("c", "room", user, 0.0)
    for user in ("bob", "cid"):
        truth.went("c", "room", user, 20.0)
    truth.came("c", "room", "cid", 25.0)
    return truth


def gone(user: str, at: float, reason: str = "left", back_at: float | None = None) -> Removal:
    return Removal(at, "c", user, reason, "node", back_at)


def judged(*removals: Removal) -> set[str]:
    return {removal.user for removal in false_removals(example(), removals, GRACE)}


RIGHT = {
    "who has left": gone("bob", 21.0),
    "who left long ago": gone("bob", 90.0),
    "who came back a moment ago": gone("cid", 30.0),
    "who was told late to have gone and come": gone("cid", 60.0, back_at=60.0 + BLINK_S / 2),
    "a stranger": gone("eve", 5.0),
    "who did not come over": gone("ann", 50.0, MOVED),
}
WRONG = {
    "who never left": gone("ann", 50.0),
    "who has not left yet": gone("bob", 19.0),
    "who came back long ago": gone("cid", 36.0),
    "who is shown again after a while": gone("ann", 50.0, back_at=51.0),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_not_false(case: str) -> None:
    """Departures, late news of them, and what a migration may do."""
    assert set() == judged(RIGHT[case])


@pytest.mark.parametrize("case", WRONG)
def test_what_is_false(case: str) -> None:
    """A report of somebody who was there."""
    others = [removal for removal in RIGHT.values() if removal.reason != MOVED]

    assert {WRONG[case].user} == judged(WRONG[case], *others)


def test_a_device_that_was_away_hears_no_reason() -> None:
    """Another one has heard that it was the migration; long afterwards that is no excuse."""
    assert set() == judged(gone("bob", 11.0, MOVED), gone("bob", 12.0, "not shown any more"))
    assert {"ann"} == judged(gone("ann", 11.0, MOVED), gone("ann", 99.0, "not shown any more"))


def test_a_call_that_moves() -> None:
    """Who comes over is there on both sides and held to be there since; who stays is not."""
    truth = example()
    truth.moved("room", 30.0)
    truth.came("c", "room", "cid", 31.0)
    truth.came("c", "next", "ann", 31.0)
    truth.went("c", "room", "ann", 31.0)
    found = false_removals(truth, [gone("ann", 42.0), gone("cid", 42.0)], GRACE)

    assert ["ann"] == [removal.user for removal in found]
    assert 31.0 == truth.there_since("c", "ann", 42.0)


MOVES = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 9.0)), max_size=30)


@settings(deadline=None)
@given(MOVES, st.floats(0.0, 20.0))
def test_prompt_reports_are_never_false(moves: list[tuple[str, float]], late: float) -> None:
    """Who is reported gone at most `late` after leaving is not judged with that much grace."""
    truth, now, there, told = Truth(), 0.0, set[str](), []
    for user, wait in moves:
        now += wait
        if user in there:
            truth.went("c", "room", user, now)
            told.append(gone(user, now + late))
        else:
            truth.came("c", "room", user, now)
        there ^= {user}

    assert [] == false_removals(truth, told, late)


@pytest.mark.parametrize("change", [lambda t: t.stays.clear(), lambda t: t.moved("room", 45.0)])
def test_the_truth_decides(change: Callable[[Truth], object]) -> None:
    """The same report is right in another truth."""
    truth = example()
    change(truth)

    assert [] == false_removals(truth, [gone("ann", 50.0)], GRACE)
