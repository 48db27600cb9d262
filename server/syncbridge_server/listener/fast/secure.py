"""TLS on a connection's socket: the same reads and writes, through two memory buffers.

Theory of operation. `ssl.SSLObject` turns bytes into bytes and never touches the socket. A read
takes records from the socket until they yield plain bytes; a write sends the encrypted bytes.
Messages of TLS itself during a read (session tickets, replies to key updates) wait for the next
write, so only the connection's writer ever sends; renegotiation, which could not wait, is off. An
orderly close sends close_notify (RFC 8446 section 6.1), and waits for the peer's at most as long as
`linger`. An incomplete answer is cut off without it.

The sink gets one end of a socketpair, and `carry` copies between the other end and the peer. So the
sink has a plain socket, with the socketpair's back-pressure.
"""

import socket
import ssl

import trio

from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.fast.limits import READ_BYTES
from syncbridge_server.listener.fast.outbox import Outbox
from syncbridge_server.listener.fast.readiness import Readiness
from syncbridge_server.listener.fast.transport import Gone, Transport

HTTP2 = "h2"


class SecureTransport(Transport):
    """The socket of one TLS connection; `handshake` comes first.

    Args:
        initial: bytes of TLS that were already read from the socket.
    """

    __slots__ = ("_incoming", "_near", "_outgoing", "_tls")

    secure = True

    def __init__(
        self,
        readiness: Readiness,
        outbox: Outbox,
        sock: socket.socket,
        initial: bytes,
        write_timeout: float,
        occupant: Occupant,
        context: ssl.SSLContext,
    ) -> None:
        super().__init__(readiness, outbox, sock, b"", write_timeout, occupant)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._incoming.write(initial)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._near: trio.SocketStream | None = None

    async def handshake(self) -> str | None:
        """Make the TLS handshake; returns the protocol that ALPN chose. Raises Gone."""
        while not self._agreed():
            await super().write(self._outgoing.read())
            self._take(await super().read())
        if self._tls.version() != "TLSv1.3":  # there, only session tickets are left, and can wait
            await super().write(self._outgoing.read())
        return self._tls.selected_alpn_protocol()

    async def read(self) -> bytes:
        while (data := self._decrypted()) is None:
            self._take(await super().read())
        return data

    def ended(self) -> bool:
        try:
            while (data := self._decrypted()) is None:
                self._take(self._look())
        except BlockingIOError:
            return False
        except (Gone, OSError):
            return True
        self.buffer += data
        return not data

    def defer(self, data: bytes) -> bool:
        """Always False: encrypted bytes must be sent."""
        return False

    async def write(self, data: bytes) -> None:
        if not (self.broken or self._writing):
            data = self._encrypted(data)
        await super().write(data)

    async def part(self) -> None:
        if not (self.broken or self.sock.fileno() < 0):
            try:
                self._tls.unwrap()
            except OSError:
                pass  # the peer has not answered yet, or something has failed: an alert says what
            try:
                await super().write(self._outgoing.read())
            except Gone:
                pass
        await super().part()

    async def end(self) -> None:
        if self.broken:
            self.release()
        else:
            await self.part()

    def give(self) -> socket.socket:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        self._near = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        return far

    async def carry(self) -> None:
        assert self._near is not None
        async with self._near as near, trio.open_nursery() as nursery:
            nursery.start_soon(self._carry_in, near)
            await self._carry_out(near)
            nursery.cancel_scope.cancel()

    async def _carry_in(self, near: trio.SocketStream) -> None:
        try:
            while data := await self.read():
                await near.send_all(data)
        except (Gone, trio.BrokenResourceError):
            pass
        try:
            await near.send_eof()
        except trio.BrokenResourceError:
            pass  # the sink has closed, which the other direction sees

    async def _carry_out(self, near: trio.SocketStream) -> None:
        try:
            while data := await near.receive_some(READ_BYTES):
                await self.write(bytes(data))
        except (Gone, trio.BrokenResourceError):
            pass

    def _agreed(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except OSError:
            raise Gone from None
        return True

    def _look(self) -> bytes:
        """Read the socket without waiting. Raises OSError, including BlockingIOError."""
        data = self.sock.recv(READ_BYTES)
        if len(data) == READ_BYTES:
            self._watched.ready = True
        return data

    def _take(self, data: bytes) -> None:
        """Bytes of the socket; empty at its end. Raises Gone for a peer that only provokes
        replies."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        if self._outgoing.pending > READ_BYTES:
            raise Gone

    def _decrypted(self) -> bytes | None:
        """Bytes of the peer, empty after its close_notify; None when more must be read."""
        try:
            return self._tls.read(READ_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except OSError:
            raise Gone from None  # also an end without close_notify: something may be missing

    def _encrypted(self, data: bytes) -> bytes:
        left = memoryview(data)
        try:
            while left:
                left = left[self._tls.write(left) :]
        except OSError:
            raise Gone from None
        return self._outgoing.read()
