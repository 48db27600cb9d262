"""A device for tests: a WebSocket client on real sockets that speaks SyncBridge's messages.

With `protobuf=True` it speaks them as protobuf; a test sees the same dicts.
"""

import json
import os
import ssl
from types import TracebackType
from typing import Any, Self

import trio
from wsproto import ConnectionType, WSConnection
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

from support import protobuf_kit

WAIT = 10.0
"""Seconds after which a test that waits has failed."""


class Refused(Exception):
    """The handshake was answered with another status than 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body!r}")
        self.status = status
        self.body = body


class Closed(Exception):
    """The server closed the connection. `code` is 1006 when it did so without a close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Device:
    """One connection. `async with await Device.open(port) as device: ...`"""

    def __init__(self, stream: trio.abc.Stream, ws: WSConnection) -> None:
        self._stream = stream
        self._ws = ws
        self._inbox: list[dict[str, Any]] = []
        self._text = ""
        self._binary = b""
        self._end: Closed | None = None
        self.raw: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.protobuf = False
        self.device_id = ""
        self.version = 0
        self.epoch = ""
        self.welcome: dict[str, Any] = {}

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        host: str = "127.0.0.1",
        headers: list[tuple[bytes, bytes]] | None = None,
        tls: ssl.SSLContext | None = None,
        path: str = "/ws",
        protobuf: bool = False,
        source: str | None = None,
    ) -> Self:
        """`source`: the address of this machine that it connects from."""
        with trio.fail_after(WAIT):
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, port, local_address=source)
            if tls is not None:
                stream = trio.SSLStream(stream, tls, server_hostname="localhost")
            ws = WSConnection(ConnectionType.CLIENT)
            device = cls(stream, ws)
            device.protobuf = protobuf
            request = Request(
                host=f"{host}:{port}",
                target=path,
                extra_headers=headers or [],
                subprotocols=[protobuf_kit.SUBPROTOCOL] if protobuf else [],
            )
            try:
                await stream.send_all(ws.send(request))
                await device._accepted()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        return device

    async def _accepted(self) -> None:
        status, body = 0, b""
        while True:
            data = await self._stream.receive_some(65536)
            self._ws.receive_data(data or None)
            for event in self._ws.events():
                match event:
                    case AcceptConnection():
                        assert (event.subprotocol == protobuf_kit.SUBPROTOCOL) == self.protobuf
                        return
                    case RejectConnection():
                        status = event.status_code
                        if not event.has_body:
                            raise Refused(status, body)
                    case RejectData():
                        body += bytes(event.data)
                        if event.body_finished:
                            raise Refused(status, body)
                    case CloseConnection():
                        raise Refused(status, body)

    async def send_text(self, text: str) -> None:
        await self._stream.send_all(self._ws.send(TextMessage(data=text)))

    def frame(self, text: str) -> bytes:
        """A text message as bytes for `send_raw`."""
        return self._ws.send(TextMessage(data=text))

    async def send_many(self, texts: list[str]) -> None:
        """Text messages, all in one write."""
        await self._stream.send_all(b"".join(map(self.frame, texts)))

    async def send_binary(self, data: bytes) -> None:
        await self._stream.send_all(self._ws.send(BytesMessage(data=data)))

    async def send_raw(self, data: bytes) -> None:
        """Bytes on the socket, past the protocol."""
        await self._stream.send_all(data)

    async def send(
        self, kind: int | str, payload: Any = None, correlation_id: str | None = None
    ) -> None:
        """A message; one whose type is a name has its members beside the type."""
        message: dict[str, Any] = {"type": kind, "payload": {} if payload is None else payload}
        if isinstance(kind, str):
            message = {"type": kind, **(payload or {})}
        if correlation_id is not None:
            message["correlation_id"] = correlation_id
        if self.protobuf:
            await self.send_binary(protobuf_kit.encode(message))
        else:
            await self.send_text(json.dumps(message))

    async def receive(self, *kinds: int | str) -> dict[str, Any]:
        """The next message, or the next of some types (others before it are dropped)."""
        with trio.fail_after(WAIT):
            while True:
                while not self._inbox:
                    await self._read()
                message = self._inbox.pop(0)
                if not kinds or message["type"] in kinds:
                    return message

    async def _read(self) -> None:
        if self._end is not None:
            raise self._end
        try:
            data = await self._stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self._end = Closed(1006, "")
            await trio.aclose_forcefully(self._stream)
            return
        self._ws.receive_data(data)
        for event in self._ws.events():
            match event:
                case TextMessage():
                    self._text += event.data
                    if event.message_finished:
                        self.raw.append(self._text)
                        self._took(json.loads(self._text))
                        self._text = ""
                case BytesMessage():
                    self._binary += bytes(event.data)
                    if event.message_finished:
                        self._took(protobuf_kit.decode(self._binary))
                        self._binary = b""
                case Ping():
                    await self._stream.send_all(self._ws.send(event.response()))
                case CloseConnection():
                    self._end = Closed(int(event.code), event.reason or "")
                    await trio.aclose_forcefully(self._stream)

    def _took(self, message: dict[str, Any]) -> None:
        self._inbox.append(message)
        self.seen.append(message)

    async def request(
        self, kind: int | str, payload: Any = None, correlation_id: str | None = None
    ) -> dict[str, Any]:
        """Send a message and return the one that carries its correlation id."""
        correlation_id = correlation_id or os.urandom(8).hex()
        await self.send(kind, payload, correlation_id)
        while True:
            message = await self.receive()
            if message.get("correlation_id") == correlation_id:
                return message

    async def auth(self, token: str, device_id: str, **extra: Any) -> dict[str, Any]:
        """AUTH; returns AUTH_SUCCESS's payload, or raises AssertionError with what came."""
        self.device_id = device_id
        payload = {"token": token, "device_id": device_id, **extra}
        answer = await self.request(7, payload)
        assert answer["type"] == 8, answer
        self.welcome = answer["payload"]
        self.version, self.epoch = self.welcome["version"], self.welcome["epoch"]
        return self.welcome

    async def set(self, key: str, value: Any, **extra: Any) -> dict[str, Any]:
        """STATE_UPDATE SET; returns the acknowledgement."""
        return await self.request(5, {"key": key, "value": value, "operation": "SET", **extra})

    async def closed(self, within: float = WAIT) -> Closed:
        """Wait until the server closes; returns how. `within`: seconds."""
        with trio.fail_after(within):
            while True:
                try:
                    await self._read()
                except Closed as closed:
                    return closed

    async def close(self, code: int = 1000) -> None:
        try:
            await self._stream.send_all(self._ws.send(CloseConnection(code=code)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self._stream.aclose()

    def shrink(self) -> None:
        """Let the kernel keep little of what this device does not read."""
        assert isinstance(self._stream, trio.SocketStream)
        self._stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 262_144)

    async def kill(self) -> None:
        """Drop the connection without a close frame."""
        await trio.aclose_forcefully(self._stream)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await trio.aclose_forcefully(self._stream)
