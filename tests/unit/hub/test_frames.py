"""The frame parser, rule by rule of RFC 6455, and the serialiser."""

import pytest

from support.hub_kit import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    client_frame,
    close_payload,
    server_frames,
)
from syncbridge_core.frames import FrameParser, encode_frame

CONTINUATION = 0


def parse(data: bytes, max_message: int = 65536) -> list[tuple[str, int, bytes]]:
    """All events of a stream given in one piece."""
    return FrameParser(max_message).feed(data)


def failure(code: int) -> list[tuple[str, int, bytes]]:
    """The event of a stream that breaks a rule at once."""
    return [("failed", code, b"")]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 125, 126, 127, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_of_any_length_form(opcode: int, size: int) -> None:
    """Sections 5.2 and 5.3: each of the three length forms is read, and the mask removed."""
    payload = bytes(32 + at % 90 for at in range(size))

    assert [("message", opcode, payload)] == parse(client_frame(opcode, payload))


def test_messages_follow_each_other() -> None:
    """Two messages and a ping in one read are three events in their order."""
    stream = client_frame(TEXT, b"a") + client_frame(PING, b"p") + client_frame(BINARY, b"\xff")

    assert parse(stream) == [("message", TEXT, b"a"), ("ping", 0, b"p"), ("message", 2, b"\xff")]


def test_unmasked_frame_is_refused() -> None:
    """Section 5.1: a server closes when a client does not mask."""
    assert parse(client_frame(TEXT, b"x", mask=None)) == failure(1002)


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, PING])
def test_reserved_bits_are_refused(opcode: int, reserved: int) -> None:
    """Section 5.2: RSV1 to RSV3 are zero when no extension was negotiated."""
    assert parse(client_frame(opcode, b"x", reserved=reserved)) == failure(1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_refused(opcode: int) -> None:
    """Section 5.2: unknown opcodes fail the connection."""
    assert parse(client_frame(opcode, b"x")) == failure(1002)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frame_is_short(opcode: int) -> None:
    """Section 5.5: a control frame has at most 125 bytes, also when the long form says so."""
    assert parse(client_frame(opcode, b"x" * 126)) == failure(1002)
    assert parse(client_frame(opcode, b"\x03\xe8", length_bytes=2)) == failure(1002)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frame_is_not_fragmented(opcode: int) -> None:
    """Section 5.5: FIN is set on every control frame."""
    assert parse(client_frame(opcode, b"\x03\xe8", fin=False)) == failure(1002)


def test_control_frame_of_125_bytes() -> None:
    """The longest control frame is accepted."""
    assert parse(client_frame(PONG, b"p" * 125)) == [("pong", 0, b"p" * 125)]


@pytest.mark.parametrize(("size", "length_bytes"), [(0, 2), (125, 2), (0, 8), (126, 8), (65535, 8)])
def test_length_must_be_in_its_shortest_form(size: int, length_bytes: int) -> None:
    """Section 5.2: the minimal number of bytes encodes the length."""
    frame = client_frame(BINARY, b"x" * size, length_bytes=length_bytes)

    assert parse(frame) == failure(1002)


def test_top_bit_of_a_long_length_is_zero() -> None:
    """Section 5.2: the most significant bit of the 64-bit length must be 0."""
    assert parse(b"\x82\xff\x80" + bytes(7) + b"mask") == failure(1002)


def test_fragments_become_one_message() -> None:
    """Section 5.4: the message is the concatenation, its opcode that of the first frame."""
    stream = (
        client_frame(TEXT, b"one ", fin=False)
        + client_frame(CONTINUATION, b"", fin=False)
        + client_frame(CONTINUATION, b"two", fin=True)
    )

    assert parse(stream) == [("message", TEXT, b"one two")]


def test_control_frames_between_fragments() -> None:
    """Section 5.4: control frames may come in the middle of a message and do not touch it."""
    stream = (
        client_frame(BINARY, b"one ", fin=False)
        + client_frame(PING, b"hello")
        + client_frame(CONTINUATION, b"two", fin=False)
        + client_frame(PONG)
        + client_frame(CONTINUATION)
    )

    assert parse(stream) == [
        ("ping", 0, b"hello"),
        ("pong", 0, b""),
        ("message", BINARY, b"one two"),
    ]


def test_message_of_empty_fragments() -> None:
    """A message whose fragments are all empty is an empty message."""
    stream = client_frame(TEXT, fin=False) + client_frame(CONTINUATION)

    assert parse(stream) == [("message", TEXT, b"")]


def test_continuation_without_a_message() -> None:
    """Section 5.4: there must be something to continue, also after a finished message."""
    assert parse(client_frame(CONTINUATION, b"x")) == failure(1002)
    stream = client_frame(TEXT, b"a") + client_frame(CONTINUATION, b"x")
    assert parse(stream)[1:] == failure(1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_new_message_inside_a_message(opcode: int) -> None:
    """Section 5.4: fragments of two messages are not interleaved."""
    stream = client_frame(TEXT, b"a", fin=False) + client_frame(opcode, b"b")

    assert parse(stream) == failure(1002)


GOOD_TEXTS = ["", "ascii", "ö", "߿", "ࠀ", "퟿", "\ue000", "�", "\U00010000", "\U0010ffff", "\0"]
BAD_TEXTS = {
    "continuation alone": b"\x80",
    "overlong two": b"\xc0\xaf",
    "overlong two, last": b"\xc1\xbf",
    "overlong three": b"\xe0\x9f\xbf",
    "overlong four": b"\xf0\x8f\xbf\xbf",
    "surrogate": b"\xed\xa0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "no such lead": b"\xf5\x80\x80\x80",
    "never a byte": b"\xff",
    "lead then ascii": b"\xc3a",
    "cut in three": b"\xe2\x82",
    "cut in four": b"\xf0\x9f\x98",
}


@pytest.mark.parametrize("text", GOOD_TEXTS)
@pytest.mark.parametrize("before", [0, 7, 8, 15])
def test_utf8_text(text: str, before: int) -> None:
    """Section 8.1: every code point is accepted, wherever it stands beside the 8-byte steps."""
    payload = b"a" * before + text.encode() + b"b" * 9

    assert parse(client_frame(TEXT, payload)) == [("message", TEXT, payload)]


@pytest.mark.parametrize("bad", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
@pytest.mark.parametrize("before", [0, 7, 8])
def test_text_that_is_not_utf8(bad: bytes, before: int) -> None:
    """Section 8.1: such a text fails with 1007; as binary it is fine."""
    payload = b"a" * before + bad

    assert parse(client_frame(TEXT, payload)) == failure(1007)
    assert parse(client_frame(BINARY, payload)) == [("message", BINARY, payload)]


def test_character_across_fragments() -> None:
    """A character may be cut by a fragment boundary, but not by the end of the message."""
    euro = "€".encode()
    first = client_frame(TEXT, euro[:1], fin=False)

    good = parse(first + client_frame(CONTINUATION, euro[1:]))
    assert good == [("message", TEXT, euro)]
    assert parse(first + client_frame(CONTINUATION, euro[1:2])) == failure(1007)


def test_bad_text_fails_before_the_message_ends() -> None:
    """Fail fast: the first impossible byte is enough, though the frame announced more."""
    frame = client_frame(TEXT, b"ok\xff" + b"x" * 1000)

    assert parse(frame[:11]) == failure(1007)


@pytest.mark.parametrize(
    "code",
    [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999],
)
def test_close_codes_that_may_be_sent(code: int) -> None:
    """Section 7.4: the registered and private codes are passed on with their reason."""
    frame = client_frame(CLOSE, close_payload(code, "bye ö"))

    assert parse(frame) == [("close", code, "bye ö".encode())]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    """Section 7.4: reserved and unassigned codes are a protocol error."""
    assert parse(client_frame(CLOSE, close_payload(code))) == failure(1002)


def test_close_frame_bodies() -> None:
    """Section 5.5.1: an empty body means 1005; one byte is an error; the reason is UTF-8."""
    assert parse(client_frame(CLOSE)) == [("close", 1005, b"")]
    assert parse(client_frame(CLOSE, b"\x03")) == failure(1002)
    assert parse(client_frame(CLOSE, b"\x03\xe8\xff")) == failure(1007)
    assert parse(client_frame(CLOSE, b"\x03\xe8\xe2\x82")) == failure(1007)


def test_nothing_after_a_close_frame_counts() -> None:
    """Section 5.5.1: what follows a close frame, in this read or a later one, is ignored."""
    parser = FrameParser()

    first = parser.feed(client_frame(CLOSE) + client_frame(TEXT, b"late"))
    later = parser.feed(client_frame(TEXT, b"later") + b"\xff")

    assert (first, later) == ([("close", 1005, b"")], [])


def test_nothing_after_a_failure_counts() -> None:
    """Section 7.1.7: after a failure no more data is processed."""
    parser = FrameParser()

    assert parser.feed(client_frame(3) + client_frame(TEXT, b"x")) == failure(1002)
    assert parser.feed(client_frame(TEXT, b"x")) == []


def test_message_at_the_limit() -> None:
    """A message of exactly the limit is fine, in one frame and in several."""
    fragments = client_frame(TEXT, b"x" * 60, fin=False) + client_frame(CONTINUATION, b"x" * 40)

    assert parse(client_frame(TEXT, b"x" * 100), 100) == [("message", TEXT, b"x" * 100)]
    assert parse(fragments, 100) == [("message", TEXT, b"x" * 100)]


@pytest.mark.parametrize("announced", [101, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 62])
def test_too_long_frame_fails_at_its_header(announced: int) -> None:
    """1009 comes with the header, before any payload."""
    length = (
        bytes([0x80 | announced]) if announced < 126 else b"\xff" + announced.to_bytes(8, "big")
    )

    assert parse(b"\x82" + length + b"mask", 100) == failure(1009)


def test_too_long_sum_of_fragments_fails_at_the_header() -> None:
    """The limit counts over fragments, and an interleaved ping is not part of the sum."""
    stream = (
        client_frame(TEXT, b"x" * 60, fin=False)
        + client_frame(PING, b"p" * 100)
        + client_frame(CONTINUATION, b"x" * 41)[:6]
    )

    assert parse(stream, 100) == [("ping", 0, b"p" * 100), *failure(1009)]


def test_announced_length_costs_no_memory() -> None:
    """Only bytes that came are kept, whatever the header promises."""
    parser = FrameParser(1 << 30)

    parser.feed(b"\x82\xff" + (1 << 29).to_bytes(8, "big") + b"mask" + b"x" * 10)

    assert parser.held == 10


@pytest.mark.parametrize("max_message", [0, -1, 1 << 31])
def test_limit_of_the_parser_is_checked(max_message: int) -> None:
    """The message limit must fit the parser's counters."""
    with pytest.raises(ValueError, match="max_message"):
        FrameParser(max_message)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_encoded_frame(size: int) -> None:
    """Server frames are final, unmasked, and have the shortest header."""
    payload = bytes(size)
    header = 2 if size < 126 else 4 if size < 65536 else 10

    frame = encode_frame(BINARY, payload)

    assert server_frames(frame) == [(BINARY, payload)]
    assert len(frame) == header + size
