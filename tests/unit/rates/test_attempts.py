"""When what failed is tried again, and when that is enough."""

from hypothesis import given
from hypothesis import strategies as st

from syncbridge.rates.attempts import Attempts


def test_the_pause_doubles_up_to_a_bound_and_then_it_is_enough() -> None:
    """1, 2, 4 seconds, never more than 3; the fifth failure in a row is the last one."""
    attempts = Attempts(most=5, first_s=1.0, longest_s=3.0)

    assert [1.0, 2.0, 3.0, 3.0, None, None] == [attempts.failed("a", 0.0) for _ in range(6)]


def test_meanwhile_it_is_left_alone_and_others_are_not() -> None:
    """Until the pause is over; what works begins anew."""
    attempts = Attempts(first_s=1.0)
    attempts.failed("a", 10.0)
    seen = [attempts.ready(key, now) for key, now in [("a", 10.9), ("b", 10.9), ("a", 11.0)]]
    attempts.worked("a")

    assert [False, True, True] == seen
    assert (0, 1.0) == (attempts.count("a"), attempts.failed("a", 12.0))


@given(st.lists(st.integers(0, 9), max_size=60))
def test_the_table_is_bounded(keys: list[int]) -> None:
    """The key that has not failed for longest is forgotten."""
    attempts = Attempts(most=100, kept=3)
    for now, key in enumerate(keys):
        attempts.failed(key, float(now))
    latest = list(dict.fromkeys(reversed(keys)))[:3]

    assert set(latest) == {key for key in range(10) if attempts.count(key)}
