"""Budgets of users: the estimate from above, and the counts that bring it down."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.rates.budgets import SESSIONS, STORED, Budgets


def filled(budgets: Budgets, count: int, size: int = 0, start: int = 0) -> list[str]:
    """What `count` writes to sessions of their own were answered."""
    return [budgets.charge("ann", f"s{start + n}", size, now=0.0) for n in range(count)]


def test_sessions_above_the_budget_are_refused() -> None:
    """The ninth is; those that there are go on, and so do other users."""
    budgets = Budgets(sessions=8, stored=0)

    assert [""] * 8 + [SESSIONS] * 2 == filled(budgets, 10)
    assert [""] * 8 == filled(budgets, 8, size=1 << 40)
    assert "" == budgets.charge("bob", "s9", 5, now=0.0)


def test_bytes_above_the_budget_are_refused() -> None:
    """The write that would go over it is; a smaller one fits, and joins always do."""
    budgets = Budgets(sessions=0, stored=100)

    answers = [budgets.charge("ann", "s", size, now=0.0) for size in (60, 41, 40, 1, 0)]

    assert ["", STORED, "", STORED, ""] == answers


def test_small_users_are_not_counted() -> None:
    """Up to an eighth of a budget nobody is due; above it the user is, once."""
    budgets = Budgets(sessions=80, stored=800)
    filled(budgets, 10, size=10)
    assert {} == budgets.due

    filled(budgets, 1, size=1)

    assert ["ann"] == list(budgets.due)


def test_a_count_brings_the_estimate_down() -> None:
    """What was replaced or has gone is free again; what is charged during the count stays."""
    budgets = Budgets(sessions=8, stored=800)
    filled(budgets, 8, size=100)
    assert SESSIONS == budgets.charge("ann", "new", 0, now=0.0)

    budgets.begin("ann")
    assert STORED == budgets.charge("ann", "s0", 1, now=0.0), "until it has been counted"
    budgets.counted("ann", ["s0", "s1"], 300)

    assert [""] * 5 == filled(budgets, 5, size=100, start=20)
    assert STORED == budgets.charge("ann", "s0", 1, now=0.0)
    budgets.begin("ann")
    budgets.charge("ann", "late", 0, now=0.0)
    budgets.counted("ann", [f"s{n}" for n in range(7)], 0)
    assert SESSIONS == budgets.charge("ann", "later", 0, now=0.0), "seven and the late one"


@pytest.mark.parametrize(("later", "due"), [(4.9, []), (5.0, ["ann"])])
def test_who_is_refused_is_counted_again_after_a_while(later: float, due: list[str]) -> None:
    """A user who is at the budget and deletes something is let on soon, and costs little."""
    budgets = Budgets(sessions=1, stored=0)
    budgets.charge("ann", "s", 0, now=0.0)
    assert SESSIONS == budgets.charge("ann", "t", 0, now=10.0)
    budgets.due.clear()
    budgets.begin("ann")
    budgets.counted("ann", ["s"], 0)

    assert SESSIONS == budgets.charge("ann", "t", 0, now=10.0 + later)

    assert due == list(budgets.due)


def test_the_table_is_bounded() -> None:
    """Who has not written for longest begins anew."""
    budgets = Budgets(sessions=1, stored=0, kept=2)
    for user in ("ann", "bob", "ann", "eve"):
        budgets.charge(user, "s", 0, now=0.0)

    assert [SESSIONS, ""] == [budgets.charge(user, "t", 0, now=0.0) for user in ("ann", "bob")]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("charge", "charge", "charge", "begin", "counted")),
            st.sampled_from("ab"),
            st.sampled_from("stuv"),
            st.integers(0, 60),
        ),
        max_size=60,
    ),
    st.integers(0, 4),
    st.sampled_from((0, 400)),
)
def test_the_short_way_answers_as_the_long_one(
    steps: list[tuple[str, str, str, int]], sessions: int, stored: int
) -> None:
    """A user far from any budget is let through at once; answers and who is due are the same."""
    quick, weighed = Budgets(sessions, stored), Budgets(sessions, stored)
    for now, (what, user, session, size) in enumerate(steps):
        answers = []
        for budgets in (quick, weighed):
            if what == "begin":
                budgets.begin(user)
            elif what == "counted":
                budgets.counted(user, [session], size)
            else:
                if budgets is weighed and user in weighed._users:
                    weighed._users[user].quiet = -1
                answers.append(budgets.charge(user, session, size, float(now)))
        assert 1 >= len(set(answers))
        assert quick.due == weighed.due
