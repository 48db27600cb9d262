"""Request heads of HTTP/2 have the verdict that HTTP/1.1 gives; a bad one ends its stream only."""

from collections.abc import AsyncIterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest
import trio

from integration.listener.test_http2_leaving import H2Client
from support.listener.http_site import HttpSite, answer, http_site
from support.listener.tls_client import open_tls_stream
from support.listener.ws_raw import DEADLINE

Fields = list[tuple[str, str]]
RESET = 0
GOOD = {":method": "GET", ":scheme": "https", ":path": "/", ":authority": "a"}
LIMITS = {"max_target_bytes": 1_000, "max_header_count": 20, "max_body_bytes": 1_000}


def head(*more: tuple[str, str], **changes: str | None) -> Fields:
    """A good head, changed: `path` for `:path`, None to leave it out."""
    fields = GOOD | {f":{name}": value for name, value in changes.items()}  # type: ignore[operator]
    return [(name, value) for name, value in fields.items() if value is not None] + list(more)


SAME: dict[str, tuple[int, Fields]] = {
    "plain": (200, head()),
    "host without authority": (200, head(("host", "a"), authority=None)),
    "host that is the authority": (200, head(("host", "a"))),
    "port and IPv6": (200, head(authority="[::1]:8080")),
    "query": (200, head(path="/?x=%20")),
    "scheme of a proxy": (200, head(scheme="http")),
    "asterisk-form": (200, head(method="OPTIONS", path="*")),
    "list as host": (400, head(("host", "a, b"), authority=None)),
    "path in the authority": (400, head(authority="a/b")),
    "user in the authority": (400, head(authority="u@a")),
    "bad host": (400, head(("host", "a/b"), authority=None)),
    "absolute-form": (400, head(path="http://b/x")),
    "absolute-form of another scheme": (400, head(path="ftp://b/")),
    "relative target": (400, head(path="x")),
    "fragment in the target": (400, head(path="/#x")),
    "asterisk-form of another method": (400, head(path="*")),
    "another scheme": (400, head(scheme="ftp")),
    "control character in a value": (400, head(("x", "y\x01z"))),
    "target above the bound": (414, head(path="/" + "a" * 1_000)),
    "fields above the bound": (431, head(*[("x", "y")] * 20)),
    "body above the bound": (413, head(("content-length", "1001"), method="POST")),
    "unknown expectation": (417, head(("expect", "200-ok"))),
    "unknown method": (501, head(method="FOO")),
    "method in lower case": (501, head(method="get")),
    "no authority": (RESET, head(authority=None)),
    "another host than the authority": (RESET, head(("host", "b"))),
    "two hosts": (RESET, head(("host", "a"), ("host", "a"), authority=None)),
    "no path": (RESET, head(path=None)),
    "empty path": (RESET, head(path="")),
    "no scheme": (RESET, head(scheme=None)),
    "list as authority": (RESET, head(authority="a, b")),
    "space in the target": (RESET, head(path="/a b")),
    "control character in the target": (RESET, head(path="/\x01")),
    "line end in the target": (RESET, head(path="/ HTTP/1.1\r\nx: y")),
    "line end in a value": (RESET, head(("x", "y\r\nz: a"))),
    "line end in a name": (RESET, head(("x\r\nz", "y"))),
    "NUL in a value": (RESET, head(("x", "y\0"))),
    "space around a value": (RESET, head(("x", " y"))),
    "name in upper case": (RESET, head(("X", "y"))),
    "two paths": (RESET, [*head(), (":path", "/x")]),
    "pseudo-header field behind others": (RESET, [*head(("x", "y")), (":protocol", "websocket")]),
    "pseudo-header field that is unknown": (RESET, [*head(), (":status", "200")]),
    "a field of the connection": (RESET, head(("connection", "close"))),
    "a coding": (RESET, head(("transfer-encoding", "chunked"))),
}


@pytest.fixture
async def site() -> AsyncIterator[HttpSite]:
    async def seen(scope: Any, receive: Any, send: Any) -> None:
        site.log.append((scope["path"], [v for n, v in scope["headers"] if n == b"host"]))
        await answer(send)

    async with http_site("tls", {"/": seen, "*": seen}, **LIMITS) as site:
        yield site


async def connect(site: HttpSite) -> H2Client:
    """A client that sends whatever it is told to."""
    client = H2Client(await open_tls_stream(site.port, "h2"))
    client.h2 = h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    await client.begin()
    return client


async def verdict(client: H2Client, stream_id: int, fields: Fields, end: bool = True) -> int:
    """Status of the answer, or RESET."""
    client.id, client.headers, client.over, client.was_reset = stream_id, None, False, False
    client.data.clear()
    client.h2.send_headers(stream_id, fields, end_stream=end)
    await client.flush()
    with trio.fail_after(DEADLINE):
        while not client.over:
            await client.step()
    assert not client.terminated
    return int(client.headers[":status"]) if client.headers else RESET


async def test_one_verdict(site: HttpSite) -> None:
    """All of the table on one connection, which goes on."""
    client = await connect(site)
    found = {}
    for number, (name, (_, fields)) in enumerate(SAME.items()):
        method = dict(fields)[":method"]
        found[name] = await verdict(client, 2 * number + 1, fields, method != "POST")
        if found[name] >= 400:
            assert b'"code"' in client.data, name
    await client.abort()

    assert {name: status for name, (status, _) in SAME.items()} == found
    served = [name for name, (status, _) in SAME.items() if status == 200]
    assert len(served) == len(site.log)


async def test_the_authority_is_the_host(site: HttpSite) -> None:
    """The application sees one host, whichever field brought it."""
    client = await connect(site)
    await verdict(client, 1, head(authority="b:1"))
    await verdict(client, 3, head(("host", "c"), authority=None))
    await verdict(client, 5, head(("host", "d"), authority="d"))
    await client.abort()

    assert [("/", [b"b:1"]), ("/", [b"c"]), ("/", [b"d"])] == site.log


async def test_a_refused_head_request_has_no_body(site: HttpSite) -> None:
    """As in HTTP/1.1."""
    client = await connect(site)
    status = await verdict(client, 1, head(method="HEAD", authority="a/b"))
    await client.abort()

    assert (400, b"") == (status, bytes(client.data))


@pytest.mark.parametrize("changes", [{"authority": "a/b"}, {"path": "ws"}, {"scheme": "ftp"}])
async def test_a_websocket_is_judged_like_a_request(
    site: HttpSite, changes: dict[str, str]
) -> None:
    """400, and the sink never hears of it."""
    client = await connect(site)
    fields = [(":method", "CONNECT"), (":protocol", "websocket")]
    fields += head(("sec-websocket-version", "13"), **({"path": "/ws"} | changes))[1:]
    status = await verdict(client, 1, fields, end=False)
    await client.abort()

    assert (400, []) == (status, site.sink.clients)


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "CONNECT"), (":authority", "a:443")],
        [(":method", "CONNECT"), (":protocol", "connect-udp"), *head()[1:]],
    ],
    ids=["proxy", "another protocol"],
)
async def test_another_tunnel_is_not_implemented(site: HttpSite, fields: Fields) -> None:
    """501 with the reason, and the connection goes on."""
    client = await connect(site)
    assert 501 == await verdict(client, 1, fields, end=False)
    assert b"not_implemented" in client.data
    assert 200 == await verdict(client, 3, head())
    await client.abort()


@pytest.mark.parametrize("trailer", [(":path", "/x"), ("x", "y\r\nz"), ("X", "y")])
async def test_malformed_trailers_end_their_stream(
    site: HttpSite, trailer: tuple[str, str]
) -> None:
    """PROTOCOL_ERROR for the stream; the connection goes on."""
    client = await connect(site)
    client.h2.send_headers(1, head(method="POST", path="/"))
    client.h2.send_headers(1, [trailer], end_stream=True)
    await client.flush()
    with trio.fail_after(DEADLINE):
        while not client.over:
            await client.step()
    assert 200 == await verdict(client, 3, head())
    await client.abort()
