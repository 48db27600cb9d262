"""Deadlines, pings, idle connections, unfinished closing handshakes. See timers.pyx."""

from libc.stdint cimport int64_t

from syncbridge_core.connections cimport Connection, Table


cdef void run_timers(Table *table) noexcept nogil
cdef void plan(Table *table, Connection *connection) noexcept nogil
cdef void wake_after(Table *table, long nanoseconds) noexcept nogil
