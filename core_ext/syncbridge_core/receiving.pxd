"""Everything that comes in: reading, messages, control frames, rate limits. See receiving.pyx."""

from libc.stdint cimport uint8_t

from syncbridge_core.connections cimport Connection, Table


cdef void receive_initial(
    Table *table, Connection *connection, uint8_t *data, size_t length,
) noexcept nogil
cdef void process_ready(Table *table, size_t max_events) noexcept nogil
