"""Token buckets and sketches: pure, with time as an argument."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge import distinct
from syncbridge.rates.buckets import TokenBuckets


def test_burst_then_rate() -> None:
    """As many as the burst at once, then one for each 1/rate seconds; the answer says when."""
    buckets = TokenBuckets(rate=2, burst=3)

    assert [0.0, 0.0, 0.0, 0.5] == [buckets.take("a", 10.0) for _ in range(4)]
    assert pytest.approx(0.25) == buckets.take("a", 10.25)
    assert 0.0 == buckets.take("a", 10.5)
    assert 0.0 == buckets.take("b", 10.5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2)), max_size=200),
    st.floats(0.5, 20),
    st.integers(1, 20),
)
def test_never_above_rate_and_burst(
    steps: list[tuple[str, float]], rate: float, burst: int
) -> None:
    """In any window a key gets at most burst + rate * seconds; who waits as told gets one."""
    buckets, now = TokenBuckets(rate, burst), 0.0
    taken: dict[str, list[float]] = {}
    for key, pause in steps:
        now += pause
        wait = buckets.take(key, now)
        if wait:
            assert wait <= 1 / rate + 1e-9
        else:
            taken.setdefault(key, []).append(now)

    for times in taken.values():
        for start in range(len(times)):
            seconds = times[-1] - times[start]
            assert len(times) - start <= burst + rate * seconds + 1e-6


def test_forgets_the_least_recently_used_key() -> None:
    """Memory is bounded by the capacity, whatever keys come."""
    buckets = TokenBuckets(1, 1, capacity=100)
    for n in range(1000):
        buckets.take(f"key {n}", 0.0)
        buckets.take("steady", n / 2)

    assert 100 == len(buckets)
    assert 0 < buckets.take("steady", 499.5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sets(st.integers(0, 600), max_size=400), max_size=5))
def test_distinct_is_exact_up_to_its_size(parts: list[set[int]]) -> None:
    """Ids that several nodes have count once."""
    sketches = [distinct.sketch(map(str, part)) for part in parts]

    assert (len(set().union(*parts)), True) == distinct.count(sketches)


def test_distinct_estimates_above_its_size() -> None:
    """30,000 ids, half of them on both nodes: within four standard errors, and not exact."""
    source = random.Random(7)
    ids = [str(source.getrandbits(128)) for _ in range(30_000)]
    total, exact = distinct.count([distinct.sketch(ids[:20_000]), distinct.sketch(ids[10_000:])])

    assert not exact
    assert abs(total - 30_000) < 4 * 30_000 / distinct.SIZE**0.5
    assert distinct.SIZE == len(distinct.sketch(ids))
