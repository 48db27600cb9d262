"""What a swarm keeps: 48 bytes a connection, one shared buffer, and the figures of one phase."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from syncbridge_core.swarm_frames cimport Frame
from syncbridge_core.swarm_histogram cimport Histogram

cdef enum:
    SECOND = 1000000000
    MAX_MESSAGE = 65536
    MAX_TEMPLATES = 64
    MAX_FIELDS = 4
    DIGITS = 12
    TYPE_ANY = -2

cdef enum State:
    NEW
    CONNECTING
    UPGRADING
    AUTHENTICATING
    OPEN
    GONE

cdef enum Phase:
    NOTHING
    CONNECT
    IDLE
    ECHO
    RECEIVE
    UPDATES
    CLOSING

cdef struct Client:
    int32_t fd
    uint8_t state
    #: a data message has begun and its last fragment has not come
    uint8_t fragmented
    #: a request is out and its reply is not in
    uint8_t waiting
    #: envelope type of the fragmented message
    int16_t kind
    uint32_t held_size
    uint32_t out_size
    #: the beginning of a frame, or of the handshake's reply, whose end has not come
    char *held
    #: what the socket did not take; EPOLLOUT is armed while there is some
    char *out
    #: ns; when the connect began, later when the last request was sent
    int64_t stamp

cdef struct Counters:
    uint64_t messages
    uint64_t payload_bytes
    uint64_t errors
    uint64_t pings
    uint64_t closed
    uint64_t protocol_errors
    uint64_t send_failures


cdef class Engine:
    cdef readonly int count
    cdef readonly int opened
    cdef Client *clients
    cdef int epoll
    cdef uint8_t *buffer
    cdef uint8_t *scratch
    cdef int family
    cdef int port
    cdef bint many_sources
    cdef char target[16]
    cdef bytes request
    cdef uint32_t mask
    cdef Counters counters

    # The phase that runs; times in ns of CLOCK_MONOTONIC
    cdef Phase phase
    cdef bint finished
    cdef int64_t begun
    cdef int64_t ended
    cdef int64_t until
    cdef uint64_t goal
    cdef uint64_t done
    cdef int wanted
    cdef Histogram latency
    #: what the phase sends: first messages, the request, or templates
    cdef list outgoing
    cdef char **data
    cdef uint32_t *sizes
    cdef int outgoing_count
    cdef const char *request_data
    cdef size_t request_size

    # connect
    cdef int next_client
    cdef int in_flight
    cdef int concurrency
    cdef int failed
    cdef int last_errno

    # updates
    #: where the templates have their number
    cdef uint32_t fields[MAX_TEMPLATES][MAX_FIELDS]
    cdef int field_counts[MAX_TEMPLATES]
    cdef int32_t *senders
    cdef int sender_count
    cdef int copies
    cdef double interval
    cdef int64_t sequence
    cdef int64_t total
    cdef int64_t warm
    #: bit 0: acknowledged; the rest: deliveries counted
    cdef uint8_t *seen
    cdef uint64_t acknowledged
    cdef uint64_t delivered
    cdef uint64_t repeated
    cdef uint64_t unsent
    cdef Histogram acks
    cdef Histogram lag

    cdef void _run(self, int64_t stop) noexcept nogil
    cdef void _poll(self, int64_t stop) noexcept nogil
    cdef void _check_end(self, int64_t now) noexcept nogil
    cdef void _finish(self, int64_t now) noexcept nogil

    cdef void _start_clients(self) noexcept nogil
    cdef void _start(self, int index) noexcept nogil
    cdef void _connected(self, int index) noexcept nogil
    cdef void _upgraded(
        self, int index, const uint8_t *data, size_t size, int64_t now) noexcept nogil
    cdef void _joined(self, int index, int64_t now) noexcept nogil

    cdef void _read(self, int index) noexcept nogil
    cdef void _hold(self, Client *client, const uint8_t *data, size_t size) noexcept nogil
    cdef void _frames(
        self, int index, const uint8_t *data, size_t size, int64_t now) noexcept nogil
    cdef bint _frame(
        self, int index, const Frame *frame, const char *data, int64_t now) noexcept nogil
    cdef void _message(
        self, int index, int kind, const char *data, size_t size, int64_t now) noexcept nogil
    cdef void _replied(self, int index, int64_t now) noexcept nogil
    cdef void _updated(self, int index, const char *data, size_t size, int64_t now) noexcept nogil
    cdef void _count_update(self, int index, int64_t sequence, int64_t now) noexcept nogil

    cdef void _request(self, int index) noexcept nogil
    cdef int64_t _due(self, int64_t sequence) noexcept nogil
    cdef void _send_updates(self, int64_t now) noexcept nogil
    cdef void _send_update(self, int64_t now) noexcept nogil
    cdef bint _send(self, int index, uint8_t opcode, const char *data, size_t size) noexcept nogil
    cdef bint _write(self, int index, const char *data, size_t size) noexcept nogil
    cdef bint _queue(self, Client *client, const char *data, size_t size) noexcept nogil
    cdef void _drain(self, int index) noexcept nogil
    cdef void _watch(self, int index, bint writable) noexcept nogil
    cdef void _drop(self, int index) noexcept nogil
    cdef void _release(self, int index) noexcept nogil
