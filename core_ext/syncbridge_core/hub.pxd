"""The hub as a class. Its data model is in connections.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from syncbridge_core.connections cimport Connection, Table
from syncbridge_core.sending cimport Publication
from syncbridge_core.topics cimport Topic


cdef class Hub:
    cdef Table table
    cdef object deflater
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
    cdef void write_slice(self) noexcept
    cdef uint32_t fan_out(self, Topic *topic, Publication *message) noexcept
    cdef int make_wanted(self, Publication *message, bytes payload) except -1
    cdef bytes deflate(self, bytes payload)
    cdef void _rate(self, Connection *connection, uint32_t rate, uint32_t burst) noexcept
