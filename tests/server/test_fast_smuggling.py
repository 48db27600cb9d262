"""Requests that two parsers could read differently: a table, compared with h11's verdict.

h11 is the second opinion: what it refuses must never be served here. The same table runs over
sockets in `integration/listener/test_odd_requests.py`.
"""

import h11
import pytest

from support.listener.smuggling_table import GET, SERVED, TABLE
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.fast.body import body_of
from syncbridge_server.listener.fast.limits import Refused
from syncbridge_server.listener.fast.request import HeadParser

CONFIG = ListenerConfig(max_body_bytes=100_000, max_target_bytes=1_000)
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
    "unknown method",
    "unknown method with two lengths",
    "method in lower case",
    "an upgrade with two lengths",
    "preface of HTTP/2",
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
