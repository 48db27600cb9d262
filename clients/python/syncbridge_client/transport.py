"""One WebSocket: anyio's socket and wsproto's frames, on Trio or asyncio.

Whole text messages in and out. Pings are answered here. Only one task may send at a time; a send
that is cancelled leaves half a frame, so the connection is of no use after it.
"""

import math
import ssl
from typing import Self
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.events import Event as WsEvent
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from syncbridge_client.backoff import asked_for
from syncbridge_client.catalogue import CloseCode

SUBPROTOCOL = "syncbridge.json.v1"
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
READ_BYTES = 65_536
ABNORMAL = 1006
"""Stands for a connection that ended without a close frame (RFC 6455 section 7.1.5)."""

BROKEN = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class ConnectionEnded(Exception):
    """The connection is over. `code`: close code, 1006 when there was none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class HandshakeRefused(Exception):
    """The upgrade was answered with another status than 101.

    Attributes:
        retry_after: seconds. explained: with a problem document, so by the server itself; what is
            in between (a proxy, a captive portal) has no say in whether to try again.
    """

    def __init__(self, status: int, retry_after: float = 0.0, explained: bool = False) -> None:
        super().__init__(f"the server answered {status} to the WebSocket handshake")
        self.status = status
        self.retry_after = retry_after
        self.explained = explained


class WebSocket:
    """An open connection; use `WebSocket.open`.

    Attributes:
        read_timeout: seconds without a byte, pings included, after which the server is dead.
    """

    def __init__(self, stream: ByteStream, max_message: int, send_timeout: float) -> None:
        self._stream = stream
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._max_message = max_message
        self._send_timeout = send_timeout
        self._sending = anyio.Lock()
        self._end: ConnectionEnded | None = None
        self.read_timeout = math.inf
        self._parts: list[str] = []
        self._size = 0

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        max_message: int = 8_388_608,
        send_timeout: float = 10.0,
    ) -> Self:
        """Connect and do the handshake; the caller sets the deadline.

        Raises:
            OSError: no connection. HandshakeRefused: see there. ConnectionEnded: closed meanwhile.
            ValueError: the URL is none of a server.
        """
        scheme, host, port, target = split_url(url)
        if scheme == "wss":
            stream: ByteStream = await anyio.connect_tcp(
                host,
                port,
                ssl_context=ssl_context or ssl.create_default_context(),
                tls_standard_compatible=False,
            )
        else:
            stream = await anyio.connect_tcp(host, port)
        socket = cls(stream, max_message, send_timeout)
        try:
            await socket._handshake(netloc(url), target)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return socket

    async def send(self, message: bytes) -> None:
        """Send one text message; raises ConnectionEnded."""
        await self._write(TextMessage(message.decode()))

    async def receive(self) -> list[bytes]:
        """The next messages, at least one; raises ConnectionEnded once all have been read."""
        while not (messages := await self._messages()):
            if self._end is not None:
                raise self._end
            try:
                with anyio.fail_after(self.read_timeout):
                    data = await self._stream.receive(READ_BYTES)
                self._ws.receive_data(data)
            except TimeoutError:
                raise ConnectionEnded(ABNORMAL, "nothing heard from the server") from None
            except BROKEN as error:
                raise ConnectionEnded(ABNORMAL, type(error).__name__) from None
            except (RemoteProtocolError, LocalProtocolError) as error:
                raise ConnectionEnded(ABNORMAL, str(error)) from None
        return messages

    async def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, without waiting for an answer."""
        await self._answer(CloseConnection(code, reason))

    async def drop(self) -> None:
        """Give the socket back at once."""
        await anyio.aclose_forcefully(self._stream)

    async def _write(self, event: WsEvent) -> None:
        try:
            with anyio.fail_after(self._send_timeout):
                async with self._sending:
                    await self._stream.send(self._ws.send(event))
        except TimeoutError:
            raise ConnectionEnded(ABNORMAL, "the connection takes no bytes") from None
        except (*BROKEN, LocalProtocolError) as error:
            raise ConnectionEnded(ABNORMAL, type(error).__name__) from None

    async def _handshake(self, host: str, target: str) -> None:
        await self._write(Request(host=host, target=target, subprotocols=[SUBPROTOCOL]))
        while True:
            try:
                self._ws.receive_data(await self._stream.receive(READ_BYTES))
            except BROKEN:
                raise ConnectionEnded(ABNORMAL, "closed during the handshake") from None
            except RemoteProtocolError as error:
                raise ConnectionEnded(ABNORMAL, str(error)) from None
            for event in self._ws.events():
                if isinstance(event, AcceptConnection):
                    return
                if isinstance(event, RejectConnection):
                    headers = event.headers
                    raise HandshakeRefused(
                        event.status_code, retry_after(headers), is_problem(headers)
                    )
                if isinstance(event, RejectData):
                    raise HandshakeRefused(0)

    async def _messages(self) -> list[bytes]:
        """Messages in what was read so far; a close frame is kept for after them."""
        whole: list[bytes] = []
        for event in self._ws.events():
            if isinstance(event, TextMessage):
                self._take(event, whole)
            elif isinstance(event, Ping):
                await self._write(event.response())
            elif isinstance(event, CloseConnection):
                closed = self._ws.state is not ConnectionState.OPEN  # else: not understood
                code = int(event.code) if closed else ABNORMAL
                self._end = ConnectionEnded(code, event.reason or "")
                await self._answer(event.response())
            elif isinstance(event, BytesMessage):
                self._end = ConnectionEnded(ABNORMAL, "a binary message")
                break
        return whole

    def _take(self, event: TextMessage, whole: list[bytes]) -> None:
        self._parts.append(event.data)
        self._size += len(event.data)
        if self._size > self._max_message:
            raise ConnectionEnded(CloseCode.TOO_BIG, f"a message over {self._max_message} bytes")
        if event.message_finished:
            whole.append("".join(self._parts).encode())
            self._parts, self._size = [], 0

    async def _answer(self, event: WsEvent) -> None:
        try:
            await self._write(event)
        except ConnectionEnded:
            pass


def split_url(url: str) -> tuple[str, str, int, str]:
    """Scheme (ws or wss), host, port and request target (RFC 6455 section 3) of a server's URL.

    An http URL is read as ws, https as wss; without a path, the path is /ws.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname or parts.fragment:
        raise ValueError("a URL such as https://host or ws://host:8080/ws is expected")
    scheme = SCHEMES[parts.scheme]
    path = parts.path if parts.path not in ("", "/") else "/ws"
    target = path + (f"?{parts.query}" if parts.query else "")
    return scheme, parts.hostname, parts.port or (443 if scheme == "wss" else 80), target


def netloc(url: str) -> str:
    """The Host header: no user, and a port only when the URL has one."""
    return urlsplit(url).netloc.rpartition("@")[2]


def retry_after(headers: object) -> float:
    """Seconds of a Retry-After header, 0 when there is none that is a number."""
    for name, value in headers if isinstance(headers, list) else ():
        if name.lower() == b"retry-after":
            try:
                seconds = float(value)
            except ValueError:
                return 0.0
            return asked_for(seconds) if math.isfinite(seconds) else 0.0
    return 0.0


def is_problem(headers: object) -> bool:
    """Whether a body is a problem document (RFC 9457)."""
    pairs = headers if isinstance(headers, list) else ()
    return any(
        name.lower() == b"content-type" and value.startswith(b"application/problem+json")
        for name, value in pairs
    )
