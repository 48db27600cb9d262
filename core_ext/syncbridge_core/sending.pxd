"""Everything on its way out: enqueue, fan-out, write, the closing handshake. See sending.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from syncbridge_core.connections cimport Connection, Table
from syncbridge_core.outbox cimport FORMS, SharedFrame
from syncbridge_core.topics cimport Topic


# One message on its way to many: a frame per form, made when the first member needs it.
cdef struct Publication:
    SharedFrame *frames[FORMS]
    const uint8_t *payloads[2]   # by encoding; NULL when there is nothing for it
    size_t lengths[2]
    uint8_t plain[2]             # by encoding: not compressed for anybody
    uint8_t kind
    uint8_t wanted               # a deflate form whose frame the caller must make, or 0
    uint64_t tag
    uint64_t exclude
    uint32_t position            # of the member that comes next
    bint out_of_memory


cdef bint enqueue(Table *table, Connection *connection, SharedFrame *frame) noexcept nogil
cdef uint32_t publish_to(Table *table, Topic *topic, Publication *message) noexcept nogil
cdef void publication_clear(Publication *message) noexcept nogil
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
cdef void write_backlog(Table *table) noexcept nogil
