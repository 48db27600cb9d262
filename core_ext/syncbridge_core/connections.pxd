"""The data model of the hub: connections, their table, pending events. See connections.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from syncbridge_core.frames cimport frame_parser
from syncbridge_core.linux cimport epoll_event
from syncbridge_core.outbox cimport Outbox, SharedFrame
from syncbridge_core.topics cimport TopicTable


cdef enum:
    SLOT_BITS = 24
    CHUNK_BITS = 8
    CHUNK = 256               # connections allocated at once
    READY_BATCH = 512         # descriptors of one epoll_wait
    SCRATCH = 262144          # bytes that one pass over the sockets can read
    READ_MOST = 65536         # bytes one connection may read in one poll
    READ_LEAST = 4096         # do not start a read with less room
    WRITE_SLICE = 1024        # connections of the backlog that one flush writes to
    TIMER_PERIOD = 250        # ms
    RATE_MOST = 1000000       # of tokens a second and of burst


cdef enum Unfolding:
    UNIT = 1024               # bytes
    UNBOUNDED = 255           # units: the connection is trusted


cdef enum EventKind:
    EVENT_MESSAGE = 1
    EVENT_CLOSED = 2
    EVENT_DEADLINE = 3
    EVENT_RESYNC = 4
    EVENT_LIMITED = 5
    EVENT_HUSHED = 6


cdef enum ConnectionState:
    FREE = 0
    OPEN = 1
    CLOSING = 2    # our close frame is queued or sent; waits for the peer's
    ANSWERED = 3   # the peer's close frame came; goes when the queue is empty
    FAILED = 4     # the peer broke a rule; close frame queued, input is discarded
    DOOMED = 5     # one last attempt to write, then the socket is closed
    BROKEN = 6     # the socket is dead


cdef enum Dirty:
    DIRTY = 1      # stands in the list of those to write to next
    BEHIND = 2     # stands in the backlog


cdef struct Connection:
    # 192 bytes, three cache lines. The first cache line is all that publish and flush touch.
    Outbox outbox
    int fd                  # of a FREE connection: slot + 1 of the next free one
    uint8_t state
    uint8_t form            # of its frames, FrameForm
    uint8_t dirty           # Dirty flags
    uint8_t bridged

    uint64_t cid            # its low bits are the slot, also of one that was never open
    int64_t last_received
    int64_t last_ping
    int64_t deadline        # the caller's while OPEN, of the close handshake later; 0 for none
    uint64_t stale_tag      # of the oldest STATE frame that was dropped
    SharedFrame *farewell   # the close frame: code and reason for EVENT_CLOSED
    int64_t refilled        # when the tokens of the rate limit were counted
    uint32_t tokens         # in thousandths
    uint32_t rate           # tokens a second, 0 for no limit
    uint32_t burst
    uint32_t limited        # consecutive messages without a token
    uint32_t began          # when the open message began, low bits of its ms; 0: none is open
    uint16_t close_code     # that EVENT_CLOSED will report
    uint8_t half_closed     # SHUT_WR is done
    uint8_t unfolding       # Units that compressed messages may still unfold to
    frame_parser parser


cdef struct Event:
    uint16_t kind
    uint16_t compressed     # 0, or the opcode of a message that is to be unfolded
    uint32_t length
    uint64_t cid
    uint64_t aux
    const uint8_t *data
    void *owned             # to be freed after delivery, or NULL


cdef struct Limits:
    uint32_t max_message
    uint32_t conflate_bytes
    uint32_t max_outbox
    uint32_t rate_per_second
    uint32_t rate_burst
    uint32_t flood_messages
    uint32_t max_connections
    uint32_t deflate_from
    int64_t ping_interval
    int64_t idle_timeout
    int64_t close_timeout
    int64_t message_timeout


cdef struct Counters:
    uint64_t queued_bytes
    uint64_t accepted
    uint64_t closed
    uint64_t messages_in
    uint64_t bytes_in
    uint64_t frames_out
    uint64_t bytes_out
    uint64_t writes
    uint64_t pings
    uint64_t pongs
    uint64_t protocol_errors
    uint64_t rate_limited
    uint64_t state_dropped
    uint64_t speaking_dropped
    uint64_t slow_closed
    uint64_t idle_closed
    uint64_t deflated
    uint64_t deflate_saved
    uint64_t inflated


cdef struct Table:
    int epoll_fd
    int timer_fd
    Connection **chunks
    uint32_t chunk_count
    uint32_t free_head      # slot + 1
    uint32_t open
    uint64_t generation
    int64_t *due            # by slot: when the timers must look at it next
    uint32_t *dirty         # slots to write to next; room for all
    uint32_t dirty_count
    uint32_t backlog_count
    uint32_t *backlog       # slots to write to in slices; room for all
    uint32_t event_count
    uint32_t event_capacity
    Event *events
    uint8_t *scratch
    uint32_t scratch_used
    int ready_at
    int ready_count
    epoll_event *ready
    int64_t now
    int64_t next_scan
    SharedFrame *ping
    TopicTable topics
    Limits limits
    Counters counters


cdef inline Connection *connection_at(Table *table, uint32_t slot) noexcept nogil:
    return &table.chunks[slot >> CHUNK_BITS][slot & (CHUNK - 1)]


cdef inline uint32_t slot_of(Connection *connection) noexcept nogil:
    return connection.cid & ((1 << SLOT_BITS) - 1)


cdef inline Connection *connection_find(Table *table, uint64_t cid) noexcept nogil:
    """The connection of a cid, or NULL when it is gone."""
    cdef uint32_t slot = cid & ((1 << SLOT_BITS) - 1)
    cdef Connection *connection
    if (slot >> CHUNK_BITS) >= table.chunk_count:
        return NULL
    connection = connection_at(table, slot)
    if connection.cid != cid or connection.state == FREE:
        return NULL
    return connection


cdef inline void mark_dirty(Table *table, Connection *connection) noexcept nogil:
    """Have the next flush look at the connection."""
    if not connection.dirty & DIRTY:
        connection.dirty |= DIRTY
        table.dirty[table.dirty_count] = slot_of(connection)
        table.dirty_count += 1


cdef inline void look_at(Table *table, Connection *connection, int64_t when) noexcept nogil:
    """Have the timers look at the connection at `when` or before."""
    if when < table.due[slot_of(connection)]:
        table.due[slot_of(connection)] = when
    if when < table.next_scan:
        table.next_scan = when


cdef int table_init(Table *table) noexcept nogil
cdef void table_destroy(Table *table) noexcept nogil
cdef Connection *connection_new(Table *table, int fd) noexcept nogil
cdef void connection_retire(Table *table, Connection *connection) noexcept nogil
cdef bint watch(Table *table, Connection *connection, uint32_t events) noexcept nogil
cdef bint event_push(
    Table *table, uint16_t kind, uint64_t cid, const uint8_t *data, uint32_t length, uint64_t aux,
    void *owned,
) noexcept nogil
