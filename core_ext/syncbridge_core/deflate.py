"""Compression of one message after RFC 7692, with nothing kept from one message to the next.

Theory of operation. Both sides of every connection agree on `*_no_context_takeover`, so a message
depends on no other. That costs some ratio; in return, a broadcast is compressed once for all
readers, and an idle connection holds no window (a context would be 40 to 300 KB each).

Out: one compressor for all. A full flush after each message ends it on a byte and clears what the
compressor remembers, so that the next one refers to nothing before it; this is cheaper than a new
compressor for each message. The window is 4 KiB, because common clients ask for no more (`window
bits` 12), and larger ones gained nothing at level 1 on our messages.

In: a new decompressor for each message, which stops one byte after the limit; so a few kilobytes
that unfold to gigabytes cost no more than an honest message of the largest size. A block marked
final ends a DEFLATE stream but not the message (section 7.2.3.4); as every one of them starts a
new stream, a message may have only a few.

zlib is called through Python, because its C header is not everywhere where a compiler is.
"""

import zlib

__all__ = ["WINDOW_BITS", "Deflater", "InflateError", "inflate"]

WINDOW_BITS = 12
"""Base-2 logarithm of the window of our compressed messages."""

TAIL = b"\0\0\xff\xff"
"""The empty block that a flush writes, which is not sent (section 7.2.1)."""

LEVEL = 1
MEMORY_LEVEL = 5
FINAL_BLOCKS = 8
LARGEST_WINDOW = 32_768
INVALID_DATA = 1007
TOO_BIG = 1009


class InflateError(Exception):
    """An unusable message.

    Args:
        code: how to close the connection: 1007 for bytes that are no DEFLATE data or no UTF-8,
            1009 for a message above the limit. The text of the exception is the close reason.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Deflater:
    """Compresses messages, each by itself. One thread uses it."""

    def __init__(self) -> None:
        self._stream = self._new()

    def _new(self) -> "zlib._Compress":
        return zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)

    def compress(self, payload: bytes) -> bytes | None:
        """Payload of a compressed message; None when it would not be shorter. O(len(payload))."""
        try:
            packed = self._stream.compress(payload) + self._stream.flush(zlib.Z_FULL_FLUSH)
        except BaseException:
            self._stream = self._new()  # it may be in the middle of the message
            raise
        if len(packed) >= len(payload) + len(TAIL):
            return None
        return packed[: -len(TAIL)]


def inflate(packed: bytes, limit: int, text: bool) -> bytes:
    """The message of a compressed payload.

    Args:
        packed: payload of all frames of the message. limit: largest message in bytes, at least 1.
            text: it must be UTF-8.

    Raises:
        InflateError: see there. Memory and time depend only on what was decompressed so far.
    """
    message = _unfold(packed + TAIL, limit)
    if text and not message.isascii():
        try:
            message.decode()
        except UnicodeDecodeError:
            raise InflateError(INVALID_DATA, "text is not UTF-8") from None
    return message


def _unfold(packed: bytes, limit: int) -> bytes:
    message = b""
    for _ in range(FINAL_BLOCKS):
        stream = zlib.decompressobj(-15, zdict=message[-LARGEST_WINDOW:])
        try:
            message += stream.decompress(packed, limit + 1 - len(message))
        except zlib.error:
            raise InflateError(INVALID_DATA, "not DEFLATE data") from None
        if len(message) > limit:
            raise InflateError(TOO_BIG, "message too big")
        packed = stream.unused_data
        if not packed:
            return message
    raise InflateError(INVALID_DATA, "too many final blocks")
