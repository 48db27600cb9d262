"""A strict TLS client: it distinguishes an end with close_notify from one without."""

import socket
import ssl
import struct
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Truncated(Exception):
    """The stream has ended without close_notify: something may be missing."""


class TlsStream(trio.abc.HalfCloseableStream):
    """One connection. Reads raise Truncated, writes BrokenResourceError."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self._stream = stream
        self.socket = stream.socket
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)

    @property
    def version(self) -> str | None:
        return self._tls.version()

    async def _retry(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._stream.receive_some(65_536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._stream.send_all(data)

    async def handshake(self) -> str | None:
        """Returns the protocol that ALPN chose."""
        await self._retry(self._tls.do_handshake)
        return self._tls.selected_alpn_protocol()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await self._retry(lambda: self._tls.read(max_bytes or 65_536))
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError:
            raise Truncated from None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._tls.write(data)
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say close_notify, and go on reading."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        await self._flush()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def reset(self) -> None:
        """Leave with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()


async def open_tls_stream(
    port: int, alpn: str | None = None, version: str | None = None
) -> TlsStream:
    """Connect without checking the certificate. `version`: of TLS, a key of VERSIONS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    stream = TlsStream(await trio.open_tcp_stream("127.0.0.1", port), context)
    try:
        assert alpn == await stream.handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream
