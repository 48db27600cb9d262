"""Checks the head of an HTTP/2 request by the rules of HTTP/1.1.

A head that is malformed by RFC 9113 section 8 ends the stream; h2 itself would end the connection,
and with it the requests of others behind the same proxy. A well-formed head is written as HTTP/1.1
and given to the parser of `fast/request.py`. So targets, hosts, methods and bounds are judged alike
in both versions. `:path` cannot be in absolute-form (section 8.3.1).
"""

import re
from collections.abc import Iterable

from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers

from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.fast.limits import BAD_TARGET, NO_TUNNEL, Refused
from syncbridge_server.listener.fast.request import HeaderList, HeadParser, Request

_HEAD = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_TRAILER = _HEAD._replace(is_trailer=True)
_VISIBLE = re.compile(rb"[\x21-\x7e]*\Z")
_SCHEMES = (b"http", b"https")


def is_well_formed(fields: Iterable[tuple[bytes, bytes]], trailer: bool = False) -> bool:
    """Whether a field section is well-formed by RFC 9113 section 8."""
    try:
        checked = list(validate_headers(fields, _TRAILER if trailer else _HEAD))
    except ProtocolError:
        return False
    return all(_VISIBLE.match(value) for name, value in checked if name[:1] == b":")


class Http2HeadParser:
    """Judges the well-formed heads of one connection."""

    def __init__(self, config: ListenerConfig) -> None:
        self._parser = HeadParser(config)

    def parse(self, fields: HeaderList) -> Request:
        """The request of a head; a CONNECT for a WebSocket (RFC 8441) is parsed as a GET.

        Any other CONNECT gets 501, as RFC 9220 section 3 requires.

        Raises:
            Refused: it must not be served.
        """
        pseudo = {name: value for name, value in fields if name[:1] == b":"}
        method, target = pseudo[b":method"], pseudo.get(b":path", b"")
        if method == b"CONNECT":
            if pseudo.get(b":protocol") != b"websocket":
                raise Refused(NO_TUNNEL)
            method = b"GET"
        if pseudo[b":scheme"].lower() not in _SCHEMES:
            raise Refused(BAD_TARGET)
        if target[:1] != b"/" and target != b"*":
            raise Refused(BAD_TARGET)
        return self._parser.parse(_written(method, target, pseudo.get(b":authority"), fields))


def _written(method: bytes, target: bytes, authority: bytes | None, fields: HeaderList) -> bytes:
    """The head in HTTP/1.1. No field can end a line: that is not well-formed."""
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    if authority is not None:
        lines.append(b"host: " + authority)
    for name, value in fields:
        if name[:1] != b":" and (name != b"host" or authority is None):
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))
