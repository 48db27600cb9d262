"""From pending events to Python objects, and what compressed messages may cost on the way.

A message is unfolded when its object is made. A few bytes unfold to many, so whoever sends floods
of them must not have them unfolded:

* a connection that nobody vouches for (`unfolding`) has a budget for all of its messages, of which
  each takes a unit at least; then it is closed as a flood;
* of what is above the rate, receiving.pyx hands on the first few in a row, and here they are
  unfolded to LIMITED_MOST bytes: enough to tell the sender which one was refused.

A message that cannot be unfolded fails its connection, and what came behind it is not delivered.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memmove

from syncbridge_core.connections cimport (
    EVENT_LIMITED,
    EVENT_MESSAGE,
    FAILED,
    UNBOUNDED,
    UNIT,
    Connection,
    Event,
    connection_find,
)
from syncbridge_core.frames cimport CLOSE_TOO_BIG, OPCODE_TEXT
from syncbridge_core.receiving cimport refuse_message

from syncbridge_core.deflate import InflateError, inflate


cdef enum:
    LIMITED_MOST = 4096
    FLOOD = 4007


cdef inline bytes _payload(Event *event):
    if event.length == 0:
        return b""
    return PyBytes_FromStringAndSize(<const char *>event.data, event.length)


cdef int collect(Table *table, bint *busy, list found) except -1:
    """Move the waiting events into `found`. What did not fit into memory stays waiting.

    `busy` is set while foreign code runs that must not come back into the hub.
    """
    cdef uint32_t at = 0
    cdef bint refused = False
    cdef Event event  # a copy: a finalizer that runs here may call us and grow the array
    cdef bytes payload
    try:
        while at < table.event_count:
            event = table.events[at]
            if refused and _follows_refused(table, &event):
                free(event.owned)
                at += 1
                continue
            payload = _unfold(table, busy, &event) if event.compressed else _payload(&event)
            if payload is None:
                refused = True
            else:
                found.append((event.kind, event.cid, payload, event.aux))
            free(event.owned)
            at += 1
        table.scratch_used = 0
    finally:
        table.event_count -= at
        if table.event_count:
            memmove(table.events, table.events + at, table.event_count * sizeof(Event))
    return 0


cdef bytes _unfold(Table *table, bint *busy, Event *event):
    """The message of a compressed event; None when its connection was failed instead."""
    cdef bint limited = event.kind == EVENT_LIMITED
    cdef int64_t most = _bound(table, event)
    cdef int code
    cdef bytes packed, message
    if most == 0:
        _refuse(table, event, FLOOD, b"too many compressed messages before AUTH")
        return None
    packed = _payload(event)
    table.counters.inflated += 1
    busy[0] = True
    try:
        message = inflate(packed, most, event.compressed == OPCODE_TEXT)
    except InflateError as error:
        code, message = error.code, str(error).encode()
    else:
        code = 0
    finally:
        busy[0] = False
    if code == 0:
        _charge(table, event, len(message))
        return message
    if limited:
        _charge(table, event, most)
        return b""
    if code == CLOSE_TOO_BIG and most < table.limits.max_message:
        _refuse(table, event, FLOOD, b"too much compressed before AUTH")
    else:
        _refuse(table, event, code, message)
    return None


cdef int64_t _bound(Table *table, Event *event) noexcept:
    """Bytes that the message may unfold to."""
    cdef Connection *connection = connection_find(table, event.cid)
    cdef int64_t most = table.limits.max_message
    if event.kind == EVENT_LIMITED:
        most = min(most, <int64_t>LIMITED_MOST)
    if connection != NULL and connection.unfolding != UNBOUNDED:
        most = min(most, <int64_t>connection.unfolding * UNIT)
    return most


cdef void _charge(Table *table, Event *event, int64_t length) noexcept:
    """Charge a decompressed message to the budget, if its connection has one."""
    cdef Connection *connection = connection_find(table, event.cid)
    cdef int64_t units = max(<int64_t>1, (length + UNIT - 1) >> 10)
    if connection != NULL and connection.unfolding != UNBOUNDED:
        connection.unfolding -= <uint8_t>min(units, <int64_t>connection.unfolding)


cdef void _refuse(Table *table, Event *event, int code, bytes reason) noexcept:
    cdef Connection *connection = connection_find(table, event.cid)
    if connection != NULL:
        refuse_message(
            table, connection, code, <const uint8_t *>PyBytes_AS_STRING(reason), len(reason)
        )


cdef bint _follows_refused(Table *table, Event *event) noexcept:
    """Whether it is a message that came after one for which its connection was failed."""
    cdef Connection *connection = connection_find(table, event.cid)
    if event.kind != EVENT_MESSAGE and event.kind != EVENT_LIMITED:
        return False
    return connection != NULL and connection.state == FAILED
