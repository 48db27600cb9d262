"""The first bytes decide: which stack, the same for every split, and never too early."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_server.listener.sniff import SniffResult, sniff

LIMIT = 1024
PLAIN = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def verdict(data: bytes) -> SniffResult:
    return sniff(data, b"/ws", LIMIT)[0]


def test_a_plain_upgrade_is_native_and_keeps_what_follows() -> None:
    """A well-formed upgrade at the path is native; bytes after its head are handed on."""
    kind, request, rest = sniff(PLAIN + b"\x81\x80", b"/ws", LIMIT)

    assert kind is SniffResult.NATIVE_UPGRADE
    assert request is not None
    assert (b"/ws", b"", b"\x81\x80") == (request.path, request.query, rest)


def test_a_query_is_taken_apart() -> None:
    """The query string is not part of the path."""
    _, request, _ = sniff(PLAIN.replace(b"/ws ", b"/ws?v=1 "), b"/ws", LIMIT)

    assert request is not None
    assert (b"/ws", b"v=1") == (request.path, request.query)


@pytest.mark.parametrize(
    "data",
    [
        b"POST /ws HTTP/1.1\r\n",
        b"GET /wsx",
        b"GET /ws/",
        b"GET /health",
        b"get /ws",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00",
        b"\x15",
        b"GET /ws HTTP/1.1\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"Host: a\r\n", b""),
        PLAIN.replace(b"Host: a", b"Host: a\r\nHost: b"),
        PLAIN.replace(b"Host: a", b"Host: a\r\n folded"),
        PLAIN.replace(b"Host: a", b"Host : a"),
        PLAIN.replace(b"Host: a", b"Host: a\x00"),
        PLAIN.replace(b"Host: a", b"Host: a\rb"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nContent-Length: 1"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked"),
        PLAIN.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        PLAIN.replace(b"/ws HTTP", b"/ws#x HTTP"),
        PLAIN.replace(b"/ws HTTP", b"/ws  HTTP"),
    ],
)
def test_everything_unusual_goes_to_the_general_stack(data: bytes) -> None:
    """Other requests, other versions, and heads that parsers disagree about are HTTP."""
    assert SniffResult.HTTP is verdict(data)


def test_a_tls_record_is_told_by_its_first_byte() -> None:
    """0x16 is a TLS handshake record, whatever follows."""
    assert [SniffResult.TLS] * 2 == [verdict(b"\x16"), verdict(b"\x16\x03\x01\x02\x00")]


def test_a_head_above_the_bound_is_too_large() -> None:
    """An endless head is told at the bound, a head that just fits is taken."""
    endless = PLAIN[:-2] + b"X: " + b"a" * LIMIT
    fitting = PLAIN[:-2] + b"X: " + b"a" * (LIMIT - len(PLAIN) - 5) + b"\r\n\r\n"

    assert LIMIT == len(fitting)
    assert SniffResult.TOO_LARGE is verdict(endless[:LIMIT])
    assert SniffResult.NATIVE_UPGRADE is verdict(fitting)
    assert SniffResult.TOO_LARGE is verdict(fitting.replace(b"X: ", b"X: a") + b"more")


@given(
    st.one_of(
        st.just(PLAIN),
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda tail: PLAIN[:40] + tail),
        st.binary(max_size=30).map(lambda tail: b"GET /ws" + tail),
        st.sampled_from([PLAIN.replace(b"\r", b"", 1), PLAIN + b"x", PLAIN[:-1] + b"\r\n"]),
        st.integers(800, 1300).map(lambda size: PLAIN[:-2] + b"X: " + b"a" * size + b"\r\n\r\n"),
    )
)
@settings(deadline=None)
def test_a_verdict_is_final(data: bytes) -> None:
    """Byte after byte, the first verdict that is not NEED_MORE stays the verdict for all."""
    verdicts = [verdict(data[:end]) for end in range(1, len(data) + 1)]
    final = [kind for kind in verdicts if kind is not SniffResult.NEED_MORE]

    assert len(set(final)) <= 1
    assert all(kind is not SniffResult.NEED_MORE for kind in verdicts[len(verdicts) - len(final) :])


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_make_it_fail(data: bytes) -> None:
    """Any bytes get a verdict, also inside a head."""
    sniff(data, b"/ws", LIMIT)
    sniff(b"GET /ws HTTP/1.1\r\n" + data + b"\r\n\r\n", b"/ws", LIMIT)
