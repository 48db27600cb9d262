"""Latency figures in 36 KB, however many values there are.

Values below 256 have a bucket of their own. Above, the highest eight bits of a value choose its
bucket and the rest is forgotten, so the buckets of each power of two are 128 equal steps. Adding
is a shift and an increment. A percentile is the upper edge of the bucket in which the value of
that rank lies (nearest rank: the smallest value that at least `percent` of all do not exceed), so
it is never below the true value and at most 1/128, 0.8 %, above it; minimum, maximum, count and
mean are exact. Two histograms merge by adding their buckets.
"""

from typing import NamedTuple

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

cdef extern from * nogil:
    """
    static inline int sw_top_bit(uint64_t value) { return 63 - __builtin_clzll(value | 1); }
    """
    int sw_top_bit(uint64_t value)


class Latency(NamedTuple):
    samples: int
    minimum: int
    mean: float
    p50: int
    p90: int
    p99: int
    p999: int
    maximum: int


cdef inline int _bucket(int64_t value) noexcept nogil:
    cdef int shift = max(0, sw_top_bit(<uint64_t>value) - SUB_BITS)
    cdef int index = shift * SUB_BUCKETS + <int>(value >> shift)
    return min(index, BUCKETS - 1)


cdef inline int64_t _upper_edge(int index) noexcept nogil:
    """The largest value that counts in this bucket."""
    cdef int shift = max(0, index // SUB_BUCKETS - 1)
    return ((<int64_t>(index - shift * SUB_BUCKETS) + 1) << shift) - 1


@cython.final
cdef class Histogram:

    def __cinit__(self):
        memset(self.counts, 0, sizeof(self.counts))

    cdef void add(self, int64_t value) noexcept nogil:
        value = max(value, 0)
        if self.total == 0 or value < self.lowest:
            self.lowest = value
        self.highest = max(self.highest, value)
        self.counts[_bucket(value)] += 1
        self.total += 1
        self.sum += <uint64_t>value

    cdef int64_t at_rank(self, uint64_t rank) noexcept nogil:
        cdef uint64_t reached = 0
        cdef int index
        for index in range(BUCKETS - 1):
            reached += self.counts[index]
            if reached >= rank:
                return min(_upper_edge(index), self.highest)
        return self.highest

    def __len__(self):
        return self.total

    def record(self, int64_t value):
        self.add(value)

    def percentile(self, double percent):
        if not 0 <= percent <= 100:
            raise ValueError("percent must be between 0 and 100")
        if self.total == 0:
            return 0
        cdef double exact = percent * self.total / 100
        cdef uint64_t rank = <uint64_t>exact
        rank += <double>rank < exact
        return self.at_rank(rank if rank else 1)

    def merge(self, Histogram other not None):
        cdef int index
        if other.total == 0:
            return
        if self.total == 0 or other.lowest < self.lowest:
            self.lowest = other.lowest
        self.highest = max(self.highest, other.highest)
        for index in range(BUCKETS):
            self.counts[index] += other.counts[index]
        self.total += other.total
        self.sum += other.sum

    def buckets(self):
        return [
            (min(_upper_edge(index), self.highest), self.counts[index])
            for index in range(BUCKETS)
            if self.counts[index]
        ]

    def summary(self):
        return Latency(
            self.total,
            self.lowest,
            self.sum / self.total if self.total else 0.0,
            self.percentile(50),
            self.percentile(90),
            self.percentile(99),
            self.percentile(99.9),
            self.highest,
        )
