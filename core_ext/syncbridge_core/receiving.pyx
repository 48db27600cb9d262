"""Everything that comes in: reading, messages, control frames, the rate limit.

All connections read into one scratch buffer, one after the other, each where the last stopped.
Messages are unmasked there and their events point into it, so nothing is copied before Python
objects are made; then the buffer is empty again. A connection has memory of its own only while a
message of it has begun and not ended.

A message must end `message_timeout` after it began, however it is cut into frames and writes
(timers.pyx): else its connection would hold that memory for as long as it likes.

Fairness. epoll_wait hands out at most READY_BATCH descriptors and they are worked off in order,
over several polls if need be, before the kernel is asked again; it then puts those that are still
readable behind the others. One connection reads at most READ_MOST bytes a poll.

A read asks for no more bytes than could carry the events that still fit (a masked frame has at
least six bytes), so a poll passes `max_events` by little.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.unistd cimport read

from syncbridge_core.connections cimport (
    ANSWERED,
    BROKEN,
    CLOSING,
    EVENT_LIMITED,
    EVENT_MESSAGE,
    FAILED,
    FREE,
    OPEN,
    READ_LEAST,
    READ_MOST,
    SCRATCH,
    connection_find,
    connection_retire,
    event_push,
    look_at,
    mark_dirty,
)
from syncbridge_core.frames cimport (
    CLOSE_INTERNAL_ERROR,
    CLOSE_INVALID_DATA,
    CLOSE_TOO_BIG,
    FRAME_CLOSE,
    FRAME_FAILED,
    FRAME_MESSAGE,
    FRAME_NEED_MORE,
    FRAME_PING,
    FRAME_PONG,
    OPCODE_PONG,
    frame_event,
    frame_parser_next,
)
from syncbridge_core.linux cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    recv,
)
from syncbridge_core.sending cimport begin_close, send_control, write_out


cdef enum:
    TOKEN = 1000            # the bucket counts thousandths of a message
    LONGEST_REFILL = 86400000
    SMALLEST_FRAME = 6
    UNFOLDED = 16           # of the messages in a row without a token
    FLOOD = 4007


@cython.cdivision(True)  # the rate is not zero there, and C division needs no exception
cdef int64_t _take_token(Table *table, Connection *connection) noexcept nogil:
    """0 when the message has a token, else the ms until the next one."""
    cdef int64_t elapsed = table.now - connection.refilled
    cdef int64_t full = <int64_t>connection.burst * TOKEN
    cdef int64_t tokens = connection.tokens
    if connection.rate == 0:
        return 0
    if elapsed > 0:
        connection.refilled = table.now
        tokens = min(full, tokens + min(elapsed, LONGEST_REFILL) * connection.rate)
    connection.tokens = <uint32_t>tokens
    if tokens < TOKEN:
        return (TOKEN - tokens + connection.rate - 1) // connection.rate
    connection.tokens -= TOKEN
    connection.limited = 0
    return 0


cdef bint _admit(Table *table, Connection *connection, int64_t *wait) noexcept nogil:
    """Rate limit for one message or ping."""
    wait[0] = _take_token(table, connection)
    if wait[0] == 0:
        return True
    connection.limited += 1
    table.counters.rate_limited += 1
    return False


cdef bint _limited(Table *table, Connection *connection, uint64_t *wait) noexcept nogil:
    """Whether a message without a token is worth an event. `wait` 0: the last one, a flood.

    The caller closes a connection that floods, so that answers to what came before go out first;
    until it does, the rest is dropped unread.
    """
    cdef int64_t excess = <int64_t>connection.limited - <int64_t>table.limits.flood_messages
    if excess == 1:
        wait[0] = 0
    return excess <= 1


cdef void _take_message(
    Table *table, Connection *connection, frame_event *frame, bint stable,
) noexcept nogil:
    """Turn a whole message into an event. `stable`: its bytes stay until events are delivered."""
    cdef int64_t wait = 0
    cdef void *owned = frame.payload_block if frame.owned else NULL
    cdef uint16_t kind = EVENT_MESSAGE
    cdef uint64_t aux = frame.opcode
    table.counters.messages_in += 1
    connection.began = 0
    if not _admit(table, connection, &wait):
        kind = EVENT_LIMITED
        aux = wait
        if not _limited(table, connection, &aux):
            free(owned)
            return
        if frame.compressed and connection.limited > UNFOLDED:
            free(owned)
            owned = NULL
            frame.length = frame.compressed = 0
    if not stable and owned == NULL and frame.length:
        owned = malloc(frame.length)
        if owned == NULL:
            connection.state = BROKEN
            mark_dirty(table, connection)
            return
        memcpy(owned, frame.payload, frame.length)
        frame.payload = <uint8_t *>owned
    if not event_push(
        table, kind, connection.cid, frame.payload, frame.length, aux, owned
    ):
        connection.state = BROKEN
        mark_dirty(table, connection)
    elif frame.compressed:
        table.events[table.event_count - 1].compressed = frame.opcode


cdef void _take_close(Table *table, Connection *connection, frame_event *frame) noexcept nogil:
    """The peer's close frame: echo it, or, when ours is out, the handshake is done."""
    if connection.state == OPEN:
        begin_close(
            table, connection, frame.code, frame.payload, frame.length, ANSWERED
        )
    else:
        connection.state = ANSWERED
        mark_dirty(table, connection)


cdef void refuse_message(
    Table *table, Connection *connection, uint16_t code, const uint8_t *reason, size_t length,
) noexcept nogil:
    """A message that was handed out already turned out to be wrong: fail the connection."""
    table.counters.protocol_errors += 1
    if connection.state == OPEN:
        begin_close(table, connection, code, reason, length, FAILED)


cdef void _refuse(Table *table, Connection *connection, uint16_t code) noexcept nogil:
    """The peer broke RFC 6455: fail the connection (section 7.1.7)."""
    table.counters.protocol_errors += 1
    if connection.state != OPEN:
        connection.state = ANSWERED
        mark_dirty(table, connection)
    elif code == CLOSE_TOO_BIG:
        begin_close(table, connection, code, b"message too big", 15, FAILED)
    elif code == CLOSE_INVALID_DATA:
        begin_close(table, connection, code, b"text is not UTF-8", 17, FAILED)
    elif code == CLOSE_INTERNAL_ERROR:
        begin_close(table, connection, code, b"internal error", 14, FAILED)
    else:
        begin_close(table, connection, code, b"protocol error", 14, FAILED)


cdef void _take_control(
    Table *table, Connection *connection, int kind, frame_event *frame,
) noexcept nogil:
    cdef int64_t wait = 0
    if kind == FRAME_CLOSE:
        _take_close(table, connection, frame)
    elif kind == FRAME_FAILED:
        _refuse(table, connection, frame.code)
    elif kind == FRAME_PONG:
        table.counters.pongs += 1
    elif kind == FRAME_PING and connection.state == OPEN:
        if _admit(table, connection, &wait):
            send_control(table, connection, OPCODE_PONG, frame.payload, frame.length)
        elif connection.limited > table.limits.flood_messages:
            begin_close(table, connection, FLOOD, b"too many messages", 17, FAILED)
    if frame.owned:
        free(frame.payload_block)


cdef void _note_open(Table *table, Connection *connection) noexcept nogil:
    """The bytes are used up: if a message is open now, its time runs."""
    if connection.parser.message_opcode == 0 or connection.began:
        return
    if table.limits.message_timeout:
        connection.began = max(<uint32_t>1, <uint32_t>table.now)
        look_at(table, connection, table.now + table.limits.message_timeout)


cdef void _parse(
    Table *table, Connection *connection, uint8_t *cursor, uint8_t *end, bint stable,
) noexcept nogil:
    """Run the parser over new bytes until they are used up or the connection stops reading."""
    cdef frame_event frame
    cdef int kind
    while connection.state == OPEN or connection.state == CLOSING:
        kind = frame_parser_next(
            &connection.parser, &cursor, end, table.limits.max_message, &frame
        )
        if kind == FRAME_NEED_MORE:
            _note_open(table, connection)
            return
        if kind != FRAME_MESSAGE:
            _take_control(table, connection, kind, &frame)
        elif connection.state == OPEN:
            _take_message(table, connection, &frame, stable)
        elif frame.owned:
            free(frame.payload_block)


cdef void receive_initial(
    Table *table, Connection *connection, uint8_t *data, size_t length,
) noexcept nogil:
    """Parse bytes that came with the handshake; `data` is changed and may go away afterwards."""
    table.counters.bytes_in += length
    _parse(table, connection, data, data + length, False)


cdef void _lost(Table *table, Connection *connection) noexcept nogil:
    """The peer's side of the socket is gone; after a close frame of ours its code stands."""
    connection_retire(table, connection)


cdef size_t _room(Table *table, size_t budget, size_t max_events) noexcept nogil:
    """How many bytes to read: bounded by the scratch buffer, the poll and the event budget."""
    cdef size_t left = SCRATCH - table.scratch_used
    cdef size_t useful = (max_events - table.event_count) * SMALLEST_FRAME
    if useful < READ_LEAST:
        useful = READ_LEAST
    if left > useful:
        left = useful
    return left if left < budget else budget


cdef void _receive(Table *table, Connection *connection, size_t max_events) noexcept nogil:
    """Read one connection until it is empty or has had its share."""
    cdef size_t budget = READ_MOST
    cdef size_t wanted
    cdef ssize_t got
    cdef uint32_t events
    cdef uint8_t *start
    while (
        budget and table.event_count < max_events
        and SCRATCH - table.scratch_used >= READ_LEAST
    ):
        wanted = _room(table, budget, max_events)
        start = table.scratch + table.scratch_used
        got = recv(connection.fd, start, wanted, MSG_DONTWAIT)
        if got <= 0:
            if got == 0 or (errno != EAGAIN and errno != EINTR):
                _lost(table, connection)
            return
        table.counters.bytes_in += got
        connection.last_received = table.now
        events = table.event_count
        _parse(table, connection, start, start + got, True)
        if table.event_count != events:
            table.scratch_used += (got + 7) & ~<size_t>7
        if connection.state == ANSWERED or connection.state == BROKEN or <size_t>got < wanted:
            return
        budget -= got


cdef void _tick(Table *table) noexcept nogil:
    """The timer fired; it has done its work by waking the caller."""
    cdef uint64_t expirations
    read(table.timer_fd, &expirations, sizeof(expirations))


cdef void _serve(
    Table *table, uint64_t cid, uint32_t events, size_t max_events,
) noexcept nogil:
    """Handle the epoll events of one connection."""
    cdef Connection *connection = connection_find(table, cid)
    if connection == NULL:
        return
    if events & EPOLLOUT:
        write_out(table, connection)
        if connection.cid != cid or connection.state == FREE:
            return
    if connection.state == ANSWERED:
        if events & (EPOLLERR | EPOLLHUP):
            _lost(table, connection)
    elif events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        _receive(table, connection, max_events)


cdef void process_ready(Table *table, size_t max_events) noexcept nogil:
    """Handle epoll events until the event list or the scratch buffer is full."""
    while (
        table.ready_at < table.ready_count
        and table.event_count < max_events
        and SCRATCH - table.scratch_used >= READ_LEAST
    ):
        if table.ready[table.ready_at].data.u64 == 0:
            _tick(table)
        else:
            _serve(
                table, table.ready[table.ready_at].data.u64,
                table.ready[table.ready_at].events, max_events,
            )
        table.ready_at += 1
