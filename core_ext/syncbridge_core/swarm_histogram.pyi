"""Latency figures in fixed memory. See swarm_histogram.pyx for the buckets and their error."""

from typing import NamedTuple, final

class Latency(NamedTuple):
    """Figures of one histogram, in the unit of its values (the swarm's: nanoseconds).

    `minimum`, `mean` and `maximum` are exact, the percentiles at most 0.8 % too high.
    """

    samples: int
    minimum: int
    mean: float
    p50: int
    p90: int
    p99: int
    p999: int
    maximum: int

@final
class Histogram:
    """Counts of non-negative integers in log-linear buckets, 36 KB."""

    def __init__(self) -> None: ...
    def __len__(self) -> int:
        """How many values were recorded."""

    def record(self, value: int) -> None:
        """Count one value; a negative one counts as 0. O(1)."""

    def percentile(self, percent: float) -> int:
        """The nearest-rank percentile, 0 when empty. Raises ValueError outside 0 to 100."""

    def merge(self, other: Histogram) -> None:
        """Add the values of another histogram."""

    def buckets(self) -> list[tuple[int, int]]:
        """`(largest value, count)` of each bucket that is not empty, in ascending order."""

    def summary(self) -> Latency: ...
