"""Shared outgoing frames and the queue of one connection. See outbox.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from syncbridge_core.linux cimport iovec


cdef enum:
    INLINE_FRAMES = 4    # held in the Outbox itself, a power of two
    MAX_FRAMES = 65536   # bound of one queue, whatever the frames' sizes
    GATHER = 64          # frames of one writev


cdef enum FrameKind:
    KIND_SPEAKING = 0
    KIND_STATE = 1
    KIND_NOTICE = 2
    KIND_REPLY = 3


# What a connection's data frames look like; the two bits make four forms.
cdef enum FrameForm:
    FORM_BINARY = 1
    FORM_DEFLATE = 2
    FORMS = 4


cdef struct SharedFrame:
    uint32_t references
    uint32_t length      # header and payload
    uint64_t tag
    uint8_t kind
    uint8_t header_length
    uint8_t data[1]      # `length` bytes follow


cdef union OutboxFrames:
    SharedFrame *inline_frames[INLINE_FRAMES]
    SharedFrame **ring   # when capacity > INLINE_FRAMES


# 56 bytes, so that it shares one cache line with the descriptor and the state of its connection.
cdef struct Outbox:
    OutboxFrames frames
    uint32_t head
    uint32_t count
    uint32_t capacity    # a power of two
    uint32_t written     # bytes of the head frame that the kernel has
    uint32_t queued      # bytes of all frames that the kernel has not
    uint8_t stale        # STATE frames were dropped and the reader has not caught up
    uint8_t droppable    # a STATE or SPEAKING frame may be in the queue
    uint8_t armed        # EPOLLOUT is on: the socket is full
    uint8_t hushed       # the same for SPEAKING frames


cdef struct Dropped:
    uint32_t frames
    uint32_t bytes
    uint64_t oldest_tag


cdef SharedFrame *frame_new(
    unsigned int opcode, const uint8_t *payload, size_t length, uint8_t kind, uint64_t tag,
) noexcept nogil
cdef void frame_release(SharedFrame *frame) noexcept nogil
cdef void outbox_init(Outbox *outbox) noexcept nogil
cdef uint32_t outbox_clear(Outbox *outbox) noexcept nogil
cdef bint outbox_push(Outbox *outbox, SharedFrame *frame) noexcept nogil
cdef int outbox_gather(Outbox *outbox, iovec *vectors, size_t *total) noexcept nogil
cdef uint32_t outbox_consume(Outbox *outbox, size_t written) noexcept nogil
cdef Dropped outbox_drop(Outbox *outbox, int kind) noexcept nogil
