"""A histogram of times that costs a search in twelve numbers, and no lock, for each of them."""

from bisect import bisect_left
from itertools import accumulate

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds. Those of our deadlines and of what people notice lie between them."""
_LABELS = (*map(str, BOUNDS), "+Inf")


class Timing:
    """Times by bucket. Not for several threads.

    Attributes:
        counts: of each bucket, the last one without a bound. seconds: all times together.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """Something took so long, so many times."""
        self.counts[bisect_left(BOUNDS, seconds)] += count
        self.seconds += seconds * count

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and how many times are not above it, as Prometheus wants them."""
        return list(zip(_LABELS, accumulate(self.counts), strict=True))
