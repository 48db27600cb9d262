"""Compression of single messages: the examples of RFC 7692, independence, and the bounds."""

import zlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_core.deflate import TAIL, WINDOW_BITS, Deflater, InflateError, inflate

LIMIT = 65_536


def packed(data: bytes, level: int = 9, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """A message as another implementation would compress it."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    whole = stream.compress(data) + stream.flush(flush)
    return whole.removesuffix(TAIL) if flush == zlib.Z_SYNC_FLUSH else whole


def failure(data: bytes, limit: int = LIMIT, text: bool = True) -> int:
    """The close code of a message that cannot be used."""
    with pytest.raises(InflateError) as caught:
        inflate(data, limit, text)
    return caught.value.code


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("f248cdc9c90700", id="one block, 7.2.3.1"),
        pytest.param("000500faff48656c6c6f00", id="a block that is not compressed, 7.2.3.3"),
        pytest.param("f348cdc9c9070000", id="a block marked final, 7.2.3.4"),
        pytest.param("f24805000000ffffcac9c90700", id="two blocks, 7.2.3.5"),
    ],
)
def test_examples_of_the_rfc(payload: str) -> None:
    """Each form of "Hello" in RFC 7692 section 7.2.3 is read."""
    assert b"Hello" == inflate(bytes.fromhex(payload), LIMIT, text=True)


def test_empty_messages() -> None:
    """One empty block (7.2.3.6), and nothing at all, are the empty message."""
    assert b"" == inflate(b"\0", LIMIT, text=True)
    assert b"" == inflate(b"", LIMIT, text=True)


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 9))
def test_messages_of_others_are_read(data: bytes, level: int) -> None:
    """Any compression level of zlib comes back, with every way of ending a message."""
    assert data == inflate(packed(data, level), LIMIT, text=False)
    assert data == inflate(packed(data, level, zlib.Z_FINISH) + b"\0", LIMIT, text=False)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=600).map(lambda data: data * 3), max_size=8))
def test_each_message_of_ours_stands_alone(messages: list[bytes]) -> None:
    """One compressor for all: still no message refers to one before it, whoever reads it."""
    deflater = Deflater()
    for message in messages:
        sent = deflater.compress(message)
        if sent is not None:
            assert len(sent) < len(message)
            assert message == inflate(sent, LIMIT, text=False)
            stream = zlib.decompressobj(-WINDOW_BITS)
            assert message == stream.decompress(sent + TAIL)


def test_repetition_of_a_message_costs_the_same() -> None:
    """The second copy of a text is as long as the first: nothing was remembered."""
    deflater = Deflater()
    message = bytes(range(32, 127)) * 2

    assert deflater.compress(message) == deflater.compress(message)


def test_distant_repetition_is_within_the_window() -> None:
    """A repetition beyond the agreed window is not referred to, so small windows can read it."""
    block = Random(2).randbytes(6000)
    sent = Deflater().compress(block * 2 + bytes(9000))

    assert sent is not None
    assert block * 2 + bytes(9000) == zlib.decompressobj(-WINDOW_BITS).decompress(sent + TAIL)


def test_what_does_not_get_shorter_is_sent_plain() -> None:
    """Random bytes and very short texts are not worth it, and the next message is fine."""
    deflater = Deflater()
    noise = Random(1).randbytes(5000)

    assert (None, None) == (deflater.compress(noise), deflater.compress(b"a"))
    assert b"x" * 99 == inflate(deflater.compress(b"x" * 99) or b"", LIMIT, text=True)


def test_the_limit_is_exact() -> None:
    """A message of the limit is read, one byte more is 1009."""
    assert b"x" * 100 == inflate(packed(b"x" * 100), 100, text=True)
    assert 1009 == failure(packed(b"x" * 101), 100)


def test_a_bomb_is_not_unfolded() -> None:
    """A message that would be a thousand times the limit is given up at the limit."""
    bomb = packed(bytes(1 << 26))
    produced = zlib.decompressobj(-15).decompress(bomb + TAIL, 101)

    assert (1009, 101) == (failure(bomb, 100), len(produced))


@pytest.mark.parametrize("data", [b"\xff" * 9, b"\x06\0", b"hello", b"\0\x05\0\0\0hello"])
def test_what_is_not_deflate_is_1007(data: bytes) -> None:
    """Bytes that no compressor writes are invalid data."""
    assert 1007 == failure(data)


def test_final_blocks_are_counted() -> None:
    """A message of very many streams would cost a new decompressor for each of them."""
    final = packed(b"a", flush=zlib.Z_FINISH)

    assert b"aaaa" == inflate(final * 4 + b"\0", LIMIT, text=True)
    assert 1007 == failure(final * 1000 + b"\0")


@pytest.mark.parametrize("text", [b"\xff", b"ok \xc3", b"\xed\xa0\x80"])
def test_text_is_checked_after_it_was_unfolded(text: bytes) -> None:
    """A compressed text that is not UTF-8 is 1007; the same bytes are a binary message."""
    assert 1007 == failure(packed(text))
    assert text == inflate(packed(text), LIMIT, text=False)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.integers(1, 300))
def test_no_input_gets_past_the_bounds(data: bytes, limit: int) -> None:
    """Any bytes give a message within the limit, or one of the two close codes."""
    try:
        outcome = len(inflate(data, limit, text=False))
    except InflateError as error:
        outcome = error.code
    assert outcome <= limit or outcome in (1007, 1009)
