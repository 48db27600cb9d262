"""The hub as a class. Its data model is in connections.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from syncbridge_core.connections cimport Connection, Table


cdef class Hub:
    cdef Table table
    cdef bint busy       # a call runs without the GIL
    cdef bint polling    # poll is making Python objects
    cdef bint awake      # the timer will fire at once
    cdef bint timing     # the timer is running

    cdef int enter(self) except -1
    cdef int enter_open(self) except -1
    cdef void leave(self) noexcept
    cdef int turn(self, list found, Py_ssize_t limit) except -1
    cdef int wait(self) except -1
    cdef void read(self, size_t most) noexcept
    cdef void write(self) noexcept
    cdef int collect(self, list found) except -1
    cdef void _rate(self, Connection *connection, uint32_t rate, uint32_t burst) noexcept
