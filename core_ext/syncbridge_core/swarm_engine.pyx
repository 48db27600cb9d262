"""The clients of a swarm, without Python: connect, read, answer, send, all on one epoll.

State of a client:

    NEW -> CONNECTING -> UPGRADING -> AUTHENTICATING -> OPEN -> GONE
                                  '-- no first message --'

Every arrow before OPEN may also end in GONE. Reads are level-triggered, one `recv` an event into
the shared buffer, behind the beginning of a frame that the client holds from before. Writes go
straight to the socket; what it does not take waits in `out`, at most MAX_OUT bytes, and a message
over that counts as a send failure.

The phase decides what a message means (`_message`) and when it is over (`_check_end`). swarm.pyx
sets a phase up, calls `_run` and reads the figures.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove

from syncbridge_core.swarm_frames cimport (
    CLIENT_HEADER,
    OP_BINARY,
    OP_CLOSE,
    OP_CONTINUATION,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    Frame,
    envelope_type,
    memmem,
    parse_header,
    read_sequence,
    write_frame,
    write_sequence,
)
from syncbridge_core.swarm_socket cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    epoll_event,
    sw_close,
    sw_error,
    sw_now,
    sw_open,
    sw_receive,
    sw_send,
    sw_wait,
    sw_watch,
)

cdef enum:
    BUFFER_SIZE = 2 << 20
    MAX_OUT = 1 << 20
    MAX_UPGRADE = 8192
    MAX_EVENTS = 512
    MAX_BURST = 64
    MAX_NAMED = 64
    CLIENTS_PER_ADDRESS = 25000
    TYPE_ERROR = 6
    TYPE_AUTH_FAILURE = 9

# The answer to the one key that swarm.pyx sends (RFC 6455 1.3).
cdef const char *ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


cdef class Engine:

    def __cinit__(self, *_, **__):
        self.epoll = -1
        self.buffer = <uint8_t *>malloc(BUFFER_SIZE)
        self.scratch = <uint8_t *>malloc(MAX_MESSAGE + CLIENT_HEADER)
        if self.buffer == NULL or self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int index
        if self.clients != NULL:
            for index in range(self.count):
                self._release(index)
        if self.epoll >= 0:
            sw_close(self.epoll, 0)
        free(self.clients)
        free(self.buffer)
        free(self.scratch)
        free(self.data)
        free(self.sizes)
        free(self.senders)
        free(self.seen)

    # ---- The loop -----------------------------------------------------------------------------

    cdef void _run(self, int64_t stop) noexcept nogil:
        """Work until `stop` (ns) or the end of the phase."""
        cdef int64_t now = sw_now()
        cdef int64_t until
        while not self.finished and now < stop:
            until = min(stop, self.until)
            if self.phase == CONNECT:
                self._start_clients()
            elif self.phase == UPDATES and self.sequence < self.total:
                self._send_updates(now)
                until = min(until, self._due(self.sequence))
            self._poll(until)
            now = sw_now()
            self._check_end(now)

    cdef void _poll(self, int64_t stop) noexcept nogil:
        cdef epoll_event events[MAX_EVENTS]
        cdef int position, index
        cdef int ready = sw_wait(self.epoll, events, MAX_EVENTS, stop - sw_now())
        for position in range(ready):
            index = <int>events[position].data.u32
            if self.clients[index].state == CONNECTING:
                self._connected(index)
                continue
            if events[position].events & EPOLLOUT:
                self._drain(index)
            if events[position].events & ~<uint32_t>EPOLLOUT and self.clients[index].fd > 0:
                self._read(index)

    cdef void _check_end(self, int64_t now) noexcept nogil:
        cdef bint over = now >= self.until
        if self.phase == CONNECT:
            over = over or self.opened + self.failed >= self.count
        elif self.phase == RECEIVE:
            over = over or self.done >= self.goal
        elif self.phase == UPDATES and self.sequence >= self.total:
            over = over or (
                self.acknowledged + self.counters.errors + self.unsent >= <uint64_t>self.total
                and self.delivered
                >= (self.total - self.unsent - self.counters.errors) * self.copies
            )
        if over or (self.opened == 0 and self.phase != CONNECT):
            self._finish(now)

    cdef void _finish(self, int64_t now) noexcept nogil:
        cdef int index
        if not self.finished:
            self.finished = True
            self.ended = min(now, self.until)
        if self.phase == CONNECT:
            for index in range(self.count):
                if CONNECTING <= self.clients[index].state < OPEN:
                    self._drop(index)

    # ---- Connecting ---------------------------------------------------------------------------

    cdef void _start_clients(self) noexcept nogil:
        while self.in_flight < self.concurrency and self.next_client < self.count:
            if self.clients[self.next_client].state != OPEN:
                self._start(self.next_client)
            self.next_client += 1

    cdef void _start(self, int index) noexcept nogil:
        cdef Client *client = &self.clients[index]
        cdef unsigned int source = index // CLIENTS_PER_ADDRESS if self.many_sources else 0
        client.fragmented = client.waiting = 0
        client.stamp = sw_now()
        client.fd = sw_open(self.family, self.target, self.port, source)
        if client.fd < 0:
            self.last_errno = errno
            self.failed += 1
            client.fd = 0
            client.state = GONE
            return
        client.state = CONNECTING
        self.in_flight += 1
        if sw_watch(self.epoll, EPOLL_CTL_ADD, client.fd, EPOLLOUT, index):
            self.last_errno = errno
            self._drop(index)

    cdef void _connected(self, int index) noexcept nogil:
        cdef int error = sw_error(self.clients[index].fd)
        if error:
            self.last_errno = error
            self._drop(index)
            return
        self.clients[index].state = UPGRADING
        self._watch(index, False)
        self._write(index, self.request_data, self.request_size)

    cdef void _upgraded(
        self, int index, const uint8_t *data, size_t size, int64_t now
    ) noexcept nogil:
        """Bytes of the HTTP reply, and perhaps of frames behind it."""
        cdef const uint8_t *end = <const uint8_t *>memmem(data, size, b"\r\n\r\n", 4)
        cdef size_t head
        if end == NULL and size < MAX_UPGRADE:
            self._hold(&self.clients[index], data, size)
            return
        head = size if end == NULL else end - data + 4
        if (
            head < 16
            or memcmp(data, b"HTTP/1.1 101", 12) != 0
            or memmem(data, head, ACCEPT, 28) == NULL
        ):
            self.counters.protocol_errors += 1
            self._drop(index)
            return
        if self.outgoing_count:
            self.clients[index].state = AUTHENTICATING
            self._send(index, OP_TEXT, self.data[index], self.sizes[index])
        else:
            self._joined(index, now)
        if head < size:
            self._frames(index, data + head, size - head, now)

    cdef void _joined(self, int index, int64_t now) noexcept nogil:
        self.clients[index].state = OPEN
        self.opened += 1
        self.in_flight -= 1
        self.done += 1
        self.latency.add(now - self.clients[index].stamp)

    # ---- Reading ------------------------------------------------------------------------------

    cdef void _read(self, int index) noexcept nogil:
        cdef Client *client = &self.clients[index]
        cdef size_t held = client.held_size
        cdef ssize_t size = sw_receive(client.fd, self.buffer + held, BUFFER_SIZE - held)
        cdef int64_t now = sw_now()
        if size < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if size <= 0:
            if size < 0:
                self.last_errno = errno
            self._drop(index)
            return
        if held:
            memcpy(self.buffer, client.held, held)
            free(client.held)
            client.held = NULL
            client.held_size = 0
        if client.state == UPGRADING:
            self._upgraded(index, self.buffer, held + size, now)
        else:
            self._frames(index, self.buffer, held + size, now)

    cdef void _hold(self, Client *client, const uint8_t *data, size_t size) noexcept nogil:
        client.held = <char *>malloc(size)
        if client.held != NULL:
            memcpy(client.held, data, size)
            client.held_size = <uint32_t>size

    cdef void _frames(
        self, int index, const uint8_t *data, size_t size, int64_t now
    ) noexcept nogil:
        cdef Client *client = &self.clients[index]
        cdef Frame frame
        cdef int header
        while size:
            header = parse_header(data, size, &frame)
            if header < 0 or (header and frame.length > BUFFER_SIZE - CLIENT_HEADER):
                self.counters.protocol_errors += 1
                self._drop(index)
                return
            if header == 0 or size < header + frame.length:
                self._hold(client, data, size)
                return
            data += header
            size -= header + frame.length
            if not self._frame(index, &frame, <const char *>data, now):
                return
            data += frame.length

    cdef bint _frame(
        self, int index, const Frame *frame, const char *data, int64_t now
    ) noexcept nogil:
        """One whole frame. False when the connection is gone after it."""
        cdef Client *client = &self.clients[index]
        cdef int kind
        if frame.opcode == OP_PING:
            self.counters.pings += 1
            self._send(index, OP_PONG, data, frame.length)
        elif frame.opcode == OP_CLOSE:
            if self.phase != CLOSING:
                self._send(index, OP_CLOSE, data, min(frame.length, <uint64_t>2))
            self._drop(index)
        elif frame.opcode <= OP_BINARY:
            if (frame.opcode == OP_CONTINUATION) != client.fragmented:
                self.counters.protocol_errors += 1
                self._drop(index)
                return False
            kind = client.kind if client.fragmented else envelope_type(data, frame.length)
            client.kind = kind
            client.fragmented = not frame.fin
            self.counters.payload_bytes += frame.length
            if frame.fin:
                self._message(index, kind, data, frame.length, now)
        return client.fd > 0

    cdef void _message(
        self, int index, int kind, const char *data, size_t size, int64_t now
    ) noexcept nogil:
        """One whole data message; `data` is its last fragment."""
        self.counters.messages += 1
        if kind == TYPE_ERROR:
            self.counters.errors += 1
        if self.clients[index].state == AUTHENTICATING:
            if kind == TYPE_ERROR or kind == TYPE_AUTH_FAILURE:
                self._drop(index)
            else:
                self._joined(index, now)
        elif self.phase == UPDATES:
            self._updated(index, data, size, now)
        elif self.wanted != TYPE_ANY and self.wanted != kind:
            return
        elif self.phase == ECHO:
            self._replied(index, now)
        elif self.phase == RECEIVE:
            self.done += 1
            self.latency.add(now - self.begun)

    cdef void _replied(self, int index, int64_t now) noexcept nogil:
        cdef Client *client = &self.clients[index]
        if not client.waiting:
            return
        client.waiting = 0
        self.done += 1
        self.latency.add(now - client.stamp)
        if now < self.until:
            self._request(index)

    cdef void _updated(self, int index, const char *data, size_t size, int64_t now) noexcept nogil:
        """Find the updates that the message names; a name twice in it (value, changes) is one."""
        cdef const char *end = data + size
        cdef int64_t named[MAX_NAMED]
        cdef int count = 0, position
        while count < MAX_NAMED:
            data = <const char *>memmem(data, end - data, b"upd-", 4)
            if data == NULL:
                return
            data += 4
            named[count] = read_sequence(data, end, DIGITS)
            if not 0 <= named[count] < self.sequence:
                continue
            position = 0
            while named[position] != named[count]:
                position += 1
            if position == count:
                self._count_update(index, named[count], now)
                count += 1

    cdef void _count_update(self, int index, int64_t sequence, int64_t now) noexcept nogil:
        cdef uint8_t *seen = &self.seen[sequence]
        cdef bint own = self.senders[sequence % self.sender_count] == index
        cdef int64_t late = now - self._due(sequence)
        cdef int before = (seen[0] & 1) if own else (seen[0] >> 1)
        if before >= (1 if own else self.copies):
            self.repeated += 1
            return
        if own:
            seen[0] |= 1
            self.acknowledged += 1
            self.done += 1
            if sequence >= self.warm:
                self.acks.add(late)
        else:
            seen[0] += 2
            self.delivered += 1
            if sequence >= self.warm:
                self.latency.add(late)

    # ---- Sending ------------------------------------------------------------------------------

    cdef void _request(self, int index) noexcept nogil:
        self.clients[index].stamp = sw_now()
        self.clients[index].waiting = 1
        self._send(index, OP_TEXT, self.data[0], self.sizes[0])

    cdef int64_t _due(self, int64_t sequence) noexcept nogil:
        return self.begun + <int64_t>(<double>sequence * self.interval)

    cdef void _send_updates(self, int64_t now) noexcept nogil:
        """Send what is due, at most MAX_BURST before the sockets are read again."""
        cdef int _sent
        for _sent in range(MAX_BURST):
            if self.sequence >= self.total or self._due(self.sequence) > now:
                return
            self._send_update(now)

    cdef void _send_update(self, int64_t now) noexcept nogil:
        """Write the number into the template, over the number before it, and send it."""
        cdef int64_t sequence = self.sequence
        cdef int sender = self.senders[sequence % self.sender_count]
        cdef int which = <int>((sequence // self.sender_count) % self.outgoing_count)
        cdef int field
        for field in range(self.field_counts[which]):
            write_sequence(self.data[which] + self.fields[which][field], sequence, DIGITS)
        self.sequence += 1
        if sequence >= self.warm:
            self.lag.add(now - self._due(sequence))
        if self.clients[sender].state != OPEN or not self._send(
            sender, OP_TEXT, self.data[which], self.sizes[which]
        ):
            self.unsent += 1

    cdef bint _send(
        self, int index, uint8_t opcode, const char *data, size_t size
    ) noexcept nogil:
        """One masked frame. The key only has to change, so it is a xorshift, not a secret."""
        self.mask ^= self.mask << 13
        self.mask ^= self.mask >> 17
        self.mask ^= self.mask << 5
        size = write_frame(self.scratch, opcode, data, size, self.mask)
        return self._write(index, <const char *>self.scratch, size)

    cdef bint _write(self, int index, const char *data, size_t size) noexcept nogil:
        cdef Client *client = &self.clients[index]
        cdef ssize_t sent = 0
        if client.out_size == 0:
            sent = sw_send(client.fd, data, size)
            if sent == <ssize_t>size:
                return True
            if sent < 0 and errno != EAGAIN and errno != EINTR:
                self.last_errno = errno
                self.counters.send_failures += 1
                return False
            sent = max(sent, 0)
        if not self._queue(client, data + sent, size - sent):
            self.counters.send_failures += 1
            return False
        self._watch(index, True)
        return True

    cdef bint _queue(self, Client *client, const char *data, size_t size) noexcept nogil:
        cdef char *grown
        if client.out_size + size > MAX_OUT:
            return False
        grown = <char *>realloc(client.out, client.out_size + size)
        if grown == NULL:
            return False
        memcpy(grown + client.out_size, data, size)
        client.out = grown
        client.out_size += <uint32_t>size
        return True

    cdef void _drain(self, int index) noexcept nogil:
        """The socket takes bytes again; a dead one is noticed by the read that follows."""
        cdef Client *client = &self.clients[index]
        cdef ssize_t sent = sw_send(client.fd, client.out, client.out_size)
        if sent <= 0:
            return
        client.out_size -= <uint32_t>sent
        if client.out_size:
            memmove(client.out, client.out + sent, client.out_size)
            return
        free(client.out)
        client.out = NULL
        self._watch(index, False)

    cdef void _watch(self, int index, bint writable) noexcept nogil:
        cdef uint32_t events = EPOLLIN | EPOLLOUT if writable else EPOLLIN
        sw_watch(self.epoll, EPOLL_CTL_MOD, self.clients[index].fd, events, index)

    # ---- The end of a connection --------------------------------------------------------------

    cdef void _drop(self, int index) noexcept nogil:
        """Close it and count it: failed before it was open, closed after."""
        cdef uint8_t state = self.clients[index].state
        if state == OPEN:
            self.opened -= 1
            self.counters.closed += 1
        elif state != GONE:
            self.in_flight -= 1
            self.failed += 1
        self._release(index)

    cdef void _release(self, int index) noexcept nogil:
        cdef Client *client = &self.clients[index]
        if client.fd > 0:
            sw_close(client.fd, 1)
        free(client.held)
        free(client.out)
        client.held = client.out = NULL
        client.held_size = client.out_size = 0
        client.fd = 0
        client.state = GONE
