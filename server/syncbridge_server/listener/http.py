"""Plain HTTP connections: everything on plain TCP that is not a WebSocket upgrade.

They are served by Hypercorn, which must see the bytes that were read to tell them apart.
"""

import socket

import trio

from syncbridge_server.listener.hypercorn import Connection, Site


class ReplayStream(trio.abc.HalfCloseableStream):
    """A socket stream that first returns bytes that were already read from it."""

    def __init__(self, sock: socket.socket, pending: bytes) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._pending = pending
        self.socket = self._stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._pending:
            return bytes(await self._stream.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        size = len(self._pending) if max_bytes is None else max_bytes
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


async def serve_http(site: Site, sock: socket.socket, initial: bytes) -> None:
    """Serve one plain connection until it ends. Owns the socket."""
    stream = ReplayStream(sock, initial)
    await Connection(site, stream, stream.socket, "http/1.1", secure=False).run()
