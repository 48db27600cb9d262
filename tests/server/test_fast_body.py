"""Request bodies, taken apart from any bytes in any split."""

from collections.abc import Sequence
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.fast.body import ChunkedBody, LengthBody, body_of
from syncbridge_server.listener.fast.guard import HEAD_END, judge_part
from syncbridge_server.listener.fast.limits import CHUNKS, Refused
from syncbridge_server.listener.fast.request import CHUNKED, HeadParser

BOUND = 10_000
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = [
    b"0",
    b"3",
    b"a",
    b"\r",
    b"\n",
    b"\r\n",
    b"0\r\n\r\n",
    b";",
    b";x=y",
    b" ",
    b"X: y",
    b"\0",
]

pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
hostile = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=20).map(b"".join)
cuts = st.lists(st.integers(0, 400), max_size=10)


def split(data: bytes, at: Sequence[int]) -> list[bytes]:
    """`data` cut at those offsets."""
    edges = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def decode(data: bytes, at: Sequence[int] = ()) -> tuple[bytes, bytes] | int | None:
    """Body and rest; the status of a refusal; None when it is not complete."""
    body = ChunkedBody(BOUND)
    decoded, parts = b"", split(data, at)
    try:
        for index, part in enumerate(parts):
            decoded += body.feed(part)
            if body.complete:
                return decoded, body.rest + b"".join(parts[index + 1 :])
    except Refused as refused:
        return refused.refusal.status
    return None


def by_h11(data: bytes) -> bytes | None:
    """The body as h11 reads it, when it does."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD + data)
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif event is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None


def encoded(parts: list[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return chunks + b"0\r\n\r\n"


@given(pieces, st.binary(max_size=30), cuts)
@settings(deadline=None)
def test_what_was_put_in_comes_out(parts: list[bytes], after: bytes, at: list[int]) -> None:
    """Whatever the split, the body is whole and the bytes after it are untouched."""
    assert (b"".join(parts), after) == decode(encoded(parts) + after, at)


@given(hostile, cuts)
@settings(deadline=None, max_examples=500)
@example(b"1\r\na\r\n0\r\n\r\n", [4])
def test_the_split_decides_nothing(data: bytes, at: list[int]) -> None:
    """Bytes get one verdict, however they arrive."""
    assert decode(data) == decode(data, at)


@given(hostile)
@settings(deadline=None, max_examples=500)
def test_what_is_read_is_read_like_h11(data: bytes) -> None:
    """A body that is accepted has the bytes that h11 finds in it."""
    result = decode(data)
    if isinstance(result, tuple):
        assert by_h11(data) == result[0]


@given(st.binary(max_size=60), st.integers(0, 40), cuts)
@settings(deadline=None)
def test_an_announced_length_is_kept(data: bytes, length: int, at: list[int]) -> None:
    """So many bytes belong to the body, the others to whatever comes next."""
    body = LengthBody(length)
    decoded, rest = b"", b""
    for part in split(data, at):
        if body.complete:
            rest += part
        else:
            decoded += body.feed(part)

    assert (data[:length], data[length:]) == (decoded, body.rest + rest)
    assert body.complete is (len(data) >= length)


def test_tiny_chunks_are_bounded() -> None:
    """Chunks of one byte cost much more than their bytes, so there is a number of them."""
    body = ChunkedBody(10 * CHUNKS)
    with pytest.raises(Refused):
        body.feed(b"1\r\nx\r\n" * CHUNKS)


@pytest.mark.parametrize(("size", "status"), [(BOUND, None), (BOUND + 1, 413)])
def test_the_bound_counts_all_chunks(size: int, status: int | None) -> None:
    """413 with the first chunk that goes above it, before its data has come."""
    first = b"a\r\n0123456789\r\n"

    assert decode(first + b"%x\r\n" % (size - 10)) == status


def refused(data: bytes, config: ListenerConfig) -> Refusal | None:
    """How the beginning of a connection is judged, by its parts and then whole."""
    head, end, _ = data.partition(HEAD_END)
    if not end:
        return judge_part(data, config)
    try:
        request = HeadParser(config).parse(head + end)
        body_of(request.length, config.max_body_bytes)
    except Refused as error:
        return error.refusal
    return None


WORDS = [b"GET", b"POST", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b":", b"Host: a\r\n"]
WORDS += [b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"\n", b"\0", b"\xff", b"x"]
heads = st.lists(st.sampled_from(WORDS) | st.binary(max_size=4), max_size=16).map(b"".join)


@given(heads)
@settings(deadline=None, max_examples=1_000)
def test_any_bytes_are_served_or_refused(data: bytes) -> None:
    """The parser ends in a request or a refusal, never in another error."""
    refusal = refused(data, ListenerConfig(max_header_bytes=200))

    assert refusal is None or 400 <= refusal.status <= 505


@given(heads)
@settings(deadline=None, max_examples=500)
def test_a_refused_part_would_never_have_become_a_request(data: bytes) -> None:
    """Refusing early takes nothing from anybody: the whole would have been refused as well."""
    config = ListenerConfig(max_header_bytes=200)
    whole, end, _ = data.partition(HEAD_END)
    if end and any(
        judge_part(whole[:size], config)
        for size in range(1, len(whole))
        if not whole[:size].endswith(b"\r")
    ):
        assert refused(whole + end, config) is not None


def test_the_kind_of_body() -> None:
    """The head's word decides between length and chunks."""
    assert [LengthBody, ChunkedBody] == [type(body_of(length, 5)) for length in (3, CHUNKED)]
