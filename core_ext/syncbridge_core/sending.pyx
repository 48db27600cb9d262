"""Everything on its way out: the slow-reader policy, fan-out, writing, the closing handshake.

Enqueueing never waits and, in the common case, never makes a system call: it puts a pointer into
the outbox and the connection on the dirty list. `write_dirty` then makes one call a connection,
`send` for one frame and a gathered `sendmsg` for several. A socket that is full is armed with
EPOLLOUT and left alone until epoll reports it.

A message to ten thousand takes fifty milliseconds of such calls, in which nothing else would be
heard or answered. So when more than WRITE_SLICE connections are dirty, they go to the backlog, of
which each flush writes a slice, in order. Who gets something new while he waits there gets both in
one call; and a few that are dirty, by a reply for instance, are written to before the slice.

Policy for a reader that is too slow, in this order, when `queued` would pass a bound:
1. above conflate_bytes, first try to write, if the socket has not refused already;
2. drop queued SPEAKING frames, and the new frame if it is one; when the queue has drained as far as
   below, one EVENT_HUSHED says that the reader has missed speaking events;
3. drop queued STATE frames and mark the connection stale with the tag of the oldest; further
   STATE frames are dropped until the queue has drained to a quarter of conflate_bytes, when one
   EVENT_RESYNC tells the caller from which tag on the reader must be brought up to date;
4. above max_outbox, drop the rest, try to write close frame 4008, close the socket. A frame larger
   than max_outbox is still accepted by an empty queue, so the true bound is the larger of the two.
A frame of which the kernel has a part is never dropped, and nothing is written in its middle.

Nothing here ends a connection while a topic is being walked: enqueueing only changes `state` and
marks it dirty; `write_out` retires it.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy, memmove, memset

from syncbridge_core.connections cimport (
    ANSWERED,
    BEHIND,
    BROKEN,
    DIRTY,
    DOOMED,
    EVENT_HUSHED,
    EVENT_RESYNC,
    FAILED,
    FREE,
    OPEN,
    WRITE_SLICE,
    connection_at,
    connection_retire,
    event_push,
    look_at,
    mark_dirty,
    watch,
    slot_of,
)
from syncbridge_core.frames cimport CONTROL_MAX, OPCODE_CLOSE, OPCODE_PONG
from syncbridge_core.linux cimport (
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_WR,
    iovec,
    msghdr,
    send,
    sendmsg,
    shutdown,
)
from syncbridge_core.outbox cimport (
    FORM_BINARY,
    FORMS,
    GATHER,
    KIND_REPLY,
    KIND_SPEAKING,
    KIND_STATE,
    Dropped,
    frame_new,
    frame_release,
    outbox_consume,
    outbox_drop,
    outbox_gather,
    outbox_push,
)


cdef extern from *:
    """
    #define prefetch(address) __builtin_prefetch((address), 1, 3)
    """
    void prefetch(const void *address) noexcept nogil


cdef enum:
    SLOW_CONSUMER = 4008


cdef void _arm(Table *table, Connection *connection, bint writable) noexcept nogil:
    """Turn EPOLLOUT on or off. A connection that only waits to be closed is not read any more."""
    cdef uint32_t interest = 0 if connection.state == ANSWERED else EPOLLIN
    connection.outbox.armed = writable
    watch(table, connection, interest | EPOLLOUT if writable else interest)


cdef ssize_t _write_once(Connection *connection, size_t *total) noexcept nogil:
    """Write the head of the outbox in one system call; returns its result."""
    cdef iovec vectors[GATHER]
    cdef msghdr message
    cdef int count = outbox_gather(&connection.outbox, vectors, total)
    if count == 1:
        return send(
            connection.fd, vectors[0].iov_base, vectors[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL
        )
    memset(&message, 0, sizeof(msghdr))
    message.msg_iov = vectors
    message.msg_iovlen = count
    return sendmsg(connection.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)


cdef void _pump(Table *table, Connection *connection) noexcept nogil:
    """Write until the outbox is empty or the socket is full (armed) or dead (BROKEN)."""
    cdef size_t total = 0
    cdef ssize_t written
    while connection.outbox.count:
        written = _write_once(connection, &total)
        table.counters.writes += 1
        if written < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                connection.state = BROKEN
                return
            written = 0
        table.counters.bytes_out += written
        table.counters.queued_bytes -= written
        table.counters.frames_out += outbox_consume(&connection.outbox, written)
        if <size_t>written < total:
            if not connection.outbox.armed:
                _arm(table, connection, True)
            return


cdef void _count_drop(Table *table, Connection *connection, int kind) noexcept nogil:
    """Drop the queued frames of one kind and count them."""
    cdef Dropped dropped = outbox_drop(&connection.outbox, kind)
    table.counters.queued_bytes -= dropped.bytes
    if kind == KIND_SPEAKING:
        table.counters.speaking_dropped += dropped.frames
        if dropped.frames:
            connection.outbox.hushed = True
    elif kind == KIND_STATE and dropped.frames:
        table.counters.state_dropped += dropped.frames
        connection.outbox.stale = True
        connection.stale_tag = dropped.oldest_tag


cdef void _too_slow(Table *table, Connection *connection) noexcept nogil:
    cdef Dropped dropped = outbox_drop(&connection.outbox, -1)
    table.counters.queued_bytes -= dropped.bytes
    table.counters.slow_closed += 1
    begin_close(table, connection, SLOW_CONSUMER, b"reads too slowly", 16, DOOMED)


cdef bint _fits(Connection *connection, SharedFrame *frame, uint32_t bound) noexcept nogil:
    return <uint64_t>connection.outbox.queued + frame.length <= bound


cdef bint _make_room(Table *table, Connection *connection, SharedFrame *frame) noexcept nogil:
    """Apply the policy to a queue that the frame would take above conflate_bytes.

    Returns whether the frame is to be queued.
    """
    cdef uint32_t bound = table.limits.conflate_bytes
    if not connection.outbox.armed:
        _pump(table, connection)
        if connection.state == BROKEN:
            mark_dirty(table, connection)
            return False
    if _fits(connection, frame, bound):
        return True
    if connection.outbox.droppable:
        _count_drop(table, connection, KIND_SPEAKING)
        if _fits(connection, frame, bound):
            return True
        _count_drop(table, connection, KIND_STATE)
        connection.outbox.droppable = False
    if connection.outbox.count == 0:
        return True
    if frame.kind == KIND_SPEAKING:
        table.counters.speaking_dropped += 1
        connection.outbox.hushed = True
        return False
    if frame.kind == KIND_STATE:
        if not connection.outbox.stale:
            connection.outbox.stale = True
            connection.stale_tag = frame.tag
        table.counters.state_dropped += 1
        return False
    if not _fits(connection, frame, table.limits.max_outbox):
        _too_slow(table, connection)
        return False
    return True


cdef bint enqueue(Table *table, Connection *connection, SharedFrame *frame) noexcept nogil:
    """Queue a data frame for an OPEN connection. False when the policy dropped it."""
    if connection.outbox.stale and frame.kind == KIND_STATE:
        table.counters.state_dropped += 1
        return False
    if not _fits(connection, frame, table.limits.conflate_bytes):
        if not _make_room(table, connection, frame):
            return False
    if not outbox_push(&connection.outbox, frame):
        _too_slow(table, connection)
        return False
    table.counters.queued_bytes += frame.length
    if not connection.outbox.armed:
        mark_dirty(table, connection)
    return True


cdef SharedFrame *_frame_for(Publication *message, uint8_t form) noexcept nogil:
    """The shared frame of a form, made at its first use.

    NULL when there is none, or when it must be compressed first, which needs the GIL; then
    `wanted` is set.
    """
    cdef uint8_t encoding = form & FORM_BINARY
    if message.frames[form] != NULL or message.payloads[encoding] == NULL:
        return message.frames[form]
    if form == encoding:
        message.frames[form] = frame_new(
            1 + encoding, message.payloads[encoding], message.lengths[encoding], message.kind,
            message.tag,
        )
        if message.frames[form] == NULL:
            message.out_of_memory = True
    elif not message.plain[encoding]:
        message.wanted = form
    else:
        message.frames[form] = _frame_for(message, encoding)
        if message.frames[form] != NULL:
            message.frames[form].references += 1
    return message.frames[form]


cdef void publication_clear(Publication *message) noexcept nogil:
    """Hand the frames to the outboxes that queue them."""
    cdef unsigned int form
    for form in range(FORMS):
        frame_release(message.frames[form])
        message.frames[form] = NULL


cdef uint32_t publish_to(Table *table, Topic *topic, Publication *message) noexcept nogil:
    """Queue a message for the members of a topic; returns how many have it queued.

    Stops early at a member for whom the caller must first make the frame that `wanted` names, and
    is then called again. O(members), one or two cache lines a member.
    """
    cdef uint32_t position, reached = 0, count = topic.count
    cdef uint32_t ahead
    cdef Connection *connection
    cdef SharedFrame *frame
    for position in range(message.position, count):
        ahead = position + 8
        if ahead < count:
            prefetch(connection_at(table, topic.members[ahead].slot))
        connection = connection_at(table, topic.members[position].slot)
        if connection.state != OPEN:
            continue
        if message.exclude and connection.cid == message.exclude:
            continue
        frame = message.frames[connection.form]
        if frame == NULL:
            frame = _frame_for(message, connection.form)
        if frame != NULL:
            reached += enqueue(table, connection, frame)
        elif message.wanted or message.out_of_memory:
            message.position = position
            break
    return reached


cdef void begin_close(
    Table *table, Connection *connection, uint16_t code, const uint8_t *reason, size_t length,
    uint8_t state,
) noexcept nogil:
    """Queue a close frame after what is queued and go on to `state` (section 5.5.1, 7.1).

    code: the code for the frame and for EVENT_CLOSED; 1005 sends an empty close frame. `reason`
    at most 123 bytes. Without memory the connection is BROKEN instead.
    """
    cdef uint8_t payload[125]
    cdef SharedFrame *frame
    payload[0] = <uint8_t>(code >> 8)
    payload[1] = <uint8_t>(code & 0xff)
    if length > CONTROL_MAX - 2:
        length = CONTROL_MAX - 2
    if length:
        memcpy(payload + 2, reason, length)
    frame = frame_new(OPCODE_CLOSE, payload, 0 if code == 1005 else length + 2, KIND_REPLY, 0)
    connection.close_code = code
    connection.state = BROKEN
    connection.farewell = frame
    mark_dirty(table, connection)
    if frame == NULL or not outbox_push(&connection.outbox, frame):
        return
    table.counters.queued_bytes += frame.length
    connection.state = state
    connection.deadline = max(1, table.now + table.limits.close_timeout)  # 0 means none
    look_at(table, connection, connection.deadline)


cdef void send_control(
    Table *table, Connection *connection, unsigned int opcode, const uint8_t *payload,
    size_t length,
) noexcept nogil:
    """Queue a ping or a pong. A pong is given up first under pressure (section 5.5.3 lets us)."""
    cdef uint8_t kind = KIND_SPEAKING if opcode == OPCODE_PONG else KIND_REPLY
    cdef SharedFrame *frame = frame_new(opcode, payload, length, kind, 0)
    if frame != NULL:
        enqueue(table, connection, frame)
        frame_release(frame)


cdef void _caught_up(Table *table, Connection *connection) noexcept nogil:
    """Tell the caller once that a reader that missed messages can be resynchronised."""
    if connection.outbox.queued > table.limits.conflate_bytes >> 2 or connection.state != OPEN:
        return
    if connection.outbox.stale and event_push(
        table, EVENT_RESYNC, connection.cid, NULL, 0, connection.stale_tag, NULL
    ):
        connection.outbox.stale = False
    if connection.outbox.hushed and event_push(
        table, EVENT_HUSHED, connection.cid, NULL, 0, 0, NULL
    ):
        connection.outbox.hushed = False


cdef void write_out(Table *table, Connection *connection) noexcept nogil:
    """Write as much as possible, then handle an empty outbox or a dead socket."""
    if connection.state != BROKEN:
        _pump(table, connection)
    if connection.state == BROKEN or connection.state == DOOMED:
        connection_retire(table, connection)
        return
    if connection.outbox.stale or connection.outbox.hushed:
        _caught_up(table, connection)
    if connection.outbox.count:
        if connection.state == ANSWERED:
            _arm(table, connection, True)
        return
    if connection.state == ANSWERED:
        connection_retire(table, connection)
        return
    if connection.outbox.armed:
        _arm(table, connection, False)
    if connection.state == FAILED and not connection.half_closed:
        connection.half_closed = True
        shutdown(connection.fd, SHUT_WR)


cdef inline void _write_slots(
    Table *table, uint32_t *slots, uint32_t count, uint8_t flag
) noexcept nogil:
    """Take the flag from connections and write to them, one call each."""
    cdef uint32_t position
    cdef Connection *connection
    for position in range(count):
        if position + 4 < count:
            prefetch(connection_at(table, slots[position + 4]))
        connection = connection_at(table, slots[position])
        connection.dirty &= ~flag
        if connection.state != FREE:
            write_out(table, connection)


cdef void _postpone(Table *table) noexcept nogil:
    """Put all that are dirty at the end of the backlog, unless they stand in it."""
    cdef uint32_t position
    cdef Connection *connection
    for position in range(table.dirty_count):
        connection = connection_at(table, table.dirty[position])
        if not connection.dirty & BEHIND:
            table.backlog[table.backlog_count] = slot_of(connection)
            table.backlog_count += 1
        connection.dirty = BEHIND


cdef void write_dirty(Table *table) noexcept nogil:
    """Write to every connection that has something new; if they are many, leave it to slices."""
    if table.dirty_count > WRITE_SLICE:
        _postpone(table)
    else:
        _write_slots(table, table.dirty, table.dirty_count, DIRTY)
    table.dirty_count = 0


cdef void write_backlog(Table *table) noexcept nogil:
    """Write to those of the backlog who have waited longest, WRITE_SLICE at most."""
    cdef uint32_t count = min(table.backlog_count, <uint32_t>WRITE_SLICE)
    _write_slots(table, table.backlog, count, BEHIND)
    table.backlog_count -= count
    memmove(table.backlog, table.backlog + count, table.backlog_count * sizeof(uint32_t))
