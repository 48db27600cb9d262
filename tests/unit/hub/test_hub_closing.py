"""The ends of a connection: closing handshakes, broken rules, each EVENT_CLOSED exactly once."""

import pytest

from support.hub_kit import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    client_frame,
    close_payload,
    hub_harness,
)
from syncbridge_core.hub import EVENT_CLOSED, EVENT_MESSAGE, HubLimits

CLOSE_TIMEOUT = HubLimits().close_timeout


def test_ping_is_answered() -> None:
    """Section 5.5.3: a pong with the ping's payload, written within poll."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(PING, b"are you there") + client_frame(PING))

        assert harness.poll() == []
        assert peer.frames() == [(PONG, b"are you there"), (PONG, b"")]


def test_pong_inside_a_fragmented_message() -> None:
    """A ping between fragments is answered at once, before the message is whole."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(TEXT, b"a", fin=False) + client_frame(PING, b"p"))
        assert harness.poll() == []
        assert peer.frames() == [(PONG, b"p")]

        peer.send(client_frame(0, b"b"))

        assert harness.poll() == [(EVENT_MESSAGE, peer.cid, b"ab", TEXT)]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "tab closed"), (4321, "ö" * 61)])
def test_peer_closes(code: int, reason: str) -> None:
    """Section 5.5.1: the close frame is echoed, the socket closed, the peer's code reported."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(TEXT, b"bye") + client_frame(CLOSE, close_payload(code, reason)))

        assert harness.poll() == [
            (EVENT_MESSAGE, peer.cid, b"bye", TEXT),
            (EVENT_CLOSED, peer.cid, reason.encode(), code),
        ]
        assert peer.frames() == [(CLOSE, close_payload(code, reason))]
        assert peer.ended()
        assert harness.poll() == []


def test_peer_closes_without_a_code() -> None:
    """An empty close frame is echoed empty and reported as 1005."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(CLOSE))

        assert harness.closed() == [(peer.cid, b"", 1005)]
        assert peer.frames() == [(CLOSE, b"")]


def test_we_close() -> None:
    """Our close frame goes out with flush; the peer's answer ends it with our code."""
    with hub_harness() as harness:
        peer = harness.peer()
        assert harness.hub.close(peer.cid, 4009, "same device connected again")
        assert not harness.hub.close(peer.cid, 1000), "closing twice"
        assert not harness.hub.is_open(peer.cid)
        assert not harness.hub.send(peer.cid, b"too late")
        harness.hub.flush()
        assert peer.frames() == [(CLOSE, close_payload(4009, "same device connected again"))]
        assert harness.poll() == []

        peer.send(client_frame(TEXT, b"crossed") + client_frame(CLOSE, close_payload(1000)))

        assert harness.poll() == [
            (EVENT_CLOSED, peer.cid, b"same device connected again", 4009),
        ]
        assert peer.ended()


def test_both_close_at_once() -> None:
    """Crossing close frames: ours was first for us, and no second one is sent."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.close(peer.cid, 1001)
        peer.send(client_frame(CLOSE, close_payload(1000)))

        assert harness.closed() == [(peer.cid, b"", 1001)]
        assert peer.frames() == [(CLOSE, close_payload(1001))]


def test_peer_that_never_answers_a_close() -> None:
    """After close_timeout the socket is closed anyway, with our code."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.close(peer.cid, 1012, "server restarts")
        harness.hub.flush()

        assert harness.poll(CLOSE_TIMEOUT - 1) == []
        assert harness.closed(1) == [(peer.cid, b"server restarts", 1012)]
        assert peer.ended() or peer.received()


def test_peer_hangs_up_instead_of_answering() -> None:
    """The end of the stream ends the handshake; our code stands."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.close(peer.cid, 1001)
        harness.hub.flush()
        peer.socket.close()

        assert harness.closed() == [(peer.cid, b"", 1001)]


def test_abort_during_the_handshake() -> None:
    """abort() ends a connection that is closing; it is still reported once."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.close(peer.cid, 1001)

        assert harness.hub.abort(peer.cid)
        assert not harness.hub.abort(peer.cid)
        assert harness.closed() == [(peer.cid, b"", 1001)]


def test_long_reason_is_cut_at_a_character() -> None:
    """A close frame holds 123 bytes of reason; a cut never makes bad UTF-8."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.close(peer.cid, 1000, "x" + "ö" * 100)
        harness.hub.flush()

        assert peer.frames() == [(CLOSE, close_payload(1000, "x" + "ö" * 61))]


BROKEN = {
    "unmasked": (client_frame(TEXT, b"x", mask=None), 1002, "protocol error"),
    "reserved bit": (client_frame(TEXT, b"x", reserved=4), 1002, "protocol error"),
    "reserved opcode": (client_frame(11, b"x"), 1002, "protocol error"),
    "long ping": (client_frame(PING, b"x" * 126), 1002, "protocol error"),
    "stray continuation": (client_frame(0, b"x"), 1002, "protocol error"),
    "close with 1005": (client_frame(CLOSE, close_payload(1005)), 1002, "protocol error"),
    "not UTF-8": (client_frame(TEXT, b"\xff"), 1007, "text is not UTF-8"),
    "reason not UTF-8": (client_frame(CLOSE, b"\x03\xe8\xff"), 1007, "text is not UTF-8"),
    "too big": (b"\x82\xff" + (65537).to_bytes(8, "big") + b"mask", 1009, "message too big"),
}


@pytest.mark.parametrize(("frame", "code", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_rule(frame: bytes, code: int, reason: str) -> None:
    """Section 7.1.7: a close frame says why, the write side ends, and nothing more is read."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(BINARY, b"good") + frame + client_frame(TEXT, b"after"))

        assert harness.poll() == [(EVENT_MESSAGE, peer.cid, b"good", BINARY)]
        assert peer.frames() == [(CLOSE, close_payload(code, reason))]
        assert peer.ended()
        peer.send(client_frame(TEXT, b"more"))
        assert harness.poll() == []

        peer.socket.close()
        assert harness.closed() == [(peer.cid, reason.encode(), code)]
        assert harness.hub.statistics().protocol_errors == 1


def test_rule_breaker_that_stays() -> None:
    """Who keeps the socket open after an error is cut off after close_timeout."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(3))
        assert harness.poll() == []
        peer.send(b"y" * 1000)

        assert harness.poll(CLOSE_TIMEOUT - 1) == []
        assert harness.closed(1) == [(peer.cid, b"protocol error", 1002)]


def test_broken_rule_while_we_close() -> None:
    """Garbage instead of an answer ends the connection with our code."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.close(peer.cid, 1001)
        harness.hub.flush()
        peer.send(client_frame(3))

        assert harness.closed() == [(peer.cid, b"", 1001)]


def test_error_in_initial_bytes() -> None:
    """Bytes that came with the handshake are held to the same rules."""
    with hub_harness() as harness:
        peer = harness.peer(initial=client_frame(TEXT, b"ok") + client_frame(3))

        assert harness.poll() == [(EVENT_MESSAGE, peer.cid, b"ok", TEXT)]
        assert peer.frames() == [(CLOSE, close_payload(1002, "protocol error"))]


def test_peer_closes_behind_a_full_socket() -> None:
    """The echo waits until the peer has read; then the connection ends, without a busy loop."""
    with hub_harness() as harness:
        peer = harness.peer(send_buffer=4096)
        while harness.hub.queued(peer.cid) == 0:
            harness.hub.send(peer.cid, b"f" * 900)
            harness.hub.flush()
        peer.send(client_frame(CLOSE, close_payload(1000)) + client_frame(TEXT, b"ignored"))
        assert harness.poll() == []
        peer.send(b"more bytes that nobody reads")
        received = harness.hub.statistics().bytes_in
        assert harness.poll() == []
        assert harness.hub.statistics().bytes_in == received

        closed: list[tuple[int, bytes, int]] = []
        while not closed:
            assert peer.received() != b""
            closed = harness.closed()

        assert closed == [(peer.cid, b"", 1000)]


def test_peer_closes_and_never_reads() -> None:
    """A close behind a full socket is given up after close_timeout."""
    with hub_harness() as harness:
        peer = harness.peer(send_buffer=4096)
        while harness.hub.queued(peer.cid) == 0:
            harness.hub.send(peer.cid, b"f" * 900)
            harness.hub.flush()
        peer.send(client_frame(CLOSE, close_payload(1000)))

        assert harness.poll() == []
        assert harness.closed(CLOSE_TIMEOUT) == [(peer.cid, b"", 1000)]
