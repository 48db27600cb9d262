"""Shared outgoing frames and the bounded queue of one connection.

What is stored. A frame is encoded once, header and payload in one malloc'd block, and counted by
references: the publisher holds one while it enqueues, each queue holds one per entry. The counts
are not atomic; one thread uses a hub. A queue is a ring of pointers; the first four live in the
connection itself, so that a connection that keeps up never allocates. A longer queue moves to
the heap and comes back when it has drained.

Invariant. `queued` is the sum of the lengths of the frames minus `written`. `written` is 0 or less
than the length of the head frame. A head frame with `written` > 0 is never dropped, because the
peer has its start: what follows on the stream must be its rest.

Cost. Push and pop O(1); `outbox_drop` O(frames), and `droppable` keeps it from being repeated for
nothing. Policy (when to drop, when to give up) is in sending.pyx; this file only moves pointers.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from syncbridge_core.frames cimport frame_header_length, frame_write_header


cdef SharedFrame *frame_new(
    unsigned int opcode, const uint8_t *payload, size_t length, uint8_t kind, uint64_t tag,
) noexcept nogil:
    """A frame with one reference, or NULL without memory. `opcode` may have RSV1 added."""
    cdef unsigned int header = frame_header_length(length)
    cdef SharedFrame *frame
    if length > 0x7fffffff:
        return NULL
    frame = <SharedFrame *>malloc(sizeof(SharedFrame) + header + length)
    if frame == NULL:
        return NULL
    frame.references = 1
    frame.length = <uint32_t>(header + length)
    frame.tag = tag
    frame.kind = kind
    frame.header_length = <uint8_t>header
    frame_write_header(frame.data, opcode, length)
    if length:
        memcpy(frame.data + header, payload, length)
    return frame


cdef void frame_release(SharedFrame *frame) noexcept nogil:
    if frame == NULL:
        return
    frame.references -= 1
    if frame.references == 0:
        free(frame)


cdef inline SharedFrame **slots_of(Outbox *outbox) noexcept nogil:
    if outbox.capacity > INLINE_FRAMES:
        return outbox.frames.ring
    return outbox.frames.inline_frames


cdef inline SharedFrame **slot_at(Outbox *outbox, uint32_t position) noexcept nogil:
    return &slots_of(outbox)[(outbox.head + position) & (outbox.capacity - 1)]


cdef void outbox_init(Outbox *outbox) noexcept nogil:
    memset(outbox, 0, sizeof(Outbox))
    outbox.capacity = INLINE_FRAMES


cdef uint32_t outbox_clear(Outbox *outbox) noexcept nogil:
    """Drop everything, for a socket that is about to be closed; returns the bytes given up."""
    cdef uint32_t queued = outbox.queued
    cdef uint32_t position
    for position in range(outbox.count):
        frame_release(slot_at(outbox, position)[0])
    if outbox.capacity > INLINE_FRAMES:
        free(outbox.frames.ring)
    outbox_init(outbox)
    return queued


cdef bint _grow(Outbox *outbox) noexcept nogil:
    cdef uint32_t capacity = outbox.capacity * 2
    cdef uint32_t position
    cdef SharedFrame **ring
    if capacity > MAX_FRAMES:
        return False
    ring = <SharedFrame **>malloc(capacity * sizeof(SharedFrame *))
    if ring == NULL:
        return False
    for position in range(outbox.count):
        ring[position] = slot_at(outbox, position)[0]
    if outbox.capacity > INLINE_FRAMES:
        free(outbox.frames.ring)
    outbox.frames.ring = ring
    outbox.capacity = capacity
    outbox.head = 0
    return True


cdef bint outbox_push(Outbox *outbox, SharedFrame *frame) noexcept nogil:
    """Append a frame, taking a reference of its own. False without memory or at MAX_FRAMES."""
    if outbox.count == outbox.capacity and not _grow(outbox):
        return False
    slot_at(outbox, outbox.count)[0] = frame
    frame.references += 1
    outbox.count += 1
    outbox.queued += frame.length
    if frame.kind <= KIND_STATE:
        outbox.droppable = True
    return True


cdef int outbox_gather(Outbox *outbox, iovec *vectors, size_t *total) noexcept nogil:
    """Fill at most GATHER vectors with the next bytes to write; returns their number."""
    cdef uint32_t position, skip = outbox.written
    cdef uint32_t limit = outbox.count if outbox.count < GATHER else GATHER
    cdef SharedFrame *frame
    total[0] = 0
    for position in range(limit):
        frame = slot_at(outbox, position)[0]
        vectors[position].iov_base = frame.data + skip
        vectors[position].iov_len = frame.length - skip
        total[0] += frame.length - skip
        skip = 0
    return <int>limit


cdef uint32_t outbox_consume(Outbox *outbox, size_t written) noexcept nogil:
    """Bytes went to the kernel: drop the frames that are done; returns how many."""
    cdef uint32_t done = 0
    cdef SharedFrame *frame
    outbox.queued -= <uint32_t>written
    written += outbox.written
    while outbox.count:
        frame = slot_at(outbox, 0)[0]
        if written < frame.length:
            break
        written -= frame.length
        outbox.head = (outbox.head + 1) & (outbox.capacity - 1)
        outbox.count -= 1
        frame_release(frame)
        done += 1
    outbox.written = <uint32_t>written
    if outbox.count == 0:
        outbox.droppable = False
        outbox.head = 0
        if outbox.capacity > INLINE_FRAMES:
            free(outbox.frames.ring)
            outbox.capacity = INLINE_FRAMES
    return done


cdef Dropped outbox_drop(Outbox *outbox, int kind) noexcept nogil:
    """Drop all frames of one kind, or all for a negative kind, but never a half-written one."""
    cdef Dropped dropped
    cdef uint32_t position, kept = 0
    cdef SharedFrame *frame
    dropped.frames = dropped.bytes = 0
    dropped.oldest_tag = 0
    for position in range(outbox.count):
        frame = slot_at(outbox, position)[0]
        if (kind < 0 or frame.kind == kind) and not (position == 0 and outbox.written):
            if dropped.frames == 0:
                dropped.oldest_tag = frame.tag
            dropped.frames += 1
            dropped.bytes += frame.length
            frame_release(frame)
        else:
            slot_at(outbox, kept)[0] = frame
            kept += 1
    outbox.count = kept
    outbox.queued -= dropped.bytes
    return dropped
