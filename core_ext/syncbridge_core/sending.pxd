"""Everything on its way out: enqueue, fan-out, write, the closing handshake. See sending.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from syncbridge_core.connections cimport Connection, Table
from syncbridge_core.outbox cimport SharedFrame
from syncbridge_core.topics cimport Topic


# One message on its way to many: a frame per encoding, made when the first member needs it.
cdef struct Publication:
    SharedFrame *frames[2]
    const uint8_t *payloads[2]   # NULL when there is nothing for that encoding
    size_t lengths[2]
    uint8_t kind
    uint64_t tag
    uint64_t exclude
    bint out_of_memory


cdef bint enqueue(Table *table, Connection *connection, SharedFrame *frame) noexcept nogil
cdef uint32_t publish_to(Table *table, Topic *topic, Publication *message) noexcept nogil
cdef void begin_close(
    Table *table, Connection *connection, uint16_t code, const uint8_t *reason, size_t length,
    uint8_t state,
) noexcept nogil
cdef void send_control(
    Table *table, Connection *connection, unsigned int opcode, const uint8_t *payload,
    size_t length,
) noexcept nogil
cdef void write_out(Table *table, Connection *connection) noexcept nogil
cdef void write_dirty(Table *table) noexcept nogil
