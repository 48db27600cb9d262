"""Reads that follow each other closely are one look."""

from hypothesis import given
from hypothesis import strategies as st

from syncbridge.rates.looks import Looks


def test_reads_that_follow_closely_are_one_look() -> None:
    """However long it goes on; a pause ends it, and another key has looks of its own."""
    looks = Looks(pause=15.0, kept=10)
    reads = [("a", 0.0), ("a", 5.0), ("b", 6.0), ("a", 19.0), ("a", 34.0), ("a", 35.0)]

    assert [True, False, True, False, True, False] == [looks.begins(*read) for read in reads]


def test_a_clock_that_was_set_back_hides_nothing() -> None:
    """A read that seems to be earlier than the one before begins a look."""
    looks = Looks(pause=15.0, kept=10)

    assert [True, True, False] == [looks.begins("a", now) for now in (100.0, 50.0, 51.0)]


@given(st.lists(st.integers(0, 9), max_size=60))
def test_the_table_is_bounded_and_what_is_forgotten_begins_anew(keys: list[int]) -> None:
    """Only the three keys that were read last are known."""
    looks = Looks(pause=1e9, kept=3)
    for now, key in enumerate(keys):
        known = list(dict.fromkeys(reversed(keys[:now])))[:3]
        assert looks.begins(key, float(now)) == (key not in known)
