"""The histogram against sorted lists: exact where it says so, inside its bound elsewhere."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_core.swarm_histogram import Histogram

VALUES = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 10**6), st.integers(0, 2 * 10**12)), min_size=1
)
PERCENTS = st.floats(0, 100)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def nearest_rank(values: list[int], percent: float) -> int:
    rank = max(1, math.ceil(percent * len(values) / 100))
    return sorted(values)[rank - 1]


@settings(deadline=None)
@given(VALUES, PERCENTS)
def test_a_percentile_is_never_below_and_at_most_a_128th_above(
    values: list[int], percent: float
) -> None:
    """The nearest-rank value of a sorted list is a lower bound, and 1/128 more an upper one."""
    exact = nearest_rank(values, percent)

    found = filled(values).percentile(percent)

    assert exact <= found <= exact + exact // 128


@settings(deadline=None)
@given(VALUES)
def test_count_extremes_and_mean_are_exact(values: list[int]) -> None:
    """Only percentiles are rounded; the 100th percentile is the maximum itself."""
    histogram = filled(values)

    summary = histogram.summary()

    assert (summary.samples, summary.minimum, summary.maximum) == (
        len(values),
        min(values),
        max(values),
    )
    assert math.isclose(summary.mean, sum(values) / len(values))
    assert histogram.percentile(100) == max(values)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_merging_is_recording_everything_in_one(one: list[int], other: list[int]) -> None:
    """A merged histogram cannot be told from one that saw all values."""
    merged = filled(one)
    merged.merge(filled(other))

    assert merged.buckets() == filled(one + other).buckets()
    assert merged.summary() == filled(one + other).summary()


@settings(deadline=None)
@given(VALUES)
def test_buckets_ascend_and_hold_every_value(values: list[int]) -> None:
    """The buckets are sorted, none is empty, and together they count all values."""
    buckets = filled(values).buckets()

    assert [edge for edge, _ in buckets] == sorted({edge for edge, _ in buckets})
    assert all(count > 0 for _, count in buckets)
    assert sum(count for _, count in buckets) == len(values)


def test_small_values_are_exact() -> None:
    """Below 256 each value has a bucket of its own."""
    assert filled(list(range(256))).buckets() == [(value, 1) for value in range(256)]


def test_an_empty_histogram_is_all_zeros() -> None:
    """Nothing recorded: length 0, percentiles 0, no buckets, and merging it changes nothing."""
    histogram = filled([7])
    histogram.merge(Histogram())

    assert (len(Histogram()), Histogram().percentile(99), Histogram().buckets()) == (0, 0, [])
    assert histogram.buckets() == [(7, 1)]


def test_values_out_of_range_are_kept_at_the_ends() -> None:
    """A negative value counts as 0; one beyond the last bucket still is the maximum."""
    histogram = filled([-5, 2**62])

    assert (histogram.summary().minimum, histogram.percentile(100)) == (0, 2**62)


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan])
def test_a_percentile_outside_its_range_is_refused(percent: float) -> None:
    """Percentiles are between 0 and 100."""
    with pytest.raises(ValueError, match="percent"):
        Histogram().percentile(percent)
