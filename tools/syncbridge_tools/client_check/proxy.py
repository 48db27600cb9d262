"""A TCP proxy for one device, with switchable faults; counts the device's messages."""

import socket
import struct
from contextlib import suppress

import trio

from syncbridge_tools.client_check.scenario import Fault

CHUNK = 65_536
RST = struct.pack("ii", 1, 0)
SHORT, LONG = 126, 127
"""Payload lengths that announce two and eight length bytes (RFC 6455, 5.2)."""
CONTROL = 0x8
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
MASKED_HEADER = 6


class FrameCounter:
    """Counts the messages in the bytes that a client sends: its handshake, then masked frames."""

    def __init__(self) -> None:
        self.messages = 0
        self._data = b""
        self._open = False

    def feed(self, data: bytes) -> None:
        """Count more bytes of the connection."""
        self._data += data
        if not self._open:
            _, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            self._open, self._data = True, rest
        while self._frame():
            pass

    def _frame(self) -> bool:
        data = self._data
        if len(data) < MASKED_HEADER:
            return False
        size, more = data[1] & 0x7F, 0
        if size in (SHORT, LONG):
            more = 2 if size == SHORT else 8
            size = int.from_bytes(data[2 : 2 + more])
        end = MASKED_HEADER + more + size
        if len(data) < end:
            return False
        self.messages += data[0] & 0x0F < CONTROL
        self._data = data[end:]
        return True


class Proxy:
    """Between a device and the server on `target`, a port of this machine."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.messages = 0
        self._target = target
        self._open: set[trio.SocketStream] = set()
        self._fault: Fault = "none"
        self._changed = trio.Event()

    @property
    def fault(self) -> Fault:
        """The active fault."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            serve = trio.serve_listeners
            await nursery.start(serve, self._accept, listeners)
            task_status.started()

    def cut(self) -> None:
        """Reset every connection."""
        for stream in tuple(self._open):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            stream.socket.close()

    async def _accept(self, client: trio.SocketStream) -> None:
        self._open.add(client)
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            if self.fault == "refuse":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            elif self.fault == "busy":
                await client.receive_some(CHUNK)
                await client.send_all(BUSY)
                await client.send_eof()
                await client.receive_some(CHUNK)
            else:
                server = await trio.open_tcp_stream("127.0.0.1", self._target)
                self._open.add(server)
                await self._join(client, server)
        self._open.discard(client)
        client.socket.close()

    async def _join(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        counter = FrameCounter()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass, client, server, nursery.cancel_scope, counter)
                nursery.start_soon(self._pass, server, client, nursery.cancel_scope, None)
        finally:
            self._open.discard(server)
            server.socket.close()

    async def _pass(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        scope: trio.CancelScope,
        counter: FrameCounter | None,
    ) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(CHUNK):
                if counter is not None:
                    before = counter.messages
                    counter.feed(data)
                    self.messages += counter.messages - before
                while self.fault == "hold" or (self.fault == "late" and counter is None):
                    await self._changed.wait()
                if self.fault == "blackhole" or (self.fault == "deaf" and counter is None):
                    continue
                await sink.send_all(data)
        scope.cancel()
