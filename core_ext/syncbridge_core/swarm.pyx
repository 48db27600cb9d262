"""A swarm of WebSocket clients in one thread: the load side of `syncbridge bench`.

A load generator must cost less than the server it loads, and must not flatter it. So ten thousand
clients are one array of 48-byte records behind one epoll descriptor, all reading into one shared
buffer; only a client whose frame has not ended yet owns memory, for its beginning. No Python runs
while a phase runs: the interpreter lock is given up for slices of SLICE_MS, and between them
signals and the caller's progress display get their turn.

Phases: `connect`, then any of `idle`, `echo`, `receive`, `updates`, then `close`. A phase counts
from zero and ends at its goal or at its deadline, whichever is first: nothing here can hang.

`updates` is an open loop. Update n is due at `begun + n * interval` whatever the server does, and
its latency runs from that due time, not from when it was written. A server that stalls therefore
pays for every update it delayed (no coordinated omission), and so does a generator that is late,
which `lag` shows. The number n travels inside the value, as `upd-` and twelve digits. From n follow
the due time and the sender, so whoever receives it needs no table: on the sender's own connection
it is the acknowledgement, on any other a delivery. One byte an update remembers what has arrived,
so that a frame which names an update twice, or a second frame with it, counts as repeated.

A client that sees a frame no server may send drops the connection and counts a protocol error.
"""

import os
import socket
from typing import NamedTuple

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from syncbridge_core.swarm_engine cimport (
    CLOSING,
    CONNECT,
    DIGITS,
    ECHO,
    IDLE,
    MAX_FIELDS,
    MAX_MESSAGE,
    MAX_TEMPLATES,
    NOTHING,
    OPEN,
    RECEIVE,
    SECOND,
    TYPE_ANY,
    UPDATES,
    Client,
    Counters,
    Engine,
    Phase,
)
from syncbridge_core.swarm_frames cimport OP_CLOSE, OP_TEXT
from syncbridge_core.swarm_histogram cimport Histogram
from syncbridge_core.swarm_socket cimport EPOLL_CLOEXEC, epoll_create1, sw_now, sw_sharp_timers

cdef enum:
    MAX_UPDATES = 100000000
    SLICE_NS = 50000000
    CLIENTS_PER_ADDRESS = 25000

ANY_TYPE = TYPE_ANY
SEQUENCE_FIELD = b"#" * DIGITS
UPDATE_VALUE = b"upd-" + SEQUENCE_FIELD

# RFC 6455 1.3 has this key and the answer to it. One key for all clients is no loss: it only
# proves that the other end speaks WebSocket, and swarm_engine.pyx compares the answer.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Progress(NamedTuple):
    done: int
    goal: int
    seconds: float


class Totals(NamedTuple):
    messages: int
    payload_bytes: int
    errors: int
    pings: int
    closed: int
    protocol_errors: int
    send_failures: int


class ConnectResult(NamedTuple):
    opened: int
    failed: int
    seconds: float
    latency: Histogram
    error: str


class PhaseResult(NamedTuple):
    done: int
    goal: int
    seconds: float
    latency: Histogram
    totals: Totals


class UpdatesResult(NamedTuple):
    sent: int
    unsent: int
    acknowledged: int
    delivered: int
    expected: int
    repeated: int
    seconds: float
    latency: Histogram
    acks: Histogram
    lag: Histogram
    totals: Totals


def _upgrade_request(host, port, path, subprotocol):
    """RFC 6455 4.1."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {authority}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    request = "\r\n".join([*lines, "", ""])
    if request.count("\r\n") != len(lines) + 1:
        raise ValueError("a line break in host, path or subprotocol")
    return request.encode("ascii")


@cython.final
cdef class Swarm(Engine):

    def __init__(self, str host, int port, int count, *, str path="/ws", str subprotocol=""):
        if not 0 < count <= 1000000 or not 0 < port < 65536:
            raise ValueError("count must be 1 to 1,000,000 and port 1 to 65535")
        if self.epoll >= 0:
            raise RuntimeError("a Swarm is initialised once")
        self.request = _upgrade_request(host, port, path, subprotocol)
        self.request_data = PyBytes_AS_STRING(self.request)
        self.request_size = PyBytes_GET_SIZE(self.request)
        self._resolve(host, port)
        self.many_sources = count > CLIENTS_PER_ADDRESS and self.target[0] == 127
        self.clients = <Client *>calloc(count, sizeof(Client))
        if self.clients == NULL:
            raise MemoryError
        self.count = count
        self.mask = 0x9E3779B9
        self.latency = self.acks = self.lag = Histogram()
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))

    cdef _resolve(self, str host, int port):
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        cdef bytes packed = socket.inet_pton(info[0], info[4][0])
        memcpy(self.target, PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
        self.family, self.port = info[0], port

    # ---- Phases -------------------------------------------------------------------------------

    def connect(self, first_messages=(), *, int concurrency=64, double seconds=60.0, watch=None):
        if self.opened == self.count:
            raise RuntimeError("every client is connected")
        if len(first_messages) not in (0, self.count) or concurrency < 1:
            raise ValueError("one first message for each client, or none; concurrency from 1")
        self._begin(CONNECT, seconds)
        self._load(first_messages)
        self.goal = self.count
        self.done = self.opened
        self.next_client = self.in_flight = self.failed = self.last_errno = 0
        self.concurrency = concurrency
        self._complete(watch)
        error = os.strerror(self.last_errno) if self.last_errno else ""
        return ConnectResult(
            self.opened, self.count - self.opened, self.elapsed, self.latency, error
        )

    def idle(self, double seconds, *, watch=None):
        self._begin(IDLE, seconds)
        return self._phase_result(watch)

    def echo(
        self, bytes message not None, double seconds, *, int clients=0, int reply_type=TYPE_ANY,
        watch=None,
    ):
        cdef int index, started = 0
        self._begin(ECHO, seconds)
        self._load([message])
        self.wanted = reply_type
        for index in range(self.count):
            self.clients[index].waiting = 0
            if self.clients[index].state == OPEN and (started < clients or not clients):
                self._request(index)
                started += 1
        return self._phase_result(watch)

    def receive(
        self, long long messages, double seconds, *, int wanted_type=TYPE_ANY, trigger=None,
        watch=None,
    ):
        if messages < 1:
            raise ValueError("messages must be positive")
        self._begin(RECEIVE, seconds)
        self.goal = messages
        self.wanted = wanted_type
        if trigger is not None:
            trigger()
        return self._phase_result(watch)

    def updates(
        self, templates, double rate, double seconds, *, senders, int copies=1,
        double warmup=0.0, double drain=5.0, watch=None,
    ):
        cdef int64_t total = <int64_t>(rate * (warmup + seconds))
        if not (0 < total <= MAX_UPDATES and 0 <= copies < 127 and warmup >= 0 and drain > 0):
            raise ValueError("rate, seconds, warmup, drain or copies out of range")
        if not senders or any(not 0 <= sender < self.count for sender in senders):
            raise ValueError("no sender, or one that is not a client")
        if not 0 < len(templates) <= MAX_TEMPLATES:
            raise ValueError("1 to 64 templates")
        self._begin(UPDATES, warmup + seconds + drain)
        self._load(templates)
        self._find_fields()
        self._plan(total, rate, warmup, copies, senders)
        sw_sharp_timers()
        self._complete(watch)
        sent = self.sequence - self.unsent
        return UpdatesResult(
            sent, self.unsent, self.acknowledged, self.delivered, sent * copies, self.repeated,
            self.elapsed, self.latency, self.acks, self.lag, self.totals,
        )

    def close(self, *, double seconds=5.0, bint reset=False):
        cdef int index
        if self.opened and not reset:
            self._begin(CLOSING, seconds)
            for index in range(self.count):
                if self.clients[index].state == OPEN:
                    self._send(index, OP_CLOSE, b"\x03\xe8", 2)
            self._complete(None)
        for index in range(self.count):
            self._release(index)
        self.opened = 0

    def send(self, int index, bytes message not None):
        if not 0 <= index < self.count or len(message) > MAX_MESSAGE:
            raise ValueError("no such client, or a message over 64 KiB")
        if self.clients[index].state != OPEN:
            return False
        return self._send(index, OP_TEXT, PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    def is_open(self, int index):
        if not 0 <= index < self.count:
            raise ValueError("no such client")
        return self.clients[index].state == OPEN

    @property
    def totals(self):
        return Totals(
            self.counters.messages, self.counters.payload_bytes, self.counters.errors,
            self.counters.pings, self.counters.closed, self.counters.protocol_errors,
            self.counters.send_failures,
        )

    @property
    def elapsed(self):
        return ((self.ended if self.finished else sw_now()) - self.begun) / SECOND

    # ---- A phase from begin to end ------------------------------------------------------------

    cdef _begin(self, Phase phase, double seconds):
        if not 0 < seconds <= 86400:
            raise ValueError("seconds must be positive and at most a day")
        if phase != CONNECT and self.opened == 0:
            raise RuntimeError("no client is connected")
        memset(&self.counters, 0, sizeof(Counters))
        self.latency, self.acks, self.lag = Histogram(), Histogram(), Histogram()
        self.phase, self.finished = phase, False
        self.goal = self.done = 0
        self.wanted = TYPE_ANY
        self.begun = sw_now()
        self.until = self.begun + <int64_t>(seconds * SECOND)

    cdef _load(self, messages):
        """Own copies of the messages, readable (and for updates writable) without Python."""
        if any(len(message) > MAX_MESSAGE for message in messages):
            raise ValueError("a message over 64 KiB")
        self.outgoing = [bytearray(message) for message in messages]
        self.outgoing_count = len(self.outgoing)
        free(self.data)
        free(self.sizes)
        self.data = <char **>calloc(self.outgoing_count + 1, sizeof(char *))
        self.sizes = <uint32_t *>calloc(self.outgoing_count + 1, sizeof(uint32_t))
        if self.data == NULL or self.sizes == NULL:
            raise MemoryError
        for index, message in enumerate(self.outgoing):
            self.data[index] = PyByteArray_AS_STRING(message)
            self.sizes[index] = <uint32_t>PyByteArray_GET_SIZE(message)

    cdef _find_fields(self):
        cdef int which, field
        for which, template in enumerate(self.outgoing):
            if UPDATE_VALUE not in template or template.count(SEQUENCE_FIELD) > MAX_FIELDS:
                raise ValueError("a template has UPDATE_VALUE, and up to 4 SEQUENCE_FIELDs in all")
            at = template.find(SEQUENCE_FIELD)
            self.field_counts[which] = template.count(SEQUENCE_FIELD)
            for field in range(self.field_counts[which]):
                self.fields[which][field] = at
                at = template.find(SEQUENCE_FIELD, at + DIGITS)

    cdef _plan(self, int64_t total, double rate, double warmup, int copies, senders):
        free(self.seen)
        free(self.senders)
        self.seen = <uint8_t *>calloc(total, 1)
        self.senders = <int32_t *>calloc(len(senders), sizeof(int32_t))
        if self.seen == NULL or self.senders == NULL:
            raise MemoryError
        for position, sender in enumerate(senders):
            self.senders[position] = sender
        self.sender_count = len(senders)
        self.goal = self.total = total
        self.sequence = self.acknowledged = self.delivered = self.repeated = self.unsent = 0
        self.copies = copies
        self.warm = <int64_t>(rate * warmup)
        self.interval = SECOND / rate
        self.until += sw_now() - self.begun
        self.begun = sw_now()

    cdef _complete(self, watch):
        while not self.finished:
            with nogil:
                self._run(sw_now() + SLICE_NS)
            PyErr_CheckSignals()
            if watch is not None:
                watch(Progress(self.done, self.goal, self.elapsed))
        self.phase = NOTHING

    def _phase_result(self, watch):
        self._complete(watch)
        return PhaseResult(self.done, self.goal, self.elapsed, self.latency, self.totals)
