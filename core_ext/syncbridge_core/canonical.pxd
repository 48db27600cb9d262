"""C side of `canonical`: other kernels compare values with it."""

from libc.stdint cimport uint8_t

# Are the values of two texts equal? -1: out of memory.
cdef int same_value(
    const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len) noexcept nogil
