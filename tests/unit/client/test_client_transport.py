"""The client's WebSocket against a server that is written byte by byte."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, TextMessage

from syncbridge_client import ConnectFailed, SessionClosed, connect
from syncbridge_client.transport import (
    ConnectionEnded,
    HandshakeRefused,
    WebSocket,
    netloc,
    split_url,
)

Script = Callable[[trio.SocketStream, WSConnection], Awaitable[None]]


@asynccontextmanager
async def peer(script: Script) -> AsyncIterator[str]:
    """A server that runs a script for its one connection; the URL."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await script(stream, WSConnection(ConnectionType.SERVER))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"
        nursery.cancel_scope.cancel()


async def accept(stream: trio.SocketStream, ws: WSConnection) -> bytes:
    """Read the handshake; returns the answer without sending it."""
    ws.receive_data(await stream.receive_some())
    list(ws.events())
    return ws.send(AcceptConnection())


async def everything(socket: WebSocket) -> tuple[list[bytes], ConnectionEnded]:
    """All messages, and how it ended."""
    messages: list[bytes] = []
    with trio.fail_after(10):
        while True:
            try:
                messages += await socket.receive()
            except ConnectionEnded as end:
                return messages, end


async def flood(socket: WebSocket) -> None:
    while True:
        await socket.send(b'"%b"' % (b"x" * 1_000_000))


async def test_bytes_in_any_split() -> None:
    """Handshake, messages in fragments and a close, sent byte by byte: all arrive, in order."""

    async def script(stream: trio.SocketStream, ws: WSConnection) -> None:
        data = await accept(stream, ws)
        data += ws.send(TextMessage("one ", message_finished=False))
        data += ws.send(Ping(b"x"))
        data += ws.send(TextMessage("mess\u00e4ge"))
        data += ws.send(TextMessage("two")) + ws.send(CloseConnection(1012, "later"))
        for byte in data:
            await stream.send_all(bytes([byte]))
        await stream.receive_some()

    async with peer(script) as url:
        socket = await WebSocket.open(url)
        messages, end = await everything(socket)
        await socket.drop()

    assert ["one mess\u00e4ge".encode(), b"two"] == messages
    assert (1012, "later") == (end.code, end.reason)


async def test_messages_before_a_close_in_one_packet_are_not_lost() -> None:
    """Also when they come together with the handshake's answer."""

    async def script(stream: trio.SocketStream, ws: WSConnection) -> None:
        data = await accept(stream, ws)
        data += ws.send(TextMessage("last words")) + ws.send(CloseConnection(1001))
        await stream.send_all(data)
        await stream.receive_some()

    async with peer(script) as url:
        socket = await WebSocket.open(url)
        assert [b"last words"] == await socket.receive()
        assert 1001 == (await everything(socket))[1].code
        await socket.drop()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda ws: ws.send(BytesMessage(b"x")), 1006),
        (lambda ws: ws.send(TextMessage("x" * 2_000)), 1009),
        (lambda ws: b"\xff\xff\xff\xff", 1006),
        (lambda ws: b"", 1006),
    ],
    ids=["binary", "too large", "not frames", "nothing"],
)
async def test_what_a_server_must_not_send(
    answer: Callable[[WSConnection], bytes], code: int
) -> None:
    """The connection ends with a typed reason."""

    async def script(stream: trio.SocketStream, ws: WSConnection) -> None:
        await stream.send_all(await accept(stream, ws))
        await stream.send_all(answer(ws))

    async with peer(script) as url:
        socket = await WebSocket.open(url, max_message=1_000)
        assert code == (await everything(socket))[1].code
        await socket.drop()


async def test_refused_handshake_says_when_to_come_back() -> None:
    """Status and Retry-After of the answer."""

    async def script(stream: trio.SocketStream, ws: WSConnection) -> None:
        await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno"
        )

    async with peer(script) as url:
        with pytest.raises(HandshakeRefused) as caught:
            await WebSocket.open(url)

    assert (503, 7.0) == (caught.value.status, caught.value.retry_after)


PORTAL = b"Content-Type: text/html"
PROBLEM = b"Content-Type: application/problem+json"


@pytest.mark.parametrize(
    ("status", "kind", "final"),
    [
        (b"404 Not Found", PORTAL, False),
        (b"302 Found", PORTAL, False),
        (b"200 OK", PORTAL, False),
        (b"403 Forbidden", PROBLEM, True),
        (b"426 Upgrade Required", PROBLEM, False),
        (b"429 Too Many Requests", PROBLEM, False),
        (b"503 Service Unavailable", PROBLEM, False),
    ],
)
async def test_only_the_server_itself_refuses_for_good(
    status: bytes, kind: bytes, final: bool
) -> None:
    """What is in between has no say in that: a captive portal, a proxy without its back end."""

    async def script(stream: trio.SocketStream, ws: WSConnection) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 %b\r\n%b\r\nContent-Length: 2\r\n\r\nno" % (status, kind))

    async with peer(script) as url:
        with pytest.raises(SessionClosed if final else ConnectFailed):
            async with connect(url, token="t", device_id="d", start_timeout=0.3):
                pass


async def test_silence_and_a_peer_that_takes_nothing() -> None:
    """Reading and sending both have a deadline."""

    async def script(stream: trio.SocketStream, ws: WSConnection) -> None:
        await stream.send_all(await accept(stream, ws))
        await trio.sleep_forever()

    async with peer(script) as url:
        socket = await WebSocket.open(url, send_timeout=0.2)
        socket.read_timeout = 0.05
        assert "nothing heard" in (await everything(socket))[1].reason
        with pytest.raises(ConnectionEnded, match="takes no bytes"):
            await flood(socket)
        await socket.drop()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://h/ws", ("ws", "h", 80, "/ws")),
        ("wss://h", ("wss", "h", 443, "/ws")),
        ("http://h:8081/", ("ws", "h", 8081, "/ws")),
        ("https://h/sync/ws", ("wss", "h", 443, "/sync/ws")),
        ("ws://[::1]:8080/a?b=c", ("ws", "::1", 8080, "/a?b=c")),
    ],
)
def test_urls(url: str, expected: tuple[str, str, int, str]) -> None:
    """Ports by scheme, IPv6, query; a server's URL leads to its WebSocket."""
    assert expected == split_url(url)
    assert "u:p@" not in netloc(url.replace("://", "://u:p@"))


@pytest.mark.parametrize("url", ["ftp://h/ws", "ws://", "h/ws", "ws://h/ws#x"])
def test_other_urls_are_refused(url: str) -> None:
    """Not the URL of a server: an error that says what is expected."""
    with pytest.raises(ValueError, match="ws://host"):
        split_url(url)
