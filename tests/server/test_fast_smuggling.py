"""Requests that two parsers could read differently: a table, compared with h11's verdict.

A row gives the bytes of one request and what the engine says of it: 200, or the status of the
refusal. h11 is the second opinion: what it refuses must never be served here.
"""

import h11
import pytest

from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.fast.body import body_of
from syncbridge_server.listener.fast.limits import Refused
from syncbridge_server.listener.fast.request import HeadParser, UnknownMethod

CONFIG = ListenerConfig(max_body_bytes=100_000, max_target_bytes=1_000)
SERVED = 200
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

TABLE: dict[str, tuple[int, bytes]] = {
    # One request that is as it should be, for each kind.
    "plain": (200, GET + b"\r\n"),
    "body by length": (200, POST + b"Content-Length: 3\r\n\r\nabc"),
    "body in chunks": (200, CHUNKED + b"3\r\nabc\r\n" + LAST),
    "chunks, upper case": (200, CHUNKED + b"A\r\n0123456789\r\n" + LAST),
    "spaces around a value": (200, GET + b"X:\t  y \t\r\n\r\n"),
    "empty value": (200, GET + b"X:\r\n\r\n"),
    "bytes above ASCII in a value": (200, GET + b"X: \xc3\xa9\r\n\r\n"),
    "HTTP/1.0 without Host": (200, b"GET / HTTP/1.0\r\n\r\n"),
    # Two lengths.
    "length and chunks": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    "same length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    # Lengths that are read differently.
    "signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "length with underscore": (400, POST + b"Content-Length: 1_0\r\n\r\n"),
    "empty length": (400, POST + b"Content-Length:\r\n\r\n"),
    "length with a space": (400, POST + b"Content-Length: 3 3\r\n\r\n"),
    "fraction as length": (400, POST + b"Content-Length: 3.0\r\n\r\n"),
    "length above 64 bit": (400, POST + b"Content-Length: 99999999999999999999999\r\n\r\n"),
    "length above the bound": (413, POST + b"Content-Length: 100001\r\n\r\n"),
    # Codings.
    "coding that is not chunked": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "chunked before another": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    "another before chunked": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "almost chunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "quoted chunked": (400, POST + b'Transfer-Encoding: "chunked"\r\n\r\n'),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + LAST),
    "vertical tab before chunked": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + LAST),
    "chunks in HTTP/1.0": (
        400,
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    ),
    # Lines.
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF between fields": (400, GET + b"X: y\nContent-Length: 3\r\n\r\n"),
    "bare LF at the end": (400, GET[:-2] + b"\n\r\n\r\n"),
    "bare CR in a value": (400, GET + b"X: y\rZ: z\r\n\r\n"),
    "folded line, space": (400, GET + b"X: y\r\n z\r\n\r\n"),
    "folded line, tab": (400, GET + b"X: y\r\n\tz\r\n\r\n"),
    "folded length": (400, POST + b"Content-Length:\r\n 3\r\n\r\nabc"),
    "space before the first field": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "NUL in a value": (400, GET + b"X: y\0z\r\n\r\n"),
    "control character in a value": (400, GET + b"X: y\x01\r\n\r\n"),
    "DEL in a value": (400, GET + b"X: y\x7f\r\n\r\n"),
    # Names.
    "space before the colon": (400, POST + b"Content-Length : 3\r\n\r\nabc"),
    "tab before the colon": (400, POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + LAST),
    "no name": (400, GET + b": y\r\n\r\n"),
    "no colon": (400, GET + b"X\r\n\r\n"),
    "byte above ASCII in a name": (400, GET + b"\xc3\xa9: y\r\n\r\n"),
    "parenthesis in a name": (400, GET + b"X(: y\r\n\r\n"),
    # Request line.
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "tab as separator": (400, b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "space at the end": (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    "no version": (400, b"GET /\r\nHost: a\r\n\r\n"),
    "space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "byte above ASCII in the target": (400, b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment in the target": (400, b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "lower case version": (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    "version 2": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "version 0.9": (505, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    "version 1.2": (400, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "target above the bound": (414, b"GET /" + b"a" * 1_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    # Whom the request is for.
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, GET + b"Host: b\r\n\r\n"),
    "list as Host": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "path in Host": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "user in Host": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "absolute-form": (200, b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n"),
    "absolute-form with a user": (400, b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "absolute-form without a host": (400, b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    "absolute-form of another scheme": (400, b"GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "asterisk-form": (200, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "asterisk-form of another method": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "authority-form": (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "relative target": (400, b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    # Chunks.
    "chunk extension": (200, CHUNKED + b"3;a=b\r\nabc\r\n" + LAST),
    "long chunk extension": (400, CHUNKED + b"3;" + b"a" * 300 + b"\r\nabc\r\n" + LAST),
    "many chunk extensions": (400, CHUNKED + (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 30 + LAST),
    "space before a chunk extension": (400, CHUNKED + b"3 ;a\r\nabc\r\n" + LAST),
    "space after a chunk size": (400, CHUNKED + b"3 \r\nabc\r\n" + LAST),
    "control character in an extension": (400, CHUNKED + b"3;\x01\r\nabc\r\n" + LAST),
    "bare LF after a chunk size": (400, CHUNKED + b"3\nabc\r\n" + LAST),
    "bare CR in a chunk extension": (400, CHUNKED + b"3;a\rb\r\nabc\r\n" + LAST),
    "bare LF after a chunk": (400, CHUNKED + b"3\r\nabc\n" + LAST),
    "chunk longer than its size": (400, CHUNKED + b"3\r\nabcd\r\n" + LAST),
    "signed chunk size": (400, CHUNKED + b"+3\r\nabc\r\n" + LAST),
    "prefixed chunk size": (400, CHUNKED + b"0x3\r\nabc\r\n" + LAST),
    "empty chunk size": (400, CHUNKED + b"\r\nabc\r\n" + LAST),
    "chunk size above 64 bit": (400, CHUNKED + b"1" + b"0" * 20 + b"\r\n"),
    "chunk above the bound": (413, CHUNKED + b"fffffff\r\n"),
    "trailer": (200, CHUNKED + b"0\r\nX: y\r\n\r\n"),
    "folded trailer": (400, CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n"),
    "bare LF in a trailer": (400, CHUNKED + b"0\r\nX: y\n\r\n"),
    "trailer that is none": (400, CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    "trailers above the bound": (400, CHUNKED + b"0\r\n" + b"X: y\r\n" * 2_000 + b"\r\n"),
    # Expectations.
    "unknown expectation": (417, POST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc"),
}

STRICTER = {
    "same length twice",
    "list of lengths",
    "chunks in HTTP/1.0",
    "bare LF after the request line",
    "bare LF at the end",
    "folded line, space",
    "folded line, tab",
    "folded length",
    "control character in a value",
    "DEL in a value",
    "fragment in the target",
    "version 2",
    "version 0.9",
    "version 1.2",
    "target above the bound",
    "list as Host",
    "path in Host",
    "user in Host",
    "absolute-form with a user",
    "absolute-form without a host",
    "absolute-form of another scheme",
    "asterisk-form of another method",
    "authority-form",
    "relative target",
    "long chunk extension",
    "many chunk extensions",
    "space after a chunk size",
    "control character in an extension",
    "bare CR in a chunk extension",
    "folded trailer",
    "bare LF in a trailer",
    "trailers above the bound",
    "unknown expectation",
}
"""What h11 serves and the engine does not: a change here is a decision."""


def verdict(data: bytes, config: ListenerConfig = CONFIG) -> int:
    """What the engine says of one whole request, whose end must be the end of `data`."""
    head, _, rest = data.partition(b"\r\n\r\n")
    try:
        request = HeadParser(config).parse(head + b"\r\n\r\n")
        body = body_of(request.length, config.max_body_bytes)
        body.feed(rest)
    except Refused as refused:
        return refused.refusal.status
    assert body.complete, "the table has whole requests"
    assert body.rest == b""
    return SERVED


def h11_serves(data: bytes) -> bool:
    """Whether h11 reads one request from its first to its last byte."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        while type(event := connection.next_event()) is not h11.EndOfMessage:
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return False
    except h11.RemoteProtocolError:
        return False
    return True


@pytest.mark.parametrize("name", TABLE)
def test_the_verdict(name: str) -> None:
    """Each request is served, or refused with the status of the table."""
    status, data = TABLE[name]

    assert status == verdict(data)


@pytest.mark.parametrize("name", TABLE)
def test_what_h11_refuses_is_not_served(name: str) -> None:
    """The engine is never the laxer one of the two."""
    status, data = TABLE[name]

    assert status != SERVED or h11_serves(data)


def test_where_the_engine_is_stricter() -> None:
    """The two disagree in exactly the named rows."""
    refused = {name: data for name, (status, data) in TABLE.items() if status != SERVED}

    assert {name for name, data in refused.items() if h11_serves(data)} == STRICTER


def test_an_absolute_target_overrules_the_host() -> None:
    """RFC 9112 section 3.2.2: the received Host is ignored, and the application sees one."""
    request = HeadParser(CONFIG).parse(TABLE["absolute-form"][1])

    assert (b"/x?y", [(b"host", b"b")]) == (request.target, request.headers)


def test_an_unknown_method_is_for_somebody_else() -> None:
    """llhttp knows a fixed set of methods; a well-formed request with another is not refused."""
    with pytest.raises(UnknownMethod):
        HeadParser(CONFIG).parse(b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_too_many_fields() -> None:
    """One field above the bound is 431."""
    config = ListenerConfig(max_header_count=3)
    fields = [b"X: y\r\n" * count for count in (2, 3)]

    assert [200, 431] == [verdict(GET + some + b"\r\n", config) for some in fields]


def test_a_head_above_the_bound() -> None:
    """One byte above the bound is 431."""
    size = len(GET + b"\r\n")
    configs = [ListenerConfig(max_header_bytes=size - short) for short in (0, 1)]

    assert [200, 431] == [verdict(GET + b"\r\n", config) for config in configs]


def test_a_parser_that_has_served_judges_as_before() -> None:
    """Nothing of one request is left for the next one of its connection."""
    parser = HeadParser(CONFIG)
    heads = [TABLE[name][1] for name in ("plain", "empty value", "plain", "HTTP/1.0 without Host")]

    assert [HeadParser(CONFIG).parse(head) for head in heads] == [
        parser.parse(head) for head in heads
    ]
