"""Every end of a TLS connection that is ours is announced (RFC 8446 section 6.1, RFC 5246 7.2.1).

A client that gets the end without close_notify cannot tell it from somebody who cut the line.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from support.listener.http_site import HttpSite, Peer, answer, get, http_site, post
from support.listener.listener_site import Site, open_site
from support.listener.tls_client import VERSIONS, TlsStream, Truncated, open_tls_stream
from support.listener.ws_raw import (
    CLOSE,
    DEADLINE,
    H2Link,
    StreamLink,
    close_payload,
    handshake_headers,
    read_answer,
    request_bytes,
)
from support.redis_servers import until

ANCIENT_HELLO = (
    bytes.fromhex("1603000031 0100002d 0300")
    + bytes(32)
    + bytes.fromhex("00 0006 002f00350005 0100")
)
"""A ClientHello of SSL 3.0 (RFC 6101 section 5.6.1.2)."""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


@asynccontextmanager
async def connected(version: str, **settings: Any) -> AsyncIterator[tuple[HttpSite, Peer]]:
    routes = {"/": hello, "/crash": crash, "/half": half}
    async with http_site("tls", routes, **settings) as site:
        stream = await open_tls_stream(site.port, "http/1.1", version)
        assert stream.version == f"TLSv{version}"
        site.peers.append(peer := Peer(stream))
        yield site, peer


async def crash(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("a bug")


async def half(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise ValueError("a bug")


ENDS = {
    "as the client wishes": get("/", "Connection: close"),
    "with more behind it": get("/", "Connection: close") + get() * 3,
    "HTTP/1.0": get(version="1.0"),
    "refused head": b"\0\r\n\r\n",
    "refused body": post(b"", path="/")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n",
    "unread body": post(b"x" * 200_000),
    "crash": get("/crash"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_after_the_last_answer(version: str, name: str) -> None:
    """However the answer came about: all of it, then close_notify."""
    async with connected(version) as (_, peer):
        reply = await peer.ask(ENDS[name])

        assert reply.whole
        assert await peer.ended()


async def test_after_a_long_answer_to_a_slow_reader(version: str) -> None:
    """The socket's buffer was full at the end, and the announcement waited for room."""
    size = 8_000_000

    async def much(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x" * size)

    async with http_site("tls", {"/": much}) as site:
        peer = Peer(await open_tls_stream(site.port, "http/1.1", version))
        site.peers.append(peer)
        await peer.send(get("/", "Connection: close"))
        await trio.testing.wait_all_tasks_blocked(0.05)

        assert size == len((await peer.reply()).body)
        assert await peer.ended()


async def test_after_the_keep_alive_timeout(version: str) -> None:
    """An idle connection ends without a word of HTTP, with one of TLS."""
    async with connected(version, keep_alive_timeout=0.1) as (_, peer):
        assert 200 == (await peer.ask(get())).status
        assert await peer.ended()


async def test_after_half_a_head(version: str) -> None:
    """408, then close_notify."""
    async with connected(version, header_timeout=0.1) as (_, peer):
        assert 408 == (await peer.ask(get()[:-4])).status
        assert await peer.ended()


async def test_in_a_stop(version: str) -> None:
    """Connections without a request are closed with it, and the stop goes on."""
    async with connected(version) as (site, peer):
        assert 200 == (await peer.ask(get())).status
        site.stop.set()

        assert await peer.ended()
        await peer.hang_up()
        with trio.fail_after(DEADLINE):
            await site.stopped.wait()


async def test_at_the_end_of_a_drain(version: str) -> None:
    """What is cut off after the drain timeout is told so too: nothing of it is half sent."""
    started = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await trio.sleep_forever()

    async with http_site("tls", {"/": slow}, drain_timeout=0.2) as site:
        peer = Peer(await open_tls_stream(site.port, "http/1.1", version))
        site.peers.append(peer)
        await peer.send(get())
        with trio.fail_after(DEADLINE):
            await started.wait()
        site.stop.set()

        assert await peer.ended()


async def test_half_an_answer_is_not_announced(version: str) -> None:
    """A crash within an answer must not look like its end."""
    async with connected(version) as (_, peer):
        assert not (await peer.ask(get("/half"))).whole
        with pytest.raises((Truncated, trio.BrokenResourceError)):
            await peer.stream.receive_some(100)


async def test_a_client_that_announces_its_end_gets_its_answer(version: str) -> None:
    """close_notify of the client ends its side only, as a half-close of TCP does."""
    async with connected(version) as (_, peer):
        await peer.send(get() + get())
        await peer.half_close()

        assert [b"hello"] * 2 == [(await peer.reply()).body for _ in range(2)]
        assert await peer.ended()


async def test_a_peer_that_does_not_answer_is_not_waited_for(version: str) -> None:
    """It neither answers our close_notify nor closes; its place is free again all the same."""
    async with connected(version, max_connections=1) as (site, peer):
        assert 200 == (await peer.ask(get("/", "Connection: close"))).status
        with trio.fail_after(DEADLINE):
            second = await another(site)

        assert 200 == (await second.ask(get())).status


async def another(site: HttpSite) -> Peer:
    """A connection, as soon as there is room: TLS clients that are refused cannot read why."""
    while True:
        try:
            return await site.connect()
        except (ssl.SSLError, trio.BrokenResourceError):
            await trio.sleep(0.05)


@pytest.mark.parametrize("who", ["server", "client", "refused"])
async def test_websockets(tmp_path: Path, version: str, who: str) -> None:
    """After the closing handshake, whoever began it, and after a refusal."""
    async with open_site(tmp_path, "tls") as site:
        stream = await open_tls_stream(site.ports["tls"], "http/1.1", version)
        link = StreamLink(stream)
        origin = "https://evil.example" if who == "refused" else None
        await link.send(request_bytes("/ws", handshake_headers({"origin": origin})))
        reply = await read_answer(link)
        if who == "refused":
            assert 403 == reply.status
        elif who == "server":
            await reply.open.text("close 4009 x")
            assert (4009, "x") == await reply.open.closing()
        else:
            await reply.open.send(CLOSE, close_payload(1000))
            assert 1000 == (await reply.open.closing())[0]

        with trio.fail_after(DEADLINE):
            assert b"" == await stream.receive_some()
        await link.abort()


async def test_http2(tmp_path: Path, version: str) -> None:
    """An idle connection is closed with GOAWAY, then close_notify."""
    async with open_site(tmp_path, "tls", keep_alive_timeout=0.1) as site:
        link = await http2_link(site, version)
        with trio.fail_after(DEADLINE):
            while not link.over:
                await link.step()
            assert link.terminated
            assert b"" == await link.stream.receive_some()
        await link.abort()


async def test_http2_that_breaks_its_rules(tmp_path: Path, version: str) -> None:
    """The error is said in HTTP/2, then the end in TLS."""
    async with open_site(tmp_path, "tls") as site:
        link = await http2_link(site, version)
        await link.stream.send_all(b"\0\0\x01\0\0\0\0\0\1x")  # DATA on a stream that is not open
        with trio.fail_after(DEADLINE):
            while not link.terminated:
                await link.step()
            assert b"" == await link.stream.receive_some()
        await link.abort()


CONNECT = {
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":scheme": "https",
    ":path": "/ws",
    ":authority": "a",
    "sec-websocket-version": "13",
}
GET = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "a"}
STARTS: dict[str, dict[str, str] | None] = {
    "before any request": None,
    "after an answer": GET,
    "within a WebSocket": CONNECT,
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("half", [True, False], ids=["TLS", "TLS and TCP"])
async def test_http2_that_the_client_ends(
    tmp_path: Path, version: str, start: str, half: bool
) -> None:
    """close_notify of the client is answered with ours, though no timeout is near, and then nothing
    is left of the connection."""
    async with open_site(tmp_path, "tls", keep_alive_timeout=3600.0) as site:
        link = await http2_link(site, version)
        with trio.fail_after(DEADLINE):
            while not link.settled:
                await link.step()
            if (asked := STARTS[start]) is not None:
                link.h2.send_headers(1, list(asked.items()), end_stream=asked is GET)
                await link.flush()
                while link.headers is None or (asked is GET and not link.over):
                    await link.step()
                assert "200" == link.headers[":status"]
        await link.stream.send_eof()  # type: ignore[attr-defined]
        if not half:
            link.stream.socket.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
        with trio.fail_after(DEADLINE):
            while await link.stream.receive_some():
                pass
        await link.abort()
        await until(lambda: not states(site.ports["tls"]) - {LISTEN, TIME_WAIT})


LISTEN, TIME_WAIT = "0A", "06"


def states(port: int) -> set[str]:
    """Those of our sockets at a port, as proc(5) has them; CLOSE_WAIT is 08."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[3] for row in rows if int(row[1].rpartition(":")[2], 16) == port}


async def test_a_handshake_that_fails_is_told_why(tmp_path: Path) -> None:
    """No protocol version in common: an alert, and not just the end."""
    async with open_site(tmp_path, "tls") as site:
        stream = await trio.open_tcp_stream("127.0.0.1", site.ports["tls"])
        await stream.send_all(ANCIENT_HELLO)
        with trio.fail_after(DEADLINE):
            alert = await stream.receive_some(100)
            assert b"\x15" == alert[:1]
            assert b"" == await stream.receive_some(100)
        await stream.aclose()


async def http2_link(site: Site, version: str) -> H2Link:
    stream: TlsStream = await open_tls_stream(site.ports["tls"], "h2", version)
    link = H2Link(stream)
    link.h2.initiate_connection()
    await link.flush()
    return link
