"""Parses a request head into what an ASGI scope needs (RFC 9112 sections 3, 6, 7.1, 9.3).

llhttp parses the fields. Those that decide where the message ends and which host it is for are
checked again here, because a mistake in them is a security hole: one Host, and one length of one
kind.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httptools

from syncbridge.kernels import Fields
from syncbridge_server.listener.contract import FIELDS, ListenerConfig
from syncbridge_server.listener.fast.guard import split_head
from syncbridge_server.listener.fast.limits import (
    BAD_EXPECTATION,
    BAD_HOST,
    BAD_LENGTH,
    BAD_TARGET,
    BODY_TOO_LARGE,
    MALFORMED,
    NO_TUNNEL,
    TOO_MANY_FIELDS,
    UNKNOWN_METHOD,
    Refused,
)
from syncbridge_server.listener.upgrade import (
    HOST,
    HandshakeError,
    UpgradeRequest,
    collect,
    is_upgrade,
)

CHUNKED = -1
REMEMBERED_BYTES = 2_048
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)\Z", re.IGNORECASE)

HeaderList = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One request head.

    Args:
        target: origin-form (path and query), or `*`. version: "1.0" or "1.1".
        length: bytes of the body, or CHUNKED. expects_continue: the client waits for a 100.
        keep_alive: the client may send another request afterwards. upgrade: it asks for another
            protocol. forwarded: it has X-Forwarded-For.
        fields: see `contract.FIELDS`.
    """

    method: str
    target: bytes
    version: str
    headers: HeaderList
    length: int = 0
    expects_continue: bool = False
    keep_alive: bool = True
    upgrade: bool = False
    forwarded: bool = False
    fields: dict[bytes, bytes] = field(default_factory=dict)


class HeadParser:
    """Parses the heads of one connection, one after the other.

    A polling client sends the same head again and again, so the last short head is cached. Requests
    are immutable.
    """

    __slots__ = ("_config", "_fields", "_host", "_last", "_last_head", "_parser")

    def __init__(self, config: ListenerConfig) -> None:
        self._config = config
        self._fields = Fields()
        self._host = b""  # the last one that was a host; an empty one is allowed
        self._parser: Any = None
        self._last: Request | None = None
        self._last_head = b""

    def parse(self, head: bytes) -> Request:
        """Parse a head that ends with an empty line.

        Raises:
            Refused: it must not be served.
        """
        if head == self._last_head and self._last is not None:
            return self._last
        request = self._parse(head)
        if len(head) <= REMEMBERED_BYTES:
            self._last, self._last_head = request, head
        return request

    def close(self) -> None:
        """Release the parser."""
        self._parser = None

    def _parse(self, head: bytes) -> Request:
        parts = split_head(head, self._config)
        if not isinstance(parts, tuple):
            raise Refused(parts)
        self._fields.reset()
        parser = self._parser or httptools.HttpRequestParser(self._fields)
        self._parser = None
        upgrade = _feed(parser, head)
        if len(self._fields.headers) > self._config.max_header_count:
            raise Refused(TOO_MANY_FIELDS)
        request = self._judge(*parts, upgrade)
        if request.length == 0 and request.keep_alive and not upgrade:
            self._parser = parser  # it is at the beginning of a message again
        return request

    def _judge(self, method: bytes, target: bytes, minor: bytes, upgrade: bool) -> Request:
        version = "1.1" if minor == b"1" else "1.0"
        request = Request(method.decode(), target, version, self._fields.headers, upgrade=upgrade)
        request.keep_alive = minor == b"1"
        hosts = lengths = codings = 0
        for name, value in self._fields.deciding:
            if name == b"host":
                hosts += 1
                if value != self._host and HOST.match(value) is None:
                    raise Refused(BAD_HOST)
                self._host = value
            elif name == b"connection":
                _connection(request, value)
            elif name == b"content-length":
                lengths += 1
                request.length = _length(value, self._config.max_body_bytes)
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise Refused(BAD_EXPECTATION)
                request.expects_continue = version == "1.1"
            elif name == b"x-forwarded-for":
                request.forwarded = True
            else:
                codings += 1
                if value.lower() != b"chunked" or version != "1.1":
                    raise Refused(BAD_LENGTH)
                request.length = CHUNKED
        if lengths + codings > 1:
            raise Refused(BAD_LENGTH)
        if hosts != 1 and (hosts or version == "1.1"):
            raise Refused(BAD_HOST)
        if target[0] != 0x2F:
            _unusual_target(request)
        request.fields = dict(reversed(request.headers))
        return request


def _feed(parser: Any, head: bytes) -> bool:
    """Give a head to llhttp; returns whether it asks for an upgrade."""
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        return True
    except httptools.HttpParserInvalidMethodError:
        raise Refused(UNKNOWN_METHOD) from None
    except httptools.HttpParserError:
        raise Refused(MALFORMED) from None
    return bool(parser.should_upgrade())


def _connection(request: Request, value: bytes) -> None:
    options = [option.strip().lower() for option in value.split(b",")]
    if b"close" in options:
        request.keep_alive = False
    elif b"keep-alive" in options and request.version == "1.0":
        request.keep_alive = True


def _length(value: bytes, bound: int) -> int:
    if not value.isdigit():
        raise Refused(BAD_LENGTH)
    if len(value) > 19 or int(value) > bound:
        raise Refused(BODY_TOO_LARGE)
    return int(value)


def _unusual_target(request: Request) -> None:
    """Absolute-form names the host, which overrides Host; asterisk-form is for OPTIONS."""
    if request.method == "CONNECT":
        raise Refused(NO_TUNNEL)
    absolute = _ABSOLUTE.match(request.target)
    if absolute is not None and HOST.match(absolute[1]) is not None:
        rest = absolute[2]
        request.target = rest if rest[:1] == b"/" else b"/" + rest
        request.headers = [pair for pair in request.headers if pair[0] != b"host"]
        request.headers.insert(0, (b"host", absolute[1]))
    elif request.target != b"*" or request.method != "OPTIONS":
        raise Refused(BAD_TARGET)


def handshake_of(request: Request, paths: frozenset[bytes]) -> UpgradeRequest | None:
    """The WebSocket handshake at one of `paths` that a request is, or None.

    If None, its `Upgrade` is ignored and the request is an ordinary one (RFC 9110 section 7.8):
    another protocol, another path, HTTP/1.0, or a request with a body.

    Raises:
        Refused: a handshake in which a single field came twice.
    """
    target, _, query = request.target.partition(b"?")
    plain = request.method == "GET" and request.version == "1.1" and request.length == 0
    if target not in paths or not plain or request.expects_continue:
        return None
    try:
        headers = collect(request.headers)
    except HandshakeError as error:
        raise Refused(error.refusal) from None
    return UpgradeRequest(target, query, headers) if is_upgrade(headers) else None


def make_scope(request: Request, base: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The ASGI scope. `base`: shared by all requests of the connection; `state`: the lifespan's."""
    raw_path, _, query = request.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        **base,
        "http_version": request.version,
        "method": request.method,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": request.headers.copy(),
        "state": state.copy(),
        "extensions": {},
        FIELDS: request.fields,
    }
