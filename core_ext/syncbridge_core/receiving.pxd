"""Everything that comes in: reading, messages, control frames, rate limits. See receiving.pyx."""

from libc.stdint cimport uint8_t, uint16_t

from syncbridge_core.connections cimport Connection, Table


cdef void receive_initial(
    Table *table, Connection *connection, uint8_t *data, size_t length,
) noexcept nogil
cdef void refuse_message(
    Table *table, Connection *connection, uint16_t code, const uint8_t *reason, size_t length,
) noexcept nogil
cdef void process_ready(Table *table, size_t max_events) noexcept nogil
