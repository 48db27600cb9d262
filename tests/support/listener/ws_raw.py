"""A WebSocket client with no opinion: it sends any bytes as a frame and reads strictly.

A `Link` is a byte stream, whatever carries it; `Client` speaks RFC 6455 over a link. The openers
at the end make the link over each way in which a WebSocket can reach the server.
"""

import base64
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DEADLINE = 20.0

Headers = dict[str, str | None]


class Link(Protocol):
    """Bytes in both directions."""

    async def send(self, data: bytes) -> None: ...
    async def receive(self) -> bytes: ...
    async def abort(self) -> None: ...


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """Encode one frame (RFC 6455 section 5.2)."""
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if len(payload) < 126:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 65_536:
        head += struct.pack("!BH", mask_bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", mask_bit | 127, len(payload))
    if not masked:
        return head + payload
    key = os.urandom(4)
    mask = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(len(payload), "big")


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


@dataclass
class Client:
    """One open WebSocket. `received` holds bytes that are not a whole frame yet."""

    link: Link
    received: bytearray = field(default_factory=bytearray)

    async def send(self, opcode: int, payload: bytes = b"", **bits: bool | int) -> None:
        await self.link.send(frame(opcode, payload, **bits))

    async def text(self, message: str) -> None:
        await self.send(TEXT, message.encode())

    async def _need(self, count: int) -> None:
        while len(self.received) < count:
            with trio.fail_after(DEADLINE):
                data = await self.link.receive()
            if not data:
                raise EOFError
            self.received += data

    async def frame(self) -> tuple[int, bytes]:
        """The next frame as (opcode, payload). Raises EOFError at the end of the stream."""
        await self._need(2)
        first, second = self.received[0], self.received[1]
        assert first & 0xF0 == 0x80, "the server sends whole frames, without extensions"
        assert second & 0x80 == 0, "the server does not mask"
        start, length = 2, second
        if second == 126:
            await self._need(4)
            start, (length,) = 4, struct.unpack_from("!H", self.received, 2)
        elif second == 127:
            await self._need(10)
            start, (length,) = 10, struct.unpack_from("!Q", self.received, 2)
        await self._need(start + length)
        payload = bytes(self.received[start : start + length])
        del self.received[: start + length]
        return first & 0x0F, payload

    async def message(self) -> bytes:
        """The payload of the next data frame; pings of the server are answered."""
        while True:
            opcode, payload = await self.frame()
            if opcode == PING:
                await self.send(PONG, payload)
            else:
                assert opcode in (TEXT, BINARY), (opcode, payload)
                return payload

    async def closing(self) -> tuple[int, str]:
        """Read up to the close frame, answer it; (1006, "") when the stream just ends."""
        while True:
            try:
                opcode, payload = await self.frame()
            except (EOFError, trio.BrokenResourceError):
                return 1006, ""
            if opcode == CLOSE:
                try:
                    await self.send(CLOSE, payload[:2])
                except trio.BrokenResourceError:
                    pass
                if not payload:
                    return 1005, ""
                return struct.unpack_from("!H", payload)[0], payload[2:].decode()

    async def ended(self) -> bool:
        """True once the stream ends; asserts that nothing else comes first."""
        try:
            with trio.fail_after(DEADLINE):
                return bytes(self.received) + await self.link.receive() == b""
        except trio.BrokenResourceError:
            return True


@dataclass
class Answer:
    """The server's answer to a handshake. `client` is there when it was positive."""

    status: int
    headers: dict[str, str]
    link: Link
    body: bytes = b""
    client: Client | None = None

    @property
    def open(self) -> Client:
        assert self.client is not None, (self.status, self.body)
        return self.client


class StreamLink:
    """A link over a Trio stream, plain or TLS."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        return bytes(await self.stream.receive_some(65_536))

    async def abort(self) -> None:
        await trio.aclose_forcefully(self.stream)


def handshake_headers(extra: Headers | None = None) -> dict[str, str]:
    """Headers of a correct handshake, changed by `extra`; None takes one away."""
    headers: Headers = {
        "host": "127.0.0.1",
        "connection": "keep-alive, Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
    }
    headers.update(extra or {})
    return {name: value for name, value in headers.items() if value is not None}


def request_bytes(path: str, headers: dict[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(link: Link) -> Answer:
    """Read one HTTP/1.1 response; what follows a 101 is kept for the client."""
    data = b""
    while b"\r\n\r\n" not in data:
        with trio.fail_after(DEADLINE):
            more = await link.receive()
        assert more, f"the connection ended within the head: {data!r}"
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (ln.partition(": ") for ln in lines)}
    answer = Answer(int(first.split(" ")[1]), headers, link)
    if answer.status == 101:
        answer.client = Client(link, bytearray(rest))
        return answer
    while len(rest) < int(headers.get("content-length", 0)):
        with trio.fail_after(DEADLINE):
            more = await link.receive()
        assert more, "the connection ended within the body"
        rest += more
    answer.body = rest
    return answer


async def open_plain(port: int, path: str = "/ws", extra: Headers | None = None) -> Answer:
    """Over plain TCP, as the first request."""
    link = StreamLink(await trio.open_tcp_stream("127.0.0.1", port))
    await link.send(request_bytes(path, handshake_headers(extra)))
    return await read_answer(link)


async def open_kept_alive(port: int, path: str = "/ws", extra: Headers | None = None) -> Answer:
    """Over plain TCP, as the second request of a connection."""
    link = StreamLink(await trio.open_tcp_stream("127.0.0.1", port))
    await link.send(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    first = await read_answer(link)
    assert (first.status, first.body) == (200, b"hello")
    await link.send(request_bytes(path, handshake_headers(extra)))
    return await read_answer(link)


async def connect_tls(port: int, alpn: str) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection without checking the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), context, https_compatible=True
    )
    await stream.do_handshake()
    assert stream.selected_alpn_protocol() == alpn
    return stream


async def open_tls(port: int, path: str = "/ws", extra: Headers | None = None) -> Answer:
    """Over TLS and HTTP/1.1."""
    link = StreamLink(await connect_tls(port, "http/1.1"))
    await link.send(request_bytes(path, handshake_headers(extra)))
    return await read_answer(link)


class H2Link:
    """One stream of an HTTP/2 connection, pulled by its reader."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.id = 1
        self.headers: dict[str, str] | None = None
        self.data = bytearray()
        self.over = False
        self.settled = self.terminated = self.was_reset = False

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def step(self) -> None:
        """Read once and take what came."""
        data = bytes(await self.stream.receive_some(65_536))
        if not data:
            self.over = True
            return
        for event in self.h2.receive_data(data):
            self._take(event)
        await self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settled = True
        elif isinstance(event, h2.events.ResponseReceived):
            self.headers = {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            self.data += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.over = self.terminated = True
        elif isinstance(event, h2.events.StreamReset):
            self.over = self.was_reset = True
        elif isinstance(event, h2.events.StreamEnded):
            self.over = True

    async def send(self, data: bytes) -> None:
        if self.over:
            raise trio.BrokenResourceError
        while data:
            size = min(
                len(data),
                self.h2.local_flow_control_window(self.id),
                self.h2.max_outbound_frame_size,
            )
            if size > 0:
                self.h2.send_data(self.id, data[:size])
                data = data[size:]
                await self.flush()
            else:
                await self.step()

    async def receive(self) -> bytes:
        while not self.data and not self.over:
            await self.step()
        data = bytes(self.data)
        self.data.clear()
        return data

    async def abort(self) -> None:
        await trio.aclose_forcefully(self.stream)


async def open_http2(port: int, path: str = "/ws", extra: Headers | None = None) -> Answer:
    """Over TLS and HTTP/2, by extended CONNECT (RFC 8441)."""
    link = H2Link(await connect_tls(port, "h2"))
    link.h2.initiate_connection()
    await link.flush()
    while not link.settled:
        await link.step()
    enabled = link.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
    assert enabled == 1
    fields = handshake_headers(extra)
    pseudo = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", path),
        (":authority", fields.pop("host")),
    ]
    hop = {"connection", "upgrade", "sec-websocket-key"}
    link.h2.send_headers(link.id, pseudo + [(n, v) for n, v in fields.items() if n not in hop])
    await link.flush()
    with trio.fail_after(DEADLINE):
        while link.headers is None:
            await link.step()
    answer = Answer(int(link.headers[":status"]), link.headers, link)
    if answer.status == 200:
        answer.client = Client(link)
        return answer
    while part := await link.receive():
        answer.body += part
    return answer


Opener = Callable[[int, str, Headers | None], Awaitable[Answer]]
