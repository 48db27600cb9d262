"""One WebSocket behaviour, however the connection reaches the server.

Every test runs over plain TCP, over TLS, as an HTTP/2 stream, and as the second request of a
connection; those four meet the same engine with the same bytes. Most run also through the ASGI
bridge under stock Hypercorn, which parses frames itself; where it forces a difference, the test is
left to the four.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from support.listener.listener_site import EchoSink, Site, open_site
from support.listener.ws_raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Answer,
    Client,
    Headers,
    Link,
    Opener,
    StreamLink,
    close_payload,
    frame,
    handshake_headers,
    open_http2,
    open_kept_alive,
    open_plain,
    open_tls,
    read_answer,
    request_bytes,
)
from syncbridge_server.listener.contract import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_PROTOBUF,
    Refusal,
)


@dataclass
class Way:
    """How to reach the sink: a server, and a way to open a WebSocket on it."""

    site: Site
    opener: Opener
    kind: str
    links: list[Link] = field(default_factory=list)

    @property
    def sink(self) -> EchoSink:
        return self.site.sink

    async def ask(self, path: str = "/ws", extra: Headers | None = None) -> Answer:
        with trio.fail_after(20):
            answer = await self.opener(self.site.ports[self.kind], path, extra)
        self.links.append(answer.link)
        return answer

    async def open(self, extra: Headers | None = None) -> Client:
        return (await self.ask(extra=extra)).open

    async def hang_up(self) -> None:
        for link in self.links:
            await link.abort()


WAYS: dict[str, tuple[Opener, str]] = {
    "plain": (open_plain, "plain"),
    "kept_alive": (open_kept_alive, "plain"),
    "tls": (open_tls, "tls"),
    "http2": (open_http2, "tls"),
    "bridge": (open_plain, "asgi"),
}
BYTES = [name for name in WAYS if name != "bridge"]
"""The ways on which the client's own frames reach the engine."""


@asynccontextmanager
async def open_way(name: str, folder: Path) -> AsyncIterator[Way]:
    opener, kind = WAYS[name]
    async with open_site(folder, kind) as site:
        way = Way(site, opener, kind)
        yield way
        await way.hang_up()


@pytest.fixture(params=WAYS)
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(request.param, tmp_path) as way:
        yield way


@pytest.fixture(params=BYTES)
async def byte_way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(request.param, tmp_path) as way:
        yield way


async def test_text_comes_back(way: Way) -> None:
    """A text message, empty or not ASCII, is answered as a text frame."""
    client = await way.open()
    for message in ("hello", "", "h\u00e9llo \U0001f600"):
        await client.text(message)
        assert (TEXT, message.encode()) == await client.frame()


async def test_binary_comes_back_on_a_binary_subprotocol(way: Way) -> None:
    """The agreed protobuf subprotocol makes the connection binary in both directions."""
    client = await way.open({"sec-websocket-protocol": SUBPROTOCOL_PROTOBUF})
    await client.send(BINARY, bytes(range(256)))

    assert (BINARY, bytes(range(256))) == await client.frame()


@pytest.mark.parametrize("size", [125, 126, 4096, 65_535, 65_536])
async def test_sizes_around_the_length_encodings(way: Way, size: int) -> None:
    """Messages up to the bound come back whole, in each of the three length forms."""
    client = await way.open()
    await client.text("x" * size)

    assert b"x" * size == await client.message()


async def test_a_fragmented_message_is_put_together(way: Way) -> None:
    """Fragments with a ping between them, and a character cut in two, are one message."""
    client = await way.open()
    await client.send(TEXT, b"one \xc3", fin=False)
    await client.send(PING, b"now")
    await client.send(CONTINUATION, b"", fin=False)
    await client.send(CONTINUATION, b"\xa9 two")

    assert (PONG, b"now") == await client.frame()
    assert (TEXT, b"one \xc3\xa9 two") == await client.frame()


async def test_a_ping_is_answered_with_its_payload(way: Way) -> None:
    """Pong carries the ping's bytes; an unasked pong is ignored."""
    client = await way.open()
    await client.send(PONG, b"unasked")
    await client.send(PING, b"p" * 125)

    assert (PONG, b"p" * 125) == await client.frame()


async def test_many_messages_stay_in_order(way: Way) -> None:
    """500 messages written at once come back in the order in which they were sent."""
    client = await way.open()
    await client.link.send(b"".join(frame(TEXT, b"%d" % n) for n in range(500)))

    assert [b"%d" % n for n in range(500)] == [await client.message() for _ in range(500)]


async def test_a_burst_of_the_server_arrives_whole(way: Way) -> None:
    """Ten thousand messages of the server all arrive, in order."""
    client = await way.open()
    await client.text("count 10000")

    assert [b"%d" % n for n in range(10_000)] == [await client.message() for _ in range(10_000)]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4321])
async def test_the_clients_close_code_arrives(way: Way, code: int) -> None:
    """The client gets its code back and the stream ends; the sink learns the code, or that the
    client is gone where the ASGI server keeps the code to itself."""
    client = await way.open()
    await client.send(CLOSE, close_payload(code, "done"))

    assert (CLOSE, code) == await _close_code(client)
    assert await client.ended()
    assert (1006 if way.kind == "asgi" else code) == (await way.sink.how_ended())[0]


async def _close_code(client: Client) -> tuple[int, int]:
    opcode, payload = await client.frame()
    return opcode, int.from_bytes(payload[:2], "big")


async def test_the_clients_reason_arrives(byte_way: Way) -> None:
    """The reason of the client's close frame is given to the sink."""
    client = await byte_way.open()
    await client.send(CLOSE, close_payload(4000, "done"))

    assert (4000, "done") == await byte_way.sink.how_ended()


async def test_a_close_without_a_code(byte_way: Way) -> None:
    """An empty close frame is answered, and told to the sink as 1005."""
    client = await byte_way.open()
    await client.send(CLOSE)

    assert (await client.closing())[0] in (1000, 1005)
    assert 1005 == (await byte_way.sink.how_ended())[0]


@pytest.mark.parametrize("code", [1000, 1012, 4009])
async def test_the_servers_close_code_arrives(way: Way, code: int) -> None:
    """Code and reason of the server reach the client, and its answer ends the stream."""
    client = await way.open()
    await client.text(f"close {code} go away")

    assert (code, "go away") == await client.closing()
    assert await client.ended()
    assert code == (await way.sink.how_ended())[0]


async def test_messages_before_a_close_are_delivered(way: Way) -> None:
    """What was sent before the server closed comes first."""
    client = await way.open()
    await client.link.send(frame(TEXT, b"count 100") + frame(TEXT, b"close 4009 x"))

    assert [b"%d" % n for n in range(100)] == [await client.message() for _ in range(100)]
    assert (4009, "x") == await client.closing()


async def test_an_abort_ends_the_stream(byte_way: Way) -> None:
    """A connection that the sink cuts ends without a close frame."""
    client = await byte_way.open()
    await client.text("abort")

    assert (1006, "") == await client.closing()


async def test_a_client_that_vanishes_is_noticed(way: Way) -> None:
    """A dead connection is told to the sink as 1006."""
    client = await way.open()
    await client.text("x")
    assert b"x" == await client.message()
    await client.link.abort()

    assert 1006 == (await way.sink.how_ended())[0]


async def test_a_message_above_the_bound_is_closed_with_1009(way: Way) -> None:
    """One byte too many closes the connection, with the code for it."""
    client = await way.open()
    await client.text("x" * 65_537)

    assert 1009 == (await client.closing())[0]
    assert await client.ended()


async def test_fragments_above_the_bound_are_closed_with_1009(byte_way: Way) -> None:
    """The bound is on the message, not on the frame."""
    client = await byte_way.open()
    await client.send(TEXT, b"x" * 60_000, fin=False)
    await client.send(CONTINUATION, b"x" * 6_000, fin=False)

    assert 1009 == (await client.closing())[0]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="not UTF-8"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="surrogate"),
        pytest.param(frame(TEXT, b"\xc3"), 1007, id="cut character"),
        pytest.param(frame(TEXT, b"x", masked=False), 1002, id="no mask"),
        pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="reserved bit"),
        pytest.param(frame(0x3, b"x"), 1002, id="unknown opcode"),
        pytest.param(frame(0xB, b"x"), 1002, id="unknown control opcode"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="continuation of nothing"),
        pytest.param(
            frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002, id="text inside a message"
        ),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="fragmented ping"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="long ping"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="close with half a code"),
        pytest.param(frame(CLOSE, close_payload(1005)), 1002, id="close with 1005"),
        pytest.param(frame(CLOSE, close_payload(999)), 1002, id="close with 999"),
        pytest.param(frame(CLOSE, close_payload(1000) + b"\xff"), 1007, id="close reason"),
    ],
)
async def test_a_wrong_frame_is_closed_with_its_code(byte_way: Way, data: bytes, code: int) -> None:
    """Each breach of RFC 6455 closes with the code that it asks for, and reaches nobody."""
    client = await byte_way.open()
    await client.link.send(data)

    assert code == (await client.closing())[0]


async def test_wrong_text_never_comes_back(way: Way) -> None:
    """Bytes that are not UTF-8 end the connection: 1007, or a cut where the stack cuts itself."""
    client = await way.open()
    await client.send(TEXT, b"\xff")

    assert (await client.closing())[0] in (1007, 1006)


async def test_the_first_known_subprotocol_is_named(way: Way) -> None:
    """The answer names the subprotocol that was agreed, and only then."""
    offer = f"chat, {SUBPROTOCOL_JSON}, {SUBPROTOCOL_PROTOBUF}"
    named = await way.ask(extra={"sec-websocket-protocol": offer})
    unknown = await way.ask(extra={"sec-websocket-protocol": "chat"})
    none = await way.ask()

    assert [SUBPROTOCOL_JSON, None, None] == [
        answer.headers.get("sec-websocket-protocol") for answer in (named, unknown, none)
    ]
    for answer in (named, unknown, none):
        await answer.open.text("json")
        assert (TEXT, b"json") == await answer.open.frame()


async def test_no_extension_is_agreed_that_is_not_served(byte_way: Way) -> None:
    """An offer of an unknown extension is answered without it, and plain frames work."""
    answer = await byte_way.ask(extra={"sec-websocket-extensions": "x-webkit-deflate-frame"})
    await answer.open.text("x")

    assert answer.headers.get("sec-websocket-extensions") is None
    assert (TEXT, b"x") == await answer.open.frame()


async def test_every_answer_carries_a_request_id(way: Way) -> None:
    """A given id comes back on acceptance and refusal; without one there is a new one."""
    mine = {"x-request-id": "mine-1"}
    refused = mine | {"origin": "https://evil.example"}

    assert "mine-1" == (await way.ask(extra=mine)).headers["x-request-id"]
    assert "mine-1" == (await way.ask(extra=refused)).headers["x-request-id"]
    assert (await way.ask()).headers["x-request-id"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
        ("https://127.0.0.1", None),
    ],
)
async def test_only_own_pages_may_connect(way: Way, origin: str, status: int | None) -> None:
    """A page of another origin is refused before the sink hears of it; an own one is not."""
    answer = await way.ask(extra={"origin": origin})

    if status is None:
        await answer.open.text("x")
        assert b"x" == await answer.open.message()
    else:
        assert (status, b'"origin_refused"' in answer.body) == (answer.status, True)
        assert [] == way.sink.clients


async def test_a_token_in_the_url_is_refused(way: Way) -> None:
    """400, with the hint to send AUTH; the token is not repeated."""
    answer = await way.ask("/ws?access_token=secret")

    assert (400, True, False) == (answer.status, b"AUTH" in answer.body, b"secret" in answer.body)


async def test_the_sink_may_refuse(way: Way) -> None:
    """Its refusal becomes the status, problem document and Retry-After of the answer."""
    way.sink.refusal = Refusal(503, "draining", "comes back soon", 7)
    answer = await way.ask()

    assert (503, "7", "application/problem+json") == (
        answer.status,
        answer.headers["retry-after"],
        answer.headers["content-type"],
    )
    assert b'"draining"' in answer.body
    assert ["127.0.0.1"] == way.sink.clients


async def test_another_version_is_told_which_one_is_spoken(byte_way: Way) -> None:
    """426 with Sec-WebSocket-Version: 13 (RFC 6455 section 4.4)."""
    answer = await byte_way.ask(extra={"sec-websocket-version": "8"})

    assert (426, "13") == (answer.status, answer.headers["sec-websocket-version"])
    if byte_way.opener is not open_http2:
        assert "websocket" == answer.headers["upgrade"]
        assert "upgrade" in answer.headers["connection"].split(", ")


async def test_a_bad_key_is_refused(byte_way: Way) -> None:
    """A key that is not 16 bytes is 400; HTTP/2 has no key."""
    if byte_way.opener is not open_http2:
        answer = await byte_way.ask(extra={"sec-websocket-key": "c2hvcnQ="})

        assert (400, b'"bad_handshake"' in answer.body) == (answer.status, True)


async def test_without_an_upgrade_it_is_a_request_for_one(way: Way) -> None:
    """A plain GET of the path is answered 426; in HTTP/2 it would be another method."""
    if way.opener is not open_http2:
        answer = await way.ask(extra={"upgrade": None, "connection": "keep-alive"})

        assert (426, "websocket") == (answer.status, answer.headers["upgrade"])
        assert "upgrade" in answer.headers["connection"].lower().split(", ")


async def test_frames_may_come_with_the_handshake(tmp_path: Path) -> None:
    """Bytes that follow the request head in the same packet are the first frames."""
    async with open_site(tmp_path, "plain") as site:
        link = StreamLink(await trio.open_tcp_stream("127.0.0.1", site.ports["plain"]))
        await link.send(request_bytes("/ws", handshake_headers()) + frame(TEXT, b"early"))
        client = (await read_answer(link)).open

        assert b"early" == await client.message()
        await link.abort()


async def test_who_takes_the_bridge(way: Way) -> None:
    """Only a foreign ASGI server uses the bridge; our own paths give the sink the real frames."""
    client = await way.open()
    await client.text("x")

    assert b"x" == await client.message()
    assert [way.kind == "asgi"] == way.sink.bridged
