"""The table of connections: slots, generations, pending events, and the end of a connection.

What is stored. Connections live in chunks of 256 that are never moved or freed before the hub is,
so a pointer to one stays readable. A free slot is on a list. A cid is (generation << 24 | slot);
the generation counts adoptions, so a cid never comes back, and a lookup is one comparison.

Beside the chunks are two dense arrays by slot: `due` (8 bytes, scanned by the timers without
touching the connections), and `dirty` and `backlog` (a slot stands in each at most once, because
its `dirty` flags outlive the connection, so they can never overflow).

Events wait in an array of C structs until Python objects are made of them. Its capacity is kept
at least at (waiting events + open connections), by growing it in `connection_new`; therefore
EVENT_CLOSED always finds room, also without memory, and comes exactly once for every cid.

Cost. An idle connection: 192 bytes here, 16 in the dense arrays, 40 reserved for its last event,
16 in the topic table.
"""

from libc cimport errno as c_errno
from libc.errno cimport EMFILE, ENOMEM
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.stdint cimport INT64_MAX
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from syncbridge_core.frames cimport (
    CLOSE_NO_STATUS,
    OPCODE_PING,
    frame_parser_clear,
)
from syncbridge_core.linux cimport (
    CLOCK_MONOTONIC,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    epoll_create1,
    epoll_ctl,
    timerfd_create,
)
from syncbridge_core.outbox cimport (
    KIND_NOTICE,
    frame_new,
    frame_release,
    outbox_clear,
    outbox_init,
)
from syncbridge_core.topics cimport topics_clear, topics_forget, topics_reserve


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

__all__ = ["CONNECTION_BYTES", "EVENT_BYTES"]


cdef int table_init(Table *table) noexcept nogil:
    """Make an empty table with its epoll and timer descriptors. 0, or an errno."""
    cdef epoll_event interest
    memset(table, 0, sizeof(Table))
    table.epoll_fd = table.timer_fd = -1
    table.next_scan = INT64_MAX
    table.scratch = <uint8_t *>malloc(SCRATCH)
    table.ready = <epoll_event *>calloc(READY_BATCH, sizeof(epoll_event))
    table.ping = frame_new(OPCODE_PING, NULL, 0, KIND_NOTICE, 0)
    if table.scratch == NULL or table.ready == NULL or table.ping == NULL:
        return ENOMEM
    table.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    if table.epoll_fd < 0:
        return c_errno.errno
    table.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    if table.timer_fd < 0:
        return c_errno.errno
    interest.events = EPOLLIN
    interest.data.u64 = 0
    if epoll_ctl(table.epoll_fd, EPOLL_CTL_ADD, table.timer_fd, &interest) < 0:
        return c_errno.errno
    return 0


cdef void _release(Connection *connection) noexcept nogil:
    outbox_clear(&connection.outbox)
    frame_parser_clear(&connection.parser)
    frame_release(connection.farewell)
    connection.farewell = NULL


cdef void table_destroy(Table *table) noexcept nogil:
    """Close every descriptor and free everything; also after a failed `table_init`."""
    cdef uint32_t slot
    cdef Connection *connection
    for slot in range(table.chunk_count * CHUNK):
        connection = connection_at(table, slot)
        if connection.state != FREE:
            close(connection.fd)
            _release(connection)
    for slot in range(table.event_count):
        free(table.events[slot].owned)
    for slot in range(table.chunk_count):
        free(table.chunks[slot])
    frame_release(table.ping)
    free(table.chunks)
    free(table.due)
    free(table.dirty)
    free(table.backlog)
    free(table.events)
    free(table.scratch)
    free(table.ready)
    topics_clear(&table.topics)
    if table.timer_fd >= 0:
        close(table.timer_fd)
    if table.epoll_fd >= 0:
        close(table.epoll_fd)
    memset(table, 0, sizeof(Table))
    table.epoll_fd = table.timer_fd = -1


cdef bint _reserve_events(Table *table, uint32_t wanted) noexcept nogil:
    cdef uint32_t capacity = table.event_capacity if table.event_capacity else 64
    cdef Event *grown
    if wanted <= table.event_capacity:
        return True
    while capacity < wanted:
        capacity *= 2
    grown = <Event *>realloc(table.events, capacity * sizeof(Event))
    if grown == NULL:
        return False
    table.events = grown
    table.event_capacity = capacity
    return True


cdef bint event_push(
    Table *table, uint16_t kind, uint64_t cid, const uint8_t *data, uint32_t length, uint64_t aux,
    void *owned,
) noexcept nogil:
    """Append an event, keeping room for the last event of every open connection.

    False without memory; then `owned` has been freed and nothing is appended.
    """
    cdef Event *event
    if kind != EVENT_CLOSED and not _reserve_events(table, table.event_count + table.open + 1):
        free(owned)
        return False
    event = &table.events[table.event_count]
    table.event_count += 1
    event.kind = kind
    event.compressed = 0
    event.cid = cid
    event.data = data
    event.length = length
    event.aux = aux
    event.owned = owned
    return True


cdef bint _add_chunk(Table *table) noexcept nogil:
    cdef uint32_t slots = (table.chunk_count + 1) * CHUNK
    cdef uint32_t at
    cdef Connection *chunk
    cdef void *grown
    if slots > 1 << SLOT_BITS or not topics_reserve(&table.topics, slots):
        return False
    grown = realloc(table.chunks, (table.chunk_count + 1) * sizeof(Connection *))
    if grown == NULL:
        return False
    table.chunks = <Connection **>grown
    grown = realloc(table.due, slots * sizeof(int64_t))
    if grown == NULL:
        return False
    table.due = <int64_t *>grown
    grown = realloc(table.dirty, slots * sizeof(uint32_t))
    if grown == NULL:
        return False
    table.dirty = <uint32_t *>grown
    grown = realloc(table.backlog, slots * sizeof(uint32_t))
    if grown == NULL:
        return False
    table.backlog = <uint32_t *>grown
    chunk = <Connection *>aligned_alloc(64, CHUNK * sizeof(Connection))
    if chunk == NULL:
        return False
    memset(chunk, 0, CHUNK * sizeof(Connection))
    table.chunks[table.chunk_count] = chunk
    table.chunk_count += 1
    for at in range(slots, slots - CHUNK, -1):
        table.due[at - 1] = INT64_MAX
        chunk[(at - 1) & (CHUNK - 1)].cid = at - 1
        chunk[(at - 1) & (CHUNK - 1)].fd = <int>table.free_head
        table.free_head = at
    return True


cdef bint watch(Table *table, Connection *connection, uint32_t events) noexcept nogil:
    """Change what epoll reports about a connection."""
    cdef epoll_event interest
    interest.events = events
    interest.data.u64 = connection.cid
    return epoll_ctl(table.epoll_fd, EPOLL_CTL_MOD, connection.fd, &interest) == 0


cdef Connection *connection_new(Table *table, int fd) noexcept nogil:
    """Take a slot for a descriptor and register it. NULL with errno set; `fd` stays open then."""
    cdef Connection *connection
    cdef epoll_event interest
    cdef uint8_t dirty
    cdef uint32_t slot
    if table.limits.max_connections and table.open >= table.limits.max_connections:
        c_errno.errno = EMFILE
        return NULL
    if (
        not _reserve_events(table, table.event_count + table.open + 1)
        or (table.free_head == 0 and not _add_chunk(table))
    ):
        c_errno.errno = ENOMEM
        return NULL
    slot = table.free_head - 1
    connection = connection_at(table, slot)
    interest.events = EPOLLIN
    interest.data.u64 = (table.generation + 1) << SLOT_BITS | slot
    if epoll_ctl(table.epoll_fd, EPOLL_CTL_ADD, fd, &interest) < 0:
        return NULL
    table.generation += 1
    table.free_head = <uint32_t>connection.fd
    table.open += 1
    table.counters.accepted += 1
    dirty = connection.dirty
    memset(connection, 0, sizeof(Connection))
    outbox_init(&connection.outbox)
    connection.dirty = dirty
    connection.cid = interest.data.u64
    connection.fd = fd
    connection.state = OPEN
    return connection


cdef void connection_retire(Table *table, Connection *connection) noexcept nogil:
    """Close the socket, free what the connection holds, and queue its EVENT_CLOSED.

    Reports `close_code` (1006 when nothing was set) and the reason in `farewell`.
    """
    cdef SharedFrame *farewell = connection.farewell
    cdef uint32_t length = 0
    cdef void *reason = NULL
    cdef uint64_t code = connection.close_code if connection.close_code else 1006
    if farewell != NULL and code != CLOSE_NO_STATUS and farewell.length > 4:
        length = farewell.length - 4
        reason = malloc(length)
        if reason == NULL:
            length = 0
        else:
            memcpy(reason, farewell.data + 4, length)
    event_push(
        table, EVENT_CLOSED, connection.cid, <const uint8_t *>reason, length, code, reason
    )
    epoll_ctl(table.epoll_fd, EPOLL_CTL_DEL, connection.fd, NULL)
    close(connection.fd)
    topics_forget(&table.topics, slot_of(connection))
    table.counters.queued_bytes -= connection.outbox.queued
    table.counters.closed += 1
    table.open -= 1
    _release(connection)
    connection.state = FREE
    connection.fd = <int>table.free_head
    table.due[slot_of(connection)] = INT64_MAX
    table.free_head = slot_of(connection) + 1


CONNECTION_BYTES = sizeof(Connection)
EVENT_BYTES = sizeof(Event)
