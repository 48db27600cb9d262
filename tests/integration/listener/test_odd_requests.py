"""Odd requests, over every way into HTTP/1.1: one parser judges them, whatever came before.

An upgrade to HTTP/2 is never followed, its preface only where it is configured and comes first.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from support.listener.http_site import (
    WAYS,
    HttpSite,
    Peer,
    answer,
    get,
    http_site,
    post,
    read_all,
)
from support.listener.listener_site import open_site
from support.listener.smuggling_table import SERVED, TABLE
from support.listener.ws_raw import (
    DEADLINE,
    H2Link,
    StreamLink,
    handshake_headers,
    read_answer,
    request_bytes,
)

H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SMUGGLED = get("/smuggled")
BEFORE = {
    "nothing": b"",
    "an upgrade to anything": get("/before", "Connection: Upgrade", "Upgrade: foo"),
    "an upgrade to h2c": get("/before", *H2C),
    "an upgrade with a body": post(b"abc", "Connection: Upgrade", "Upgrade: foo", path="/before"),
}


class Anything(dict[str, Any]):
    """Routes that serve every path, and note which ones were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __missing__(self, path: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.seen.append(path)
            await answer(send, await read_all(receive))

        return app


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def recording(way: str, **settings: Any) -> AsyncIterator[tuple[HttpSite, Anything]]:
    routes = Anything()
    async with http_site(
        way, routes, max_target_bytes=1_000, max_body_bytes=100_000, **settings
    ) as site:
        yield site, routes


async def connect(site: HttpSite, before: str) -> Peer:
    """A connection on which `before` was asked and served."""
    peer = await site.connect()
    if BEFORE[before]:
        assert SERVED == (await peer.ask(BEFORE[before])).status
    return peer


@pytest.mark.parametrize("before", BEFORE)
async def test_one_verdict_on_every_way(way: str, before: str) -> None:
    """The table of ambiguous requests, and a request behind each: served only behind a good one."""
    found, followed = {}, set()
    async with recording(way) as (site, routes):
        for name, (_, data) in TABLE.items():
            routes.seen.clear()
            peer = await connect(site, before)
            found[name] = (await peer.ask(data + SMUGGLED)).status
            if found[name] == SERVED:
                if "HTTP/1.0" not in name:
                    assert SERVED == (await peer.reply()).status
                    followed.add(name)
            else:
                assert await peer.ended()
                assert "/smuggled" not in routes.seen, name
            await peer.hang_up()

    assert {name: status for name, (status, _) in TABLE.items()} == found
    assert len(followed) == sum(status == SERVED for status, _ in TABLE.values()) - 1


async def test_a_request_within_a_body_is_not_served(way: str) -> None:
    """The case that was found: an unknown method first, then two lengths and a request inside."""
    inner = get("/smuggled")
    outer = get(
        "/", f"Content-Length: {len(inner) + 5}", "Transfer-Encoding: chunked", method="POST"
    )
    async with recording(way) as (site, routes):
        peer = await site.connect()
        refused = await peer.ask(get(method="FOO") + outer + b"0\r\n\r\n" + inner)

        assert (501, "close") == (refused.status, refused.headers["connection"])
        assert await peer.ended()
        assert [] == routes.seen


@pytest.mark.parametrize("path", ["/", "/ws"])
async def test_h2c_is_not_followed(way: str, path: str) -> None:
    """The request is served as what it is, and the connection stays HTTP/1.1."""
    async with recording(way) as (site, routes):
        peer = await site.connect()
        replies = [await peer.ask(get(path, *H2C)), await peer.ask(get("/next"))]

    assert [(SERVED, True)] * 2 == [
        (reply.status, "upgrade" not in reply.headers) for reply in replies
    ]
    assert [path, "/next"] == routes.seen


async def test_an_offer_of_both_is_a_websocket(way: str) -> None:
    """`Upgrade: h2c, websocket` is answered by the protocol that is spoken here (RFC 9110 7.8)."""
    async with recording(way) as (site, _):
        peer = await site.connect()
        link = StreamLink(peer.stream)
        offer = handshake_headers({"upgrade": "h2c, websocket", "http2-settings": "AAMAAABk"})
        await link.send(request_bytes("/ws", offer))
        reply = await read_answer(link)

        assert (101, "websocket") == (reply.status, reply.headers["upgrade"])
        await reply.open.text("x")
        assert b"x" == await reply.open.message()


@pytest.mark.parametrize(
    "extra",
    [
        {"upgrade": "h2c"},
        {"content-length": "3"},
        {"transfer-encoding": "chunked"},
        {"connection": "keep-alive"},
    ],
)
async def test_what_is_no_websocket_is_a_request(way: str, extra: dict[str, str | None]) -> None:
    """Another protocol, a body, no `Connection: upgrade`: the application is asked."""
    body = {"content-length": b"abc", "transfer-encoding": b"0\r\n\r\n"}
    data = request_bytes("/ws", handshake_headers(extra)) + body.get(next(iter(extra)), b"")
    async with recording(way) as (site, routes):
        peer = await site.connect()

        assert SERVED == (await peer.ask(data)).status
        assert SERVED == (await peer.ask(get("/next"))).status
        assert ["/ws", "/next"] == routes.seen
        assert [] == site.sink.clients


async def test_a_websocket_field_that_came_twice(way: str) -> None:
    """400, and the sink never hears of it."""
    data = request_bytes("/ws", handshake_headers()).replace(
        b"upgrade: websocket", b"upgrade: websocket\r\nsec-websocket-version: 8"
    )
    async with recording(way) as (site, _):
        reply = await site.ask(data)

        assert (400, "bad_handshake") == (reply.status, reply.code)
        assert [] == site.sink.clients


async def test_one_empty_line_is_ignored(way: str) -> None:
    """Before each request, also when it comes in pieces (RFC 9112 section 2.2)."""
    async with recording(way) as (site, routes):
        peer = await site.connect()
        for pieces in ([b"\r\n" + get()], [b"\r\n", get()], [b"\r", b"\n" + get()]):
            for piece in pieces[:-1]:
                await peer.send(piece)
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert SERVED == (await peer.ask(pieces[-1])).status

    assert ["/"] * 3 == routes.seen


@pytest.mark.parametrize("before", BEFORE)
async def test_more_empty_lines_are_refused(way: str, before: str) -> None:
    """A second one is malformed, however many follow, and whether it comes at once or later."""
    async with recording(way) as (site, routes):
        for pieces in ([b"\r\n" * 2], [b"\r\n" * 10_000 + get()], [b"\r\n", b"\r\n" + get()]):
            peer = await connect(site, before)
            routes.seen.clear()
            for piece in pieces[:-1]:
                await peer.send(piece)
                await trio.testing.wait_all_tasks_blocked(0.01)
            await peer.send(pieces[-1])
            assert (400, "bad_request") == ((reply := await peer.reply()).status, reply.code)
            assert await peer.ended()
            assert [] == routes.seen


PREFACES = [("plain", "nothing", False), ("tls", "nothing", False), ("tls", "nothing", True)]
PREFACES += [
    (way, name, knows)
    for way in WAYS
    for name in BEFORE
    if name != "nothing"
    for knows in (False, True)
]


@pytest.mark.parametrize(("kind", "before", "knows"), PREFACES)
async def test_a_preface_that_is_refused(kind: str, before: str, knows: bool) -> None:
    """505 and the end: without the setting, behind a request, and on TLS, where ALPN decides."""
    async with recording(kind, http2_prior_knowledge=knows) as (site, _):
        peer = await connect(site, before)
        reply = await peer.ask(PREFACE + SMUGGLED)

        assert (505, "http_version") == (reply.status, reply.code)
        assert await peer.ended()


async def test_prior_knowledge_by_setting(tmp_path: Path) -> None:
    """With the setting a plain connection may begin with HTTP/2, and is held to its idle time."""
    async with open_site(
        tmp_path, "plain", http2_prior_knowledge=True, keep_alive_timeout=0.2
    ) as site:
        link = H2Link(await trio.open_tcp_stream("127.0.0.1", site.ports["plain"]))
        link.h2.initiate_connection()
        fields = {":method": "GET", ":path": "/hello", ":scheme": "http", ":authority": "a"}
        link.h2.send_headers(1, list(fields.items()), end_stream=True)
        await link.flush()
        with trio.fail_after(DEADLINE):
            assert b"hello" == await link.receive()
            while await link.stream.receive_some(65_536):
                pass
        await link.abort()
