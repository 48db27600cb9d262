"""Which offers of permessage-deflate are accepted, and with which answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_server.listener.compression import choose_compression
from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.response import agreement_headers
from syncbridge_server.listener.upgrade import Agreement, UpgradeRequest, collect, negotiate

PLAIN = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
WINDOW = PLAIN + b"; server_max_window_bits=12"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (b"permessage-deflate", PLAIN),
        (b"permessage-deflate; client_max_window_bits", PLAIN),
        (b"permessage-deflate; client_max_window_bits=8", PLAIN),
        (b'permessage-deflate; client_max_window_bits="15"', PLAIN),
        (b'permessage-deflate; client_max_window_bits="1\\5"', PLAIN),
        (b"permessage-deflate;server_no_context_takeover;client_no_context_takeover", PLAIN),
        (b"permessage-deflate ; server_max_window_bits = 12", WINDOW),
        (b"permessage-deflate; server_max_window_bits=15; client_max_window_bits=15", WINDOW),
    ],
)
def test_offers_that_are_accepted(offer: bytes, answer: bytes) -> None:
    """Both `no_context_takeover` are always answered, our window only to a client that asked."""
    assert answer == choose_compression(offer)


@pytest.mark.parametrize(
    "offer",
    [
        b"",
        b"x-webkit-deflate-frame",
        b"permessage-bzip2",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; server_max_window_bits=11",
        b"permessage-deflate; server_max_window_bits=8",
        b"permessage-deflate; server_max_window_bits=7",
        b"permessage-deflate; server_max_window_bits=16",
        b"permessage-deflate; server_max_window_bits=012",
        b"permessage-deflate; client_max_window_bits=7",
        b"permessage-deflate; client_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits=15x",
        b"permessage-deflate; client_max_window_bits=150",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; client_no_context_takeover=true",
        b"permessage-deflate; client_max_window_bits; client_max_window_bits",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        b"permessage-deflate; mystery",
        b"permessage-deflate; server_max_window_bits=12; mystery=1",
    ],
)
def test_offers_that_are_declined(offer: bytes) -> None:
    """RFC 7692 section 7.1: unknown, repeated, or out of range, or a window that is too small."""
    assert choose_compression(offer) is None


def test_the_first_offer_that_can_be_kept_is_taken() -> None:
    """A client lists fallbacks, best first."""
    offers = (
        b"x-other, permessage-deflate; server_max_window_bits=9,"
        b" permessage-deflate; server_max_window_bits=13, permessage-deflate"
    )

    assert WINDOW == choose_compression(offers)


@pytest.mark.parametrize(
    "header",
    [
        b";",
        b"a b",
        b"a;",
        b"a; =1",
        b"a; b=",
        b"a=1",
        b'a; b="',
        b'a; b=""',
        b"a; b=c d",
        b'a; b="c,d"',
    ],
)
def test_a_header_outside_the_grammar_fails_the_handshake(header: bytes) -> None:
    """RFC 6455 section 9.1: malformed data here fails the connection; the answer is 400."""
    with pytest.raises(ValueError, match="malformed"):
        choose_compression(header)
    verdict = judge(header)
    assert isinstance(verdict, Refusal)
    assert (400, "bad_handshake") == (verdict.status, verdict.code)


def judge(header: bytes, compression: bool = True) -> Agreement | Refusal:
    headers = collect(
        [
            (b"Host", b"a"),
            (b"Sec-WebSocket-Version", b"13"),
            *((b"Sec-WebSocket-Extensions", part) for part in header.split(b"|")),
        ]
    )
    config = ListenerConfig(compression=compression)
    return negotiate(UpgradeRequest(b"/ws", b"", headers, http2=True), config)


def test_offers_in_several_headers_are_one_list() -> None:
    """RFC 6455 section 11.3.2 allows the header more than once."""
    verdict = judge(b"x-other|permessage-deflate")

    assert isinstance(verdict, Agreement)
    assert PLAIN == verdict.compression
    assert (b"sec-websocket-extensions", PLAIN) in agreement_headers(verdict)


def test_it_can_be_switched_off() -> None:
    """Without compression the offer is declined, and the answer names no extension."""
    verdict = judge(b"permessage-deflate", compression=False)

    assert isinstance(verdict, Agreement)
    assert b"sec-websocket-extensions" not in dict(agreement_headers(verdict))


@settings(deadline=None)
@given(st.text(alphabet='permessage-deflate;,= "\\15server_max_window_bits', max_size=80))
def test_any_header_is_judged(header: str) -> None:
    """Whatever stands there: an answer, none, or a refusal."""
    try:
        answer = choose_compression(header.encode())
    except ValueError:
        answer = None
    assert answer in (None, PLAIN, WINDOW)
