"""A non-blocking socket with deadlines, read and written by the one task of its connection.

A write sends first: small answers need no wait, and only the rest needs a deadline. A peer that
reads nothing for `write_timeout`, or a write that was cancelled half-way, leaves the stream broken:
nothing may follow on it.
"""

import socket
import struct

import trio

from syncbridge_server.listener.accept import linger
from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.fast.limits import READ_BYTES, TOGETHER_BYTES
from syncbridge_server.listener.fast.outbox import Outbox
from syncbridge_server.listener.fast.readiness import Readiness
from syncbridge_server.listener.uptake import Uptake

_RESET = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The peer is gone, or is treated as gone."""


class Transport:
    """The socket of one connection.

    Args:
        readiness: reports when the socket is readable, until `release`.
        outbox: sends deferred answers.
        occupant: has the place of the connection.

    Attributes:
        buffer: bytes that were read but not used yet. broken: the output is unusable.
        secure: the peer speaks TLS.
    """

    __slots__ = (
        "_deferred",
        "_outbox",
        "_readiness",
        "_stuck",
        "_watched",
        "_write_timeout",
        "_writing",
        "broken",
        "buffer",
        "occupant",
        "sock",
    )

    secure = False

    def __init__(
        self,
        readiness: Readiness,
        outbox: Outbox,
        sock: socket.socket,
        buffer: bytes,
        write_timeout: float,
        occupant: Occupant,
    ) -> None:
        self.occupant = occupant
        self._readiness = readiness
        self._outbox = outbox
        self._deferred = b""
        self._stuck = False
        self._watched = readiness.watch(sock.fileno())
        self.sock = sock
        self.buffer = buffer
        self.broken = False
        self._writing = False
        self._write_timeout = write_timeout

    async def read(self) -> bytes:
        """Wait for bytes; empty at the end of the stream. Raises Gone."""
        watched = self._watched
        while True:
            await watched.wait()
            if self._stuck:
                await self.settle()
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                raise Gone from None
            if len(data) == READ_BYTES:
                watched.ready = True
            elif not data:
                await self.settle()
            return data

    def ended(self) -> bool:
        """Whether the peer has closed, without waiting; bytes that it sent instead are kept."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.buffer += data
        if len(data) == READ_BYTES:
            self._watched.ready = True
        return not data

    def defer(self, data: bytes) -> bool:
        """Leave the end of an answer to the outbox; False when it must be written.

        The next `read` or `write` sends what the peer does not accept.
        """
        if self.broken or self._writing or len(self._deferred) + len(data) > TOGETHER_BYTES:
            return False
        if self._deferred:
            self._deferred += data
        else:
            self._deferred = data
            self._outbox.add(self)
        return True

    def flush(self) -> None:
        """Send what was deferred, without waiting; called by the outbox."""
        data, self._deferred = self._deferred, b""
        if not data or self.broken:
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            return
        if sent != len(data):
            self._deferred = data[sent:]
            self._stuck = True
            self._watched.wake()

    async def settle(self) -> None:
        """Send what is still deferred. Raises Gone."""
        if self._deferred:
            await self.write(b"")

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises Gone; RuntimeError when two tasks write at once."""
        if self._writing:
            raise RuntimeError("two tasks send at the same time")
        if self.broken:
            raise Gone
        if self._deferred:
            data, self._deferred = self._deferred + data, b""
            self._stuck = False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            raise Gone from None
        if sent != len(data):
            await self._write_rest(memoryview(data)[sent:])

    async def _write_rest(self, data: memoryview) -> None:
        self._writing = self.broken = True
        uptake = Uptake()
        uptake.take(READ_BYTES)  # the kernel has taken something
        uptake.begin()
        try:
            while data:
                self.occupant.stall(spent=uptake.spent)
                with trio.fail_after(self._write_timeout):
                    await trio.lowlevel.wait_writable(self.sock)
                try:
                    sent = self.sock.send(data)
                except BlockingIOError:
                    continue
                data = data[sent:]
                uptake.take(sent)
            self.broken = False
        except (OSError, trio.TooSlowError):
            raise Gone from None
        finally:
            self._writing = False
            self.occupant.flow()

    def release(self) -> None:
        """Stop watching the socket; its next owner waits for it by other means."""
        self.flush()
        fd = self.sock.fileno()
        if fd >= 0:
            self._readiness.forget(fd)

    def give(self) -> socket.socket:
        """The socket, for its new owner; then await `carry`. Raises OSError.

        Deferred bytes must have been sent (`settle`).
        """
        self.release()
        return socket.socket(fileno=self.sock.detach())

    async def carry(self) -> None:
        """Return once the socket that was handed over needs no more copying."""

    async def end(self) -> None:
        """Close; nothing that was sent can be lost."""
        self.release()

    async def part(self) -> None:
        """Close so that what was sent last is not lost (RFC 9112 section 9.6)."""
        self.release()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        await linger(self.sock)

    def abort(self) -> None:
        """Make the close a reset, so that half an answer cannot be taken for a whole one."""
        self.broken = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
