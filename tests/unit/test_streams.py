"""What is told of a stream: what the store has, what is lost, and when neither is known."""

import pytest

from syncbridge.records.streams import (
    PUSHED_OUT,
    UNKNOWN,
    Stream,
    applied,
    last_number,
    stream_name,
)

A, B, C = (stream_name(name).encode() for name in "abc")


def test_names_have_11_characters() -> None:
    """Of any text; none for none."""
    assert {11} == {len(stream_name(text)) for text in ("a", "x" * 64, "ü")}
    assert "" == stream_name("")


def test_last_number_of_a_record() -> None:
    """Two streams with numbers, and older ones that were pushed out."""
    record = b"%b 7 12;%b 3 9;%b" % (A, B, C)

    assert [7, 3, PUSHED_OUT, UNKNOWN] == [last_number(record, name) for name in "abcd"]
    assert UNKNOWN == last_number(b"", "a")


@pytest.mark.parametrize(
    ("found", "acked", "gone", "told"),
    [
        (5, 5, False, 5),
        (3, 5, False, 3),
        (7, 5, True, 7),
        (UNKNOWN, 0, False, 0),
        (UNKNOWN, 5, True, 0),
        (UNKNOWN, 5, False, None),
        (PUSHED_OUT, 5, True, None),
        (PUSHED_OUT, 0, False, None),
    ],
)
def test_what_a_device_is_told(found: int, acked: int, gone: bool, told: int | None) -> None:
    """A stream that was merely pushed out is not called lost."""
    assert told == applied(found, acked, gone=gone)


def test_lost_updates_are_named_once() -> None:
    """Those above the store's number, as far as their ids are known."""
    stream = Stream("a", 2)
    for seq in (3, 4, 5):
        stream.acknowledge(seq, f"id{seq}")
    assert 3 == stream.found(2, gone=False)
    assert (2, True, ["id3", "id4", "id5"]) == (stream.acked, stream.known, stream.take_lost())
    assert [] == stream.take_lost()
    stream.acknowledge(3, "again")
    assert (1, ["again"]) == (stream.found(2, gone=True), stream.take_lost())


def test_a_stream_that_nobody_knows_has_lost_nothing() -> None:
    """Until its device begins another."""
    stream = Stream("a", 9)
    assert 0 == stream.found(PUSHED_OUT, gone=True)
    assert (0, False) == (stream.acked, stream.known)
    assert 0 == stream.found(UNKNOWN, gone=True)
