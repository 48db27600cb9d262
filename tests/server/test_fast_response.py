"""Responses as bytes: what a strict client reads, and what an application may not do."""

from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_server.listener.fast.response import Response, opening

OPENING = opening(200)
Pairs = list[tuple[bytes, bytes]]


def start(headers: Pairs | None = None, status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers or []}


def respond(response: Response, message: dict[str, Any], *parts: bytes) -> bytes:
    """The bytes of a response with these parts, the last of which is the end."""
    response.start(message, opening(message["status"]))
    ends = [True] * (len(parts) - 1) + [False]
    return b"".join(response.body(part, more) for part, more in zip(parts, ends, strict=True))


def read(data: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    """Head and body as h11 reads them; nothing may be left over."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    return head, body


def plain(method: str = "GET", version: str = "1.1", keep_alive: bool = True) -> Response:
    return Response(method, version, keep_alive)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.booleans())
@settings(deadline=None)
def test_a_body_arrives_whole(parts: list[bytes], announced: bool) -> None:
    """In one piece or many, with a length or without."""
    whole = b"".join(parts)
    headers = [(b"content-length", b"%d" % len(whole))] if announced else []
    head, body = read(respond(plain(), start(headers), *parts))
    names = [name for name, _ in head.headers]

    assert whole == body
    assert (b"content-length" in names) is (announced or len(parts) == 1)
    assert (b"transfer-encoding" in names) is not (b"content-length" in names)


@pytest.mark.parametrize("length", [[], [(b"content-length", b"3")]])
def test_head_has_no_body(length: Pairs) -> None:
    """The fields are those of the GET, and nothing follows."""
    data = respond(plain("HEAD"), start(length), b"abc")

    assert b"content-length: 3\r\n" in data
    assert data.endswith(b"\r\n\r\n")
    assert read(data, "HEAD")[1] == b""


@pytest.mark.parametrize(("status", "announced"), [(204, False), (304, True)])
def test_answers_without_a_body(status: int, announced: bool) -> None:
    """A 204 has no length either; that of a 304 is the length of what was not sent."""
    data = respond(plain(), start([(b"content-length", b"3")], status), b"abc")

    assert data.endswith(b"\r\n\r\n")
    assert (b"content-length: 3" in data) is announced
    assert b"transfer-encoding" not in data


def test_an_old_client_reads_up_to_the_end() -> None:
    """HTTP/1.0 knows no chunks; a length keeps the connection when it asked for that."""
    streamed, whole = plain(version="1.0"), plain(version="1.0")
    data = respond(streamed, start(), b"ab", b"c")

    assert data.endswith(b"connection: close\r\n\r\nabc")
    assert not streamed.keep_alive
    assert b"connection: keep-alive\r\n" in respond(whole, start(), b"abc")


def test_the_application_may_close() -> None:
    """Its `Connection: close` is said once."""
    response = plain()
    data = respond(response, start([(b"Connection", b"Close")]), b"")

    assert not response.keep_alive
    assert data.count(b"connection: close\r\n") == 1


def test_framing_and_time_are_the_servers() -> None:
    """What an application says of them is not repeated."""
    headers = [(b"transfer-encoding", b"gzip"), (b"date", b"never"), (b"keep-alive", b"x")]
    head, _ = read(respond(plain(), start(headers), b"abc"))

    assert [b"date", b"keep-alive", b"content-length"] == [name for name, _ in head.headers]
    assert dict(head.headers)[b"date"] != b"never"


@pytest.mark.parametrize(
    "pair", [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\0"), (b"x y", b"a"), (b"", b"a")]
)
def test_a_header_cannot_split_the_response(pair: tuple[bytes, bytes]) -> None:
    """A line break in a value is the application's error, and nothing is sent."""
    response = plain()
    with pytest.raises(RuntimeError):
        response.start(start([pair]), OPENING)

    assert not response.sent


@pytest.mark.parametrize("parts", [(b"ab",), (b"abcd",), (b"ab", b"cd"), (b"a", b"b")])
def test_a_body_of_another_length_is_an_error(parts: tuple[bytes, ...]) -> None:
    """More or less than was announced: the client must not take it for the whole."""
    response = plain()
    with pytest.raises(RuntimeError, match="than its content-length"):
        respond(response, start([(b"content-length", b"3")]), *parts)

    assert not response.complete


def test_the_order_of_messages() -> None:
    """Start once, then bodies up to the last one."""
    response = plain()
    with pytest.raises(RuntimeError, match="before"):
        response.body(b"", False)
    respond(response, start(), b"")
    with pytest.raises(RuntimeError, match="twice"):
        response.start(start(), OPENING)
    with pytest.raises(RuntimeError, match="complete"):
        response.body(b"", False)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_what_is_no_final_status(status: int) -> None:
    """Interim answers are the server's own."""
    with pytest.raises(RuntimeError, match=str(status)):
        opening(status)


def test_a_status_without_a_name() -> None:
    """The reason phrase is empty, the space before it is not."""
    assert respond(plain(), start(status=499), b"").startswith(b"HTTP/1.1 499 \r\n")


def test_names_are_written_in_lower_case() -> None:
    """Also when the same field was sent before."""
    pair = [(b"X-Some", b"y")]

    assert [True, True] == [
        b"\r\nx-some: y\r\n" in respond(plain(), start(pair), b"") for _ in "ab"
    ]
