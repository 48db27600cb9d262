"""Clients that are slow, silent, broken or too many: each costs something bounded."""

import errno
import json
import logging
import socket
from pathlib import Path

import pytest
import trio

from support.listener.listener_site import EchoSink, Site, open_site
from support.listener.ws_raw import (
    CLOSE,
    TEXT,
    Answer,
    Client,
    H2Link,
    StreamLink,
    close_payload,
    connect_tls,
    frame,
    handshake_headers,
    open_http2,
    open_plain,
    read_answer,
    request_bytes,
)
from syncbridge_server.listener.accept import Acceptor
from syncbridge_server.listener.capacity import Bounds, Occupant
from syncbridge_server.listener.contract import ListenerConfig

UPGRADE = request_bytes("/ws", handshake_headers())


async def connect(site: Site, kind: str = "plain") -> StreamLink:
    return StreamLink(await trio.open_tcp_stream("127.0.0.1", site.ports[kind]))


async def say(site: Site, data: bytes, kind: str = "plain") -> Answer:
    """Send bytes on a new connection, return the answer; the connection is closed."""
    link = await connect(site, kind)
    await link.send(data)
    answer = await read_answer(link)
    await link.abort()
    return answer


async def ended(link: StreamLink) -> bool:
    """True when the server closes without saying anything."""
    is_over = await Client(link).ended()
    await link.abort()
    return is_over


async def test_a_client_that_sends_byte_after_byte(tmp_path: Path) -> None:
    """Any split of the request gets the same answer."""
    async with open_site(tmp_path, "plain") as site:
        link = await connect(site)
        for index in range(len(UPGRADE)):
            await link.send(UPGRADE[index : index + 1])
            await trio.testing.wait_all_tasks_blocked()
        client = (await read_answer(link)).open
        await client.text("x")

        assert b"x" == await client.message()
        await link.abort()


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_a_silent_client_is_closed(tmp_path: Path, kind: str) -> None:
    """Nothing within the header timeout: the connection ends without a word."""
    async with open_site(tmp_path, kind, header_timeout=0.1) as site:
        assert await ended(await connect(site, kind))


async def test_half_a_request_is_timed_out(tmp_path: Path) -> None:
    """A request that stops in the middle is answered 408."""
    async with open_site(tmp_path, "plain", header_timeout=0.1) as site:
        answer = await say(site, UPGRADE[:-10])

        assert (408, "request_timeout") == (answer.status, json.loads(answer.body)["code"])


async def test_half_a_general_request_is_timed_out(tmp_path: Path) -> None:
    """A head that drips in on the HTTP path has a deadline too."""
    async with open_site(tmp_path, "plain", header_timeout=0.1) as site:
        answer = await say(site, b"GET /hello HTTP/1.1\r\nHost:")

        assert (408, "request_timeout") == (answer.status, json.loads(answer.body)["code"])


async def test_a_half_open_client_is_closed(tmp_path: Path) -> None:
    """A client that stops writing within its request is gone at once, not after the timeout."""
    async with open_site(tmp_path, "plain", header_timeout=3600) as site:
        link = await connect(site)
        await link.send(UPGRADE[:-10])
        await link.stream.send_eof()

        assert await ended(link)


async def test_tls_that_stops_in_the_handshake_is_closed(tmp_path: Path) -> None:
    """The first bytes of a TLS record do not buy more than the header timeout."""
    async with open_site(tmp_path, "tls", header_timeout=0.1) as site:
        link = await connect(site, "tls")
        await link.send(b"\x16\x03\x01\x02\x00")

        assert await ended(link)


async def test_a_head_above_the_bound(tmp_path: Path) -> None:
    """431 on the WebSocket path and on the general one, even when more follows."""
    headers = b"Host: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
    async with open_site(tmp_path, "plain") as site:
        native = await say(site, b"GET /ws HTTP/1.1\r\n" + headers)
        general = await say(site, b"GET /hello HTTP/1.1\r\n" + headers)

        assert (431, "headers_too_large") == (native.status, json.loads(native.body)["code"])
        assert 431 == general.status


async def test_the_wrong_protocol_for_the_port(tmp_path: Path) -> None:
    """Plain HTTP on a TLS port is told so; TLS on a plain port is closed."""
    async with open_site(tmp_path, "plain", "tls") as site:
        answer = await say(site, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "tls")
        link = await connect(site)
        await link.send(b"\x16\x03\x01\x02\x00")

        assert (400, "tls_required") == (answer.status, json.loads(answer.body)["code"])
        assert await ended(link)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /ws HTTP/1.1\nHost: a\n\n",
        UPGRADE.replace(b"host: 127.0.0.1", b"host: a\r\nhost: b"),
        UPGRADE.replace(b"host: 127.0.0.1", b"x y: a"),
        UPGRADE.replace(b"host: 127.0.0.1\r\n", b""),
        b"\x00\x01\x02\r\n\r\n",
    ],
)
async def test_a_malformed_request_never_opens_a_socket(tmp_path: Path, head: bytes) -> None:
    """What parsers could disagree about is a 4xx, and the sink never hears of it."""
    async with open_site(tmp_path, "plain") as site:
        answer = await say(site, head)

        assert answer.status in (400, 426)
        assert ["code", "detail", "status", "title", "type"] == sorted(json.loads(answer.body))
        assert answer.headers["x-request-id"]
        assert [] == site.sink.clients


async def test_an_unusual_upgrade_is_served_all_the_same(tmp_path: Path) -> None:
    """A body length of 0 and an absolute target are no reason to refuse."""
    unusual = UPGRADE.replace(b"host:", b"content-length: 0\r\nhost:")
    async with open_site(tmp_path, "plain") as site:
        link = await connect(site)
        await link.send(unusual + frame(TEXT, b"early"))
        client = (await read_answer(link)).open

        assert b"early" == await client.message()
        await link.abort()


async def test_a_bug_in_a_route_ends_one_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of the application is a 500 and a log entry; others are served."""
    async with open_site(tmp_path, "plain") as site:
        answer = await say(site, b"GET /crash HTTP/1.1\r\nHost: a\r\n\r\n")

        assert 500 == answer.status
        assert 200 == (await say(site, b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")).status
        assert [logging.ERROR] == [record.levelno for record in caplog.records]


async def test_a_full_sink_is_an_end_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the sink takes no socket, the client's connection ends; the server goes on."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    async with open_site(tmp_path, "plain") as site:
        monkeypatch.setattr(site.sink, "adopt", full)
        client = (await open_plain(site.ports["plain"])).open

        assert (1006, "") == await client.closing()
        assert 200 == (await say(site, b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")).status
        await client.link.abort()


@pytest.mark.parametrize("cut", [0, 20])
async def test_a_bug_in_the_sink_ends_one_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    """Whether its request came whole or in two parts, the others are served, and it is logged."""

    def broken(client: str) -> None:
        raise RuntimeError("a bug")

    async with open_site(tmp_path, "plain") as site:
        monkeypatch.setattr(site.sink, "admit", broken)
        link = await connect(site)
        await link.send(UPGRADE[:cut])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await link.send(UPGRADE[cut:])

        assert await ended(link)
        assert ["connection failed"] == [record.message for record in caplog.records]
        assert 200 == (await say(site, b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")).status


async def test_a_plain_connect_over_http2_harms_nobody(tmp_path: Path) -> None:
    """CONNECT without a WebSocket is refused; the same connection goes on to serve one."""
    async with open_site(tmp_path, "tls") as site:
        link = await open_h2(site)
        for stream_id, extra in ((1, []), (3, [(":protocol", "connect-udp")])):
            scheme = [(":scheme", "https"), (":path", "/ws")] if extra else []
            fields = [(":method", "CONNECT"), (":authority", "a"), *scheme, *extra]
            link.id, link.headers, link.over = stream_id, None, False
            link.h2.send_headers(stream_id, fields)
            await link.flush()
            with trio.fail_after(20):
                while not link.over:
                    await link.step()
            assert link.headers
            assert "501" == link.headers[":status"]
        await websocket_over(link, 5)

        await echo_over(link, 5, b"still here")
        await link.abort()


async def test_data_for_an_ended_stream_harms_nobody(tmp_path: Path) -> None:
    """Frames that were under way when the server ended a stream leave its neighbour alone."""
    async with open_site(tmp_path, "tls") as site:
        link = await open_h2(site)
        await websocket_over(link, 1)
        await websocket_over(link, 3)
        await echo_over(link, 1, b"close 4009 x", answer=close_payload(4009, "x"))
        link.h2.send_data(1, frame(CLOSE, close_payload(4009)))
        await link.flush()
        assert 4009 == (await site.sink.how_ended())[0]
        link.h2.send_data(1, b"late")
        await link.flush()

        await echo_over(link, 3, b"still here")
        await link.abort()


async def test_an_http2_connection_without_streams_is_closed(tmp_path: Path) -> None:
    """After a refusal nothing is open on it, so the keep-alive timeout counts."""
    async with open_site(tmp_path, "tls", keep_alive_timeout=0.1) as site:
        answer = await open_http2(site.ports["tls"], "/ws", {"origin": "https://evil.example"})
        link = answer.link
        assert isinstance(link, H2Link)
        link.over = False
        with trio.fail_after(20):
            while not link.over:
                await link.step()

        assert 403 == answer.status
        await link.abort()


async def open_h2(site: Site) -> H2Link:
    link = H2Link(await connect_tls(site.ports["tls"], "h2"))
    link.h2.initiate_connection()
    await link.flush()
    while not link.settled:
        await link.step()
    return link


async def websocket_over(link: H2Link, stream_id: int) -> None:
    """Open a WebSocket as stream `stream_id` and wait for the answer."""
    link.id, link.headers = stream_id, None
    fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/ws"),
        (":authority", "127.0.0.1"),
        ("sec-websocket-version", "13"),
    ]
    link.h2.send_headers(stream_id, fields)
    await link.flush()
    with trio.fail_after(20):
        while link.headers is None or link.headers[":status"] == "501":  # of a stream before
            await link.step()
    assert "200" == link.headers[":status"]
    link.over = False


async def echo_over(link: H2Link, stream_id: int, message: bytes, answer: bytes = b"") -> None:
    link.h2.send_data(stream_id, frame(TEXT, message))
    await link.flush()
    with trio.fail_after(20):
        while (answer or message) not in link.data:
            await link.step()


async def test_a_tunnel_whose_client_stops_reading_is_cut(tmp_path: Path) -> None:
    """The sink's outbox is the bound: a client that never reads is closed by the sink."""
    async with open_site(tmp_path, "tls", write_timeout=1.0) as site:
        answer = await open_http2(site.ports["tls"])
        for _ in range(40):
            await answer.open.text("count 20000")
        code, _ = await site.sink.how_ended()

        assert code in (4008, 1006)
        await answer.link.abort()


class Exhausted:
    """A listening socket of a process that has no descriptors left."""

    def __init__(self) -> None:
        self.attempts = 0
        self._near, self._far = socket.socketpair()
        self._far.send(b"x")

    def fileno(self) -> int:
        return self._near.fileno()

    def accept(self) -> None:
        self.attempts += 1
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        self._near.close()
        self._far.close()


async def test_no_descriptors_means_waiting_not_spinning(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The pauses double up to a second, and the log has one line, not one a try.

    Whoever waits for its client gives way meanwhile, for each try at most as many as one batch.
    """
    listener, sink, bounds = Exhausted(), EchoSink(), Bounds(ListenerConfig())
    for _ in range(100):
        silent = Occupant()
        silent.take(bounds.handshakes)
        silent.wait()
    try:
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                acceptor = Acceptor(
                    ListenerConfig(),
                    sink,
                    nursery,
                    None,  # type: ignore[arg-type]
                    bounds=bounds,
                )
                await acceptor.run(listener)  # type: ignore[arg-type]
    finally:
        listener.close()
        sink.hub.shutdown()

    # 0.05 + 0.1 + 0.2 + 0.4 + 0.8, then one a second
    assert 5 + 9 == listener.attempts
    assert 1 == sum("backing off" in message for message in caplog.messages)
    assert (100, 0) == (bounds.handshakes.evicted, bounds.handshakes.held)
