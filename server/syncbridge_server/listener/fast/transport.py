"""A non-blocking socket with deadlines, read and written by the one task of its connection.

Writing tries the send first: it takes small answers without waiting, and only what the peer does
not take costs a deadline. A peer that takes nothing for `write_timeout`, or a write that was
cancelled half-way, leaves the stream broken: nothing may follow on it.
"""

import socket
import struct

import trio

from syncbridge_server.listener.fast.limits import READ_BYTES

_RESET = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The peer is gone, or is treated as gone."""


class Transport:
    """The socket of one connection.

    Attributes:
        buffer: bytes that were read and belong to nobody yet. broken: the output is unusable.
    """

    __slots__ = ("_write_timeout", "_writing", "broken", "buffer", "sock")

    def __init__(self, sock: socket.socket, buffer: bytes, write_timeout: float) -> None:
        self.sock = sock
        self.buffer = buffer
        self.broken = False
        self._writing = False
        self._write_timeout = write_timeout

    async def read(self) -> bytes:
        """Wait for bytes; empty at the end of the stream. Raises Gone."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self.sock)
                try:
                    return self.sock.recv(READ_BYTES)
                except BlockingIOError:
                    continue
        except OSError:
            raise Gone from None

    def ended(self) -> bool:
        """Look, without waiting, whether the peer has closed; what it sent instead is kept."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.buffer += data
        return not data

    async def write(self, data: bytes) -> None:
        """Send all of `data`. Raises Gone; RuntimeError when two tasks write at once."""
        if self._writing:
            raise RuntimeError("two tasks send at the same time")
        if self.broken:
            raise Gone
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
        try:
            while data:
                with trio.fail_after(self._write_timeout):
                    await trio.lowlevel.wait_writable(self.sock)
                try:
                    data = data[self.sock.send(data) :]
                except BlockingIOError:
                    continue
            self.broken = False
        except (OSError, trio.TooSlowError):
            raise Gone from None
        finally:
            self._writing = False

    def abort(self) -> None:
        """Make the close a reset, so that half an answer cannot be taken for a whole one."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
