"""Deadlines, pings, idle connections, unfinished messages and closings: one scan for all.

Each slot has one number in a dense array, `due`: no later than the next moment at which anything
about that connection can happen. Traffic does not touch it (it only moves things later); when the
scan finds it passed, it looks at the connection, acts, and computes the number anew. The scan
reads 8 bytes a slot in a row, about 5 microseconds for 10,000 connections, where a heap would pay
for every received byte and a wheel for every connection in memory.

All times are the caller's `now`. `next_scan` is the smallest number of the last scan, at most one
scan every (slots / 8192) ms, so that a hundred thousand connections do not mean a scan each ms.
The timer descriptor only wakes the caller, every TIMER_PERIOD while there are connections.
"""

from libc.stdint cimport INT64_MAX, uint8_t, uint32_t

from syncbridge_core.connections cimport (
    CHUNK,
    DOOMED,
    EVENT_DEADLINE,
    FAILED,
    OPEN,
    TIMER_PERIOD,
    connection_at,
    connection_retire,
    event_push,
    slot_of,
)
from syncbridge_core.linux cimport (
    MSG_DONTWAIT,
    MSG_PEEK,
    itimerspec,
    recv,
    timerfd_settime,
)
from syncbridge_core.sending cimport begin_close, enqueue


cdef enum:
    IDLE_TIMEOUT = 4006
    SLOTS_A_MS = 8192


cdef void wake_after(Table *table, long nanoseconds) noexcept nogil:
    """Let the descriptor become readable after that time and then every TIMER_PERIOD; 0 stops."""
    cdef itimerspec when
    when.it_value.tv_sec = 0
    when.it_value.tv_nsec = nanoseconds
    when.it_interval.tv_sec = 0
    when.it_interval.tv_nsec = TIMER_PERIOD * 1000000 if nanoseconds else 0
    timerfd_settime(table.timer_fd, 0, &when, NULL)


cdef inline int64_t _ping_at(Table *table, Connection *connection) noexcept nogil:
    cdef int64_t quiet_since = connection.last_received
    if table.limits.ping_interval == 0 or connection.bridged:
        return INT64_MAX
    if connection.last_ping > quiet_since:
        quiet_since = connection.last_ping
    return quiet_since + table.limits.ping_interval


cdef inline int64_t _idle_at(Table *table, Connection *connection) noexcept nogil:
    if table.limits.idle_timeout == 0:
        return INT64_MAX
    return connection.last_received + table.limits.idle_timeout


cdef inline int64_t _unfinished_at(Table *table, Connection *connection) noexcept nogil:
    """When the open message must have ended; its beginning is known by its low bits."""
    if connection.began == 0:
        return INT64_MAX
    return (
        table.now - <uint32_t>(<uint32_t>table.now - connection.began)
        + table.limits.message_timeout
    )


cdef void plan(Table *table, Connection *connection) noexcept nogil:
    """Set `due` of a connection to the first thing that can happen to it."""
    cdef int64_t due = connection.deadline if connection.deadline else INT64_MAX
    if connection.state == OPEN:
        due = min(due, min(_ping_at(table, connection), _idle_at(table, connection)))
        due = min(due, _unfinished_at(table, connection))
    table.due[slot_of(connection)] = due
    if due < table.next_scan:
        table.next_scan = due


cdef void _check_idle(Table *table, Connection *connection) noexcept nogil:
    """Close a silent connection, unless bytes of it wait unread because the caller was late."""
    cdef uint8_t probe
    if recv(connection.fd, &probe, 1, MSG_DONTWAIT | MSG_PEEK) > 0:
        connection.last_received = table.now
        return
    table.counters.idle_closed += 1
    begin_close(table, connection, IDLE_TIMEOUT, b"nothing heard for too long", 26, DOOMED)


cdef void _fire(Table *table, Connection *connection) noexcept nogil:
    """Run the due timers of one connection. It may be closed afterwards."""
    if connection.state != OPEN:
        if connection.deadline <= table.now:
            connection_retire(table, connection)
            return
    elif connection.deadline and connection.deadline <= table.now:
        if event_push(
            table, EVENT_DEADLINE, connection.cid, NULL, 0, connection.deadline, NULL
        ):
            connection.deadline = 0
    if connection.state == OPEN and _unfinished_at(table, connection) <= table.now:
        table.counters.idle_closed += 1
        begin_close(table, connection, IDLE_TIMEOUT, b"message not ended in time", 25, FAILED)
    if connection.state == OPEN and _idle_at(table, connection) <= table.now:
        _check_idle(table, connection)
    if connection.state == OPEN and _ping_at(table, connection) <= table.now:
        connection.last_ping = table.now
        if not connection.outbox.armed:
            table.counters.pings += 1
            enqueue(table, connection, table.ping)
    plan(table, connection)


cdef void run_timers(Table *table) noexcept nogil:
    """Run the due timers of every connection. Changes are left on the dirty list."""
    cdef uint32_t slot, slots = table.chunk_count * CHUNK
    cdef int64_t nearest = INT64_MAX
    table.next_scan = INT64_MAX
    for slot in range(slots):
        if table.due[slot] <= table.now:
            _fire(table, connection_at(table, slot))
        if table.due[slot] < nearest:
            nearest = table.due[slot]
    table.next_scan = max(nearest, table.now + slots // SLOTS_A_MS)
    if table.open == 0:
        table.next_scan = INT64_MAX
