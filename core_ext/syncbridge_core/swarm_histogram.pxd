"""A histogram of nanoseconds: fixed memory, one addition a value, no allocation."""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    SUB_BITS = 7
    #: 2 ** SUB_BITS buckets for each power of two
    SUB_BUCKETS = 128
    #: enough for 2 ** 41 ns, about 36 minutes; larger values count in the last one
    BUCKETS = 4480


cdef class Histogram:
    cdef uint64_t counts[BUCKETS]
    cdef uint64_t total
    cdef uint64_t sum
    cdef int64_t lowest
    cdef int64_t highest
    cdef void add(self, int64_t value) noexcept nogil
    cdef int64_t at_rank(self, uint64_t rank) noexcept nogil
