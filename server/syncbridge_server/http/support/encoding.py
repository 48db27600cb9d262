"""Content codings of HTTP (RFC 9110 section 8.4): bodies in and out, as pure functions.

In: a request's body is unfolded within the bound of its route. Every decoder is asked for one byte
more than the bound and no further, so that a few kilobytes that unfold to gigabytes cost no more
than an honest body of the largest size. One coding per body: a chain multiplies the size to which a
byte can decompress, and is not needed.

Out: the coding that the client likes best, and among equals the one that is cheapest for us; at
level 1, because the network is seldom slower than a higher level.
"""

import io
import re
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache

import zstandard

from syncbridge.errors import ErrorCode, SyncBridgeError

CODINGS = ("zstd", "gzip", "deflate")
"""The supported codings, the cheapest first."""

ACCEPT_ENCODING = ", ".join(CODINGS)

_STREAMS = 8
"""Most gzip members or zstd frames of one body."""

_ZSTD_WINDOW = 8 << 20
"""Largest window that a zstd body may ask for, bytes (RFC 9659)."""

_WEIGHT = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")
_WBITS = {"gzip": 31, "deflate": 15}


def wire_bound(limit: int) -> int:
    """Bytes that a coded body may have: an eighth above the bound, for what does not compress."""
    return limit + limit // 8 + 1024


def coding_of(header: str) -> str:
    """The coding that a Content-Encoding header names; "" for none.

    Raises UNSUPPORTED_ENCODING for one that is not known, and for several.
    """
    names = [name.strip().lower() for name in header.split(",")]
    named = [name for name in names if name not in ("", "identity")]
    if not named:
        return ""
    coding = "gzip" if named[0] == "x-gzip" else named[0]
    if len(named) > 1 or coding not in CODINGS:
        raise SyncBridgeError(
            ErrorCode.UNSUPPORTED_ENCODING,
            f"Content-Encoding must be one of {ACCEPT_ENCODING}",
            accepted=list(CODINGS),
        )
    return coding


def unfold(body: bytes, coding: str, limit: int) -> bytes | None:
    """The decoded body, or None when it has more than `limit` bytes.

    Raises INVALID_ENCODING when it is not such a stream, is cut off, or has something behind it.
    """
    try:
        decoded = _unfold_zstd(body, limit) if coding == "zstd" else _inflate(body, coding, limit)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise SyncBridgeError(
            ErrorCode.INVALID_ENCODING, f"the body is not a complete {coding} stream"
        ) from None
    return decoded if len(decoded) <= limit else None


def plain(body: bytes, header: str, limit: int) -> tuple[bytes, str]:
    """A body without the coding that its Content-Encoding names; "" without one.

    If that is impossible within `limit` bytes: the original body, and the reason.
    """
    try:
        coding = coding_of(header)
        decoded = unfold(body, coding, limit) if coding else body
    except SyncBridgeError as error:
        return body, error.detail
    return (body, f"unfolds to more than {limit} bytes") if decoded is None else (decoded, "")


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    """At most limit + 1 bytes of a gzip or zlib body."""
    decoded = b""
    for _ in range(_STREAMS):
        stream = zlib.decompressobj(_WBITS[coding])
        decoded += stream.decompress(body, limit + 1 - len(decoded))
        if len(decoded) > limit:
            return decoded
        if not stream.eof:
            raise EOFError
        body = stream.unused_data
        if not body:
            return decoded
        if coding != "gzip":
            break
    raise EOFError


def _unfold_zstd(body: bytes, limit: int) -> bytes:
    """At most limit + 1 bytes of a zstd body.

    The reader is bounded but takes a cut-off frame for the end; so when the size is known to be
    within the bound, the frames are decoded once more by what tells the difference.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    with decompressor.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        decoded: bytes = reader.read(limit + 1)
    if len(decoded) > limit:
        return decoded
    for _ in range(_STREAMS):
        frame = decompressor.decompressobj()
        frame.decompress(body)
        if not frame.eof:
            break
        body = frame.unused_data
        if not body:
            return decoded
    raise EOFError


@lru_cache(maxsize=256)
def choose_coding(accept_encoding: str) -> str:
    """The coding for an answer, "" for none. RFC 9110 section 12.5.3.

    Args:
        accept_encoding: the client's header, "" when it sent none.
    """
    weights = dict(map(_weighed, accept_encoding.split(",")))
    every = weights.get("*", 0.0)
    best = max(CODINGS, key=lambda coding: weights.get(coding, every))  # the first among equals
    return best if weights.get(best, every) > 0 else ""


def _weighed(element: str) -> tuple[str, float]:
    """Name and weight of one element; a weight that is not a number counts as 0."""
    name, _, parameters = element.partition(";")
    key, _, weight = parameters.partition("=")
    if not parameters:
        return name.strip().lower(), 1.0
    valid = key.strip().lower() == "q" and _WEIGHT.match(weight.strip())
    return name.strip().lower(), float(weight) if valid else 0.0


def _deflated(wbits: int) -> Callable[[bytes], bytes]:
    def compress(body: bytes) -> bytes:
        stream = zlib.compressobj(1, zlib.DEFLATED, wbits)
        return stream.compress(body) + stream.flush()

    return compress


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "zstd": _zstd,
    "gzip": _deflated(_WBITS["gzip"]),
    "deflate": _deflated(_WBITS["deflate"]),
}
"""Coding -> function that compresses a body. Any thread may call it."""
