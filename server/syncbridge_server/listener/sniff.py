"""Selects the stack of a new connection by its first bytes. Pure.

The answer must be final and safe under any split of the bytes: once a verdict other than
NEED_MORE is given for some bytes, more bytes would not have changed it. Only a request that could
still become a plain upgrade at our path is waited for; any other is routed at its first deviating
byte.
"""

from enum import Enum, auto

from syncbridge_server.listener.upgrade import UpgradeRequest, parse_head

_TLS_HANDSHAKE = 0x16
_HEAD_END = b"\r\n\r\n"


class SniffResult(Enum):
    """Where a connection goes."""

    NEED_MORE = auto()
    """May still become a plain upgrade; read on."""
    NATIVE_UPGRADE = auto()
    """A strictly well-formed upgrade request at our path is complete."""
    HTTP = auto()
    """Any other request, including an unusual upgrade: the HTTP stack decides."""
    TLS = auto()
    """A TLS record of type handshake (RFC 8446 section 5.1)."""
    TOO_LARGE = auto()
    """The head of a possible upgrade is above the bound."""


Sniffed = tuple[SniffResult, UpgradeRequest | None, bytes]


def sniff(data: bytes, path: bytes, limit: int) -> Sniffed:
    """Judge what has arrived so far.

    Args:
        data: all bytes of the connection so far.
        path: the WebSocket path. limit: bound of a request head in bytes.

    Returns:
        The verdict; with NATIVE_UPGRADE also the request and the bytes after its head.
    """
    if data[:1] == bytes((_TLS_HANDSHAKE,)):
        return SniffResult.TLS, None, b""
    if not _may_be_upgrade(data, b"GET " + path):
        return SniffResult.HTTP, None, b""
    end = data.find(_HEAD_END, 0, limit)
    if end >= 0:
        request = parse_head(data[: end + 4])
        if request is None:
            return SniffResult.HTTP, None, b""
        return SniffResult.NATIVE_UPGRADE, request, data[end + 4 :]
    if _has_bare_line_feed(data[:limit]):
        return SniffResult.HTTP, None, b""
    return (SniffResult.NEED_MORE if len(data) < limit else SniffResult.TOO_LARGE), None, b""


def _may_be_upgrade(data: bytes, start: bytes) -> bool:
    if len(data) <= len(start):
        return start.startswith(data)
    return data.startswith(start) and data[len(start)] in b" ?"


def _has_bare_line_feed(data: bytes) -> bool:
    """Whether a line ends without CR: such heads are left to the HTTP stack."""
    return data.count(b"\n") != data.count(b"\r\n")
