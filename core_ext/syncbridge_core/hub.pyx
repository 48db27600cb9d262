"""The socket hub: every WebSocket of a process behind one epoll descriptor.

Theory of operation. A caller's loop waits for `fileno()`, calls `poll`, handles the events, calls
`send` and `publish` as it likes, and ends with one `flush`. `poll` reads many sockets into one
buffer (receiving.pyx), runs the timers (timers.pyx), writes what the sockets can take
(sending.pyx), and only then makes Python objects of what came, in one batch (delivering.pyx).
`flush` writes what
the caller queued, one system call a connection; when those are many, a slice of them, and the loop
comes round for the rest. Nothing here waits and nothing blocks.

The table (connections.pyx) holds the state; it is plain C, so that the loops run without the GIL.
The GIL is given away only for work that outlasts a hand-over, because another busy thread may
keep it for milliseconds: sixteen sockets to read or write, or a thousand members to publish to.
One thread uses a hub. `busy` turns a second one, which the released GIL would let in, into
RuntimeError instead of a torn table.

Compression (deflate.py) needs the GIL. Messages that came compressed are unfolded when the Python
objects are made; a message that goes out is compressed when the first member needs it, for which
the walk over the topic stops once. Neither costs a connection or a publication without it anything.

A connection ends in one place, `connection_retire`, which queues its one EVENT_CLOSED. Events that
arise outside `poll` wait for the next one, and the timer is set off so that it comes.
"""

import errno

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING
from libc cimport errno as c_errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from syncbridge_core.connections cimport (
    CLOSING,
    EVENT_CLOSED as C_EVENT_CLOSED,
    EVENT_DEADLINE as C_EVENT_DEADLINE,
    EVENT_HUSHED as C_EVENT_HUSHED,
    EVENT_LIMITED as C_EVENT_LIMITED,
    EVENT_MESSAGE as C_EVENT_MESSAGE,
    EVENT_RESYNC as C_EVENT_RESYNC,
    OPEN,
    RATE_MOST,
    READY_BATCH,
    UNBOUNDED,
    UNIT,
    connection_find,
    connection_new,
    connection_retire,
    look_at,
    table_destroy,
    table_init,
    slot_of,
)
from syncbridge_core.delivering cimport collect
from syncbridge_core.frames cimport FRAME_RSV1, close_code_valid
from syncbridge_core.linux cimport IPPROTO_TCP, TCP_NODELAY, epoll_wait, setsockopt
from syncbridge_core.outbox cimport (
    FORM_BINARY,
    FORM_DEFLATE,
    KIND_NOTICE as C_KIND_NOTICE,
    KIND_REPLY as C_KIND_REPLY,
    KIND_SPEAKING as C_KIND_SPEAKING,
    KIND_STATE as C_KIND_STATE,
    SharedFrame,
    frame_new,
    frame_release,
)
from syncbridge_core.receiving cimport process_ready, receive_initial
from syncbridge_core.sending cimport (
    Publication,
    begin_close,
    enqueue,
    publication_clear,
    publish_to,
    write_backlog,
    write_dirty,
)
from syncbridge_core.timers cimport plan, run_timers, wake_after
from syncbridge_core.topics cimport (
    Topic,
    topic_close,
    topic_find,
    topic_open,
    topic_subscribe,
    topic_unsubscribe,
)

from syncbridge_core.deflate import Deflater
from syncbridge_core.hub_types import HubLimits, HubStatistics, check_limits, close_reason

__all__ = [
    "ENCODING_JSON",
    "ENCODING_PROTOBUF",
    "EVENT_CLOSED",
    "EVENT_DEADLINE",
    "EVENT_HUSHED",
    "EVENT_LIMITED",
    "EVENT_MESSAGE",
    "EVENT_RESYNC",
    "KIND_NOTICE",
    "KIND_REPLY",
    "KIND_SPEAKING",
    "KIND_STATE",
    "Hub",
    "HubLimits",
    "HubStatistics",
]

EVENT_MESSAGE = C_EVENT_MESSAGE
EVENT_CLOSED = C_EVENT_CLOSED
EVENT_DEADLINE = C_EVENT_DEADLINE
EVENT_RESYNC = C_EVENT_RESYNC
EVENT_LIMITED = C_EVENT_LIMITED
EVENT_HUSHED = C_EVENT_HUSHED
KIND_SPEAKING = C_KIND_SPEAKING
KIND_STATE = C_KIND_STATE
KIND_NOTICE = C_KIND_NOTICE
KIND_REPLY = C_KIND_REPLY
ENCODING_JSON = 0
ENCODING_PROTOBUF = 1

cdef enum:
    RELEASE_SOCKETS = 16     # give the GIL away from that many sockets on
    RELEASE_MEMBERS = 1024
    SOON = 1                 # ns; 0 would stop the timer
    PERIOD = 250000000       # ns


cdef int _check_kind(int kind) except -1:
    if kind < <int>C_KIND_SPEAKING or kind > <int>C_KIND_REPLY:  # a bare enum is unsigned in C
        raise ValueError("kind must be one of the KIND_ constants")
    return 0


cdef class Hub:
    """See hub.pyi for the interface, method by method."""

    def __cinit__(self):
        memset(&self.table, 0, sizeof(Table))
        self.table.epoll_fd = self.table.timer_fd = -1

    def __init__(self, limits=HubLimits()):
        if self.table.scratch != NULL:
            raise RuntimeError("a hub is initialised once")
        check_limits(limits)
        code = table_init(&self.table)
        if code:
            table_destroy(&self.table)
            raise OSError(code, "the hub cannot get its descriptors")
        own = &self.table.limits
        own.max_message = limits.max_message
        own.conflate_bytes = limits.conflate_bytes
        own.max_outbox = limits.max_outbox
        own.ping_interval = limits.ping_interval
        own.idle_timeout = limits.idle_timeout
        own.close_timeout = limits.close_timeout
        own.message_timeout = limits.message_timeout
        own.rate_per_second = min(limits.rate_per_second, RATE_MOST)
        own.rate_burst = min(limits.rate_burst, RATE_MOST)
        own.flood_messages = limits.flood_messages
        own.max_connections = limits.max_connections
        own.deflate_from = limits.deflate_from
        self.deflater = Deflater()

    def __dealloc__(self):
        table_destroy(&self.table)

    # -- entering and leaving --------------------------------------------------------------

    cdef int enter(self) except -1:
        """Refuse a second caller while the first runs without the GIL."""
        if self.busy:
            raise RuntimeError("a hub is used by one thread at a time")
        return 0

    cdef int enter_open(self) except -1:
        """The same, for calls that make something new."""
        self.enter()
        if self.table.epoll_fd < 0:
            raise OSError(errno.EBADF, "the hub is shut down")
        return 0

    cdef void leave(self) noexcept:
        """Have the descriptor become readable when events or a backlog wait for the loop."""
        if (self.table.event_count or self.table.backlog_count) and not self.awake:
            self.awake = self.timing = True
            wake_after(&self.table, SOON)

    # -- the loop --------------------------------------------------------------------------

    def fileno(self):
        return self.table.epoll_fd

    def poll(self, int64_t now, Py_ssize_t max_events=2048):
        self.enter()
        if self.polling:
            raise RuntimeError("poll was called from a finalizer that runs inside poll")
        found = []
        if self.table.epoll_fd < 0:
            return found
        self.table.now = now
        self.awake = False
        self.polling = True
        try:
            self.turn(found, max(1, max_events))
        finally:
            self.polling = False
        if self.timing and self.table.open == 0:
            self.timing = False
            wake_after(&self.table, 0)
        return found

    cdef int turn(self, list found, Py_ssize_t limit) except -1:
        """Deliver what waited, read, run the timers, write; events go to `found`."""
        cdef Table *table = &self.table
        collect(&self.table, &self.busy, found)
        self.wait()
        while table.ready_at < table.ready_count and len(found) < limit:
            self.read(limit - len(found))
            collect(&self.table, &self.busy, found)
        if table.now >= table.next_scan:
            run_timers(table)
        self.write()
        return collect(&self.table, &self.busy, found)

    def flush(self):
        cdef uint64_t before = self.table.counters.frames_out
        self.enter()
        self.write()
        self.write_slice()
        self.leave()
        return self.table.counters.frames_out - before

    cdef int wait(self) except -1:
        """Ask the kernel which sockets are ready, unless some of its last answer are left."""
        cdef Table *table = &self.table
        if table.ready_at < table.ready_count:
            return 0
        table.ready_at = 0
        table.ready_count = epoll_wait(table.epoll_fd, table.ready, READY_BATCH, 0)
        if table.ready_count < 0:
            table.ready_count = 0
            if c_errno.errno != c_errno.EINTR:
                raise OSError(c_errno.errno, "epoll_wait failed")
        return 0

    cdef void read(self, size_t most) noexcept:
        """Work off ready sockets until `most` events are there or the scratch buffer is full."""
        if self.table.ready_count - self.table.ready_at < RELEASE_SOCKETS:
            process_ready(&self.table, most)
            return
        self.busy = True
        with nogil:
            process_ready(&self.table, most)
        self.busy = False

    cdef void write(self) noexcept:
        """One write to every connection on the dirty list, unless they are very many."""
        if self.table.dirty_count < RELEASE_SOCKETS:
            write_dirty(&self.table)
            return
        self.busy = True
        with nogil:
            write_dirty(&self.table)
        self.busy = False

    cdef void write_slice(self) noexcept:
        """One write to the next ones of the backlog."""
        if self.table.backlog_count:
            self.busy = True
            with nogil:
                write_backlog(&self.table)
            self.busy = False

    # -- connections -----------------------------------------------------------------------

    def adopt(
        self, int fd, int64_t now, int encoding=0, bytes initial not None=b"",
        bint bridged=False, bint deflate=False, uint32_t unfold=0,
    ):
        cdef Connection *connection
        cdef int on = 1
        self.enter_open()
        if encoding != ENCODING_JSON and encoding != ENCODING_PROTOBUF:
            raise ValueError("encoding must be ENCODING_JSON or ENCODING_PROTOBUF")
        copied = bytearray(initial)  # the parser unmasks in place
        self.table.now = now
        connection = connection_new(&self.table, fd)
        if connection == NULL:
            raise OSError(c_errno.errno, "the hub cannot take this connection")
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))  # unix sockets refuse: fine
        connection.form = <uint8_t>(encoding | (FORM_DEFLATE if deflate else 0))
        connection.parser.deflate = deflate
        connection.bridged = bridged
        connection.unfolding = min(UNBOUNDED - 1, (unfold + UNIT - 1) // UNIT) or UNBOUNDED
        connection.last_received = connection.last_ping = connection.refilled = now
        self._rate(connection, self.table.limits.rate_per_second, self.table.limits.rate_burst)
        cid = connection.cid
        plan(&self.table, connection)
        if not self.timing:
            self.timing = True
            wake_after(&self.table, PERIOD)
        if copied:
            receive_initial(
                &self.table, connection, <uint8_t *>PyByteArray_AS_STRING(copied), len(copied)
            )
            if self.table.dirty_count and not self.awake:
                self.awake = True
                wake_after(&self.table, SOON)
            self.leave()
        return cid

    cdef void _rate(self, Connection *connection, uint32_t rate, uint32_t burst) noexcept:
        connection.rate = rate
        connection.burst = burst
        connection.tokens = burst * 1000

    def close(self, uint64_t cid, unsigned int code, str reason not None=""):
        cdef Connection *connection
        self.enter()
        if not close_code_valid(code):
            raise ValueError(f"{code} may not be sent in a close frame")
        connection = connection_find(&self.table, cid)
        if connection == NULL or connection.state != OPEN:
            return False
        text = close_reason(reason)
        begin_close(
            &self.table, connection, <uint16_t>code, <const uint8_t *>PyBytes_AS_STRING(text),
            len(text), CLOSING,
        )
        return True

    def abort(self, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection == NULL:
            return False
        connection_retire(&self.table, connection)
        self.leave()
        return True

    def set_deadline(self, uint64_t cid, int64_t deadline):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection == NULL or connection.state != OPEN:
            return False
        connection.deadline = deadline
        if deadline:
            look_at(&self.table, connection, deadline)
        return True

    def set_rate(self, uint64_t cid, uint32_t per_second, uint32_t burst):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection == NULL:
            return False
        self._rate(
            connection, min(per_second, <uint32_t>RATE_MOST), min(burst, <uint32_t>RATE_MOST)
        )
        connection.refilled = self.table.now
        return True

    def trust(self, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection != NULL:
            connection.unfolding = UNBOUNDED
        return connection != NULL

    def refund(self, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection != NULL:
            connection.tokens = min(connection.tokens + 1000, connection.burst * 1000)
        return connection != NULL

    def queued(self, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        return 0 if connection == NULL else connection.outbox.queued

    def is_open(self, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        return connection != NULL and connection.state == OPEN

    def last_received(self, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        return 0 if connection == NULL else connection.last_received

    # -- messages out ----------------------------------------------------------------------

    def send(self, uint64_t cid, bytes payload not None, int kind=C_KIND_REPLY, uint64_t tag=0):
        cdef Connection *connection
        cdef SharedFrame *frame
        cdef unsigned int opcode
        self.enter()
        _check_kind(kind)
        connection = connection_find(&self.table, cid)
        if connection == NULL or connection.state != OPEN:
            return False
        opcode = 1 + (connection.form & FORM_BINARY)
        if connection.form & FORM_DEFLATE and len(payload) >= self.table.limits.deflate_from:
            packed = self.deflate(payload)
            if packed is not None:
                payload = packed
                opcode |= FRAME_RSV1
        frame = frame_new(
            opcode, <const uint8_t *>PyBytes_AS_STRING(payload), len(payload),
            <uint8_t>kind, tag,
        )
        if frame == NULL:
            raise MemoryError
        enqueue(&self.table, connection, frame)
        frame_release(frame)
        return True

    def publish(
        self, uint64_t topic, bytes payload not None, int kind=C_KIND_NOTICE, uint64_t tag=0,
        uint64_t exclude=0, bytes binary=None,
    ):
        cdef Topic *found
        cdef Publication message
        cdef uint32_t reached = 0
        cdef size_t least = self.table.limits.deflate_from
        self.enter()
        _check_kind(kind)
        found = topic_find(&self.table.topics, topic)
        if found == NULL or found.count == 0:
            return 0
        memset(&message, 0, sizeof(Publication))
        message.kind = <uint8_t>kind
        message.tag = tag
        message.exclude = exclude
        message.payloads[0] = <const uint8_t *>PyBytes_AS_STRING(payload)
        message.lengths[0] = len(payload)
        message.plain[0] = message.lengths[0] < least
        if binary is not None:
            message.payloads[1] = <const uint8_t *>PyBytes_AS_STRING(binary)
            message.lengths[1] = len(binary)
            message.plain[1] = message.lengths[1] < least
        try:
            reached = self.fan_out(found, &message)
            while message.wanted:
                self.make_wanted(&message, binary if message.wanted & FORM_BINARY else payload)
                reached += self.fan_out(found, &message)
        finally:
            publication_clear(&message)
        if message.out_of_memory:
            raise MemoryError
        return reached

    cdef uint32_t fan_out(self, Topic *topic, Publication *message) noexcept:
        """Queue the message for its members, without the GIL when there are many."""
        cdef uint32_t reached
        if topic.count < RELEASE_MEMBERS:
            return publish_to(&self.table, topic, message)
        self.busy = True
        with nogil:
            reached = publish_to(&self.table, topic, message)
        self.busy = False
        return reached

    cdef int make_wanted(self, Publication *message, bytes payload) except -1:
        """Compress the message for the form that `publish_to` asked for."""
        cdef uint8_t form = message.wanted
        cdef unsigned int opcode = FRAME_RSV1 | (1 + (form & FORM_BINARY))
        message.wanted = 0
        packed = self.deflate(payload)
        if packed is None:
            message.plain[form & FORM_BINARY] = True
            return 0
        message.frames[form] = frame_new(
            opcode, <const uint8_t *>PyBytes_AS_STRING(packed), len(packed), message.kind,
            message.tag,
        )
        if message.frames[form] == NULL:
            raise MemoryError
        return 0

    cdef bytes deflate(self, bytes payload):
        """The compressed payload, or None when it would not be shorter."""
        cdef bytes packed
        self.busy = True
        try:
            packed = self.deflater.compress(payload)
        finally:
            self.busy = False
        if packed is not None:
            self.table.counters.deflated += 1
            self.table.counters.deflate_saved += len(payload) - len(packed)
        return packed

    # -- topics ----------------------------------------------------------------------------

    def open_topic(self):
        self.enter_open()
        topic = topic_open(&self.table.topics)
        if topic == 0:
            raise MemoryError
        return topic

    def close_topic(self, uint64_t topic):
        self.enter()
        return topic_close(&self.table.topics, topic)

    def subscribe(self, uint64_t topic, uint64_t cid):
        cdef Connection *connection
        cdef int outcome
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection == NULL or connection.state != OPEN:
            return False
        outcome = topic_subscribe(&self.table.topics, topic, slot_of(connection))
        if outcome < 0:
            raise MemoryError
        return outcome == 1

    def unsubscribe(self, uint64_t topic, uint64_t cid):
        cdef Connection *connection
        self.enter()
        connection = connection_find(&self.table, cid)
        if connection == NULL:
            return False
        return topic_unsubscribe(&self.table.topics, topic, slot_of(connection))

    def topic_size(self, uint64_t topic):
        cdef Topic *found
        self.enter()
        found = topic_find(&self.table.topics, topic)
        return 0 if found == NULL else found.count

    # -- the whole -------------------------------------------------------------------------

    def statistics(self):
        cdef dict counters = self.table.counters
        self.enter()
        return HubStatistics(
            open_connections=self.table.open, open_topics=self.table.topics.open, **counters
        )

    def shutdown(self):
        self.enter()
        if self.polling:
            raise RuntimeError("shutdown was called from a finalizer that runs inside poll")
        table_destroy(&self.table)
