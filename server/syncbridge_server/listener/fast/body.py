"""Parses request bodies under any split of the bytes (RFC 9112 sections 6.2, 7.1). Pure.

llhttp is not used for bodies: it does not report where in its input a message ended, so the start
of a pipelined request could not be separated from the end of the body before it. The chunked coding
is small enough to parse strictly: CRLF only, hexadecimal digits only, nothing between them and a
semicolon, and bounded extensions and trailers, which are read and dropped.
"""

import re
from typing import Protocol

from syncbridge_server.listener.fast.limits import (
    BAD_BODY,
    BODY_TOO_LARGE,
    CHUNK_EXTENSION_BYTES,
    CHUNK_LINE_BYTES,
    CHUNKS,
    TRAILER_BYTES,
    Refused,
)
from syncbridge_server.listener.fast.request import CHUNKED

_MORE = -1
_CR = 0x0D
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class Body(Protocol):
    """A body that is arriving.

    Attributes:
        complete: all of it has arrived. rest: bytes after its end, once it is complete.
        left: bytes still missing, as far as known.
    """

    complete: bool
    rest: bytes
    left: int

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the connection; returns those of the body. Raises Refused."""

    def holds(self, data: bytes) -> bool:
        """Whether `data`, from the body's first byte on, certainly has all of it."""


class LengthBody:
    """A body whose length was announced."""

    __slots__ = ("_length", "complete", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = self._length = length
        self.complete = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        piece = data
        if len(data) > self.left:
            piece, self.rest = data[: self.left], data[self.left :]
        self.left -= len(piece)
        self.complete = self.left == 0
        return piece

    def holds(self, data: bytes) -> bool:
        """See `Body`."""
        return self.left == self._length <= len(data)


class ChunkedBody:
    """A body in chunks. Only the beginning of a line is held back, never data, so it is short.

    Each step reads from `at` on and returns where the next one begins, or `_MORE`.
    """

    def __init__(self, bound: int) -> None:
        self.complete = False
        self.rest = b""
        self.left = 0
        self._bound = bound
        self._held = b""
        self._step = self._size
        self._chunks = CHUNKS
        self._extensions = CHUNK_EXTENSION_BYTES
        self._trailers = TRAILER_BYTES

    def feed(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        data = self._held + data
        at = start = 0
        while not self.complete and at < len(data):
            start, at = at, self._step(data, at, pieces)
            if at == _MORE:
                self._held = data[start:]
                return b"".join(pieces)
        self._held = b""
        if self.complete:
            self.rest = data[at:]
        return b"".join(pieces)

    def holds(self, data: bytes) -> bool:
        """See `Body`."""
        return False

    def _line(self, data: bytes, at: int, bound: int) -> int:
        """The end of the line that begins at `at`, after its CRLF, or _MORE."""
        end = data.find(b"\n", at, at + bound) + 1
        if end == 0:
            if len(data) - at >= bound:
                raise Refused(BAD_BODY)
            return _MORE
        if end - at < 2 or data[end - 2] != _CR:
            raise Refused(BAD_BODY)
        return end

    def _size(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        end = self._line(data, at, CHUNK_LINE_BYTES)
        if end == _MORE:
            return end
        match = _CHUNK.fullmatch(data, at, end)
        self._chunks -= 1
        if match is None or not self._chunks:
            raise Refused(BAD_BODY)
        self._extensions -= len(match[2] or b"")
        if self._extensions < 0:
            raise Refused(BAD_BODY)
        self.left = int(match[1], 16)
        self._bound -= self.left
        if self._bound < 0:
            raise Refused(BODY_TOO_LARGE)
        self._step = self._data if self.left else self._trailer
        return end

    def _data(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        piece = data[at : at + self.left]
        pieces.append(piece)
        self.left -= len(piece)
        if self.left == 0:
            self._step = self._after
        return at + len(piece)

    def _after(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """The CRLF after a chunk's data."""
        if not b"\r\n".startswith(data[at : at + 2]):
            raise Refused(BAD_BODY)
        if len(data) - at < 2:
            return _MORE
        self._step = self._size
        return at + 2

    def _trailer(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        end = self._line(data, at, self._trailers)
        if end == _MORE:
            return end
        self._trailers -= end - at
        if end - at == 2:
            self.complete = True
        elif _TRAILER.fullmatch(data, at, end) is None or self._trailers < 2:
            raise Refused(BAD_BODY)
        return end


def body_of(length: int, bound: int) -> Body:
    """The body of a request with this `length`; at most `bound` bytes."""
    return ChunkedBody(bound) if length == CHUNKED else LengthBody(length)
