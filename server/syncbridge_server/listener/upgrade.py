"""The opening handshake of RFC 6455 section 4.2 (and RFC 8441), as pure functions.

Three callers share one policy: the native path has bytes, the HTTP stacks and the ASGI bridge
have header pairs. `parse_head` is for the first: it accepts only strictly well-formed, plain
requests, and returns None for others, which the HTTP engine judges. `negotiate` decides in
the same order for all of them: path, shape of the handshake, token in the URL, Origin,
compression, subprotocol. Parsing is one regular expression over the head, linear in its length.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from syncbridge_server.listener.compression import choose_compression
from syncbridge_server.listener.contract import ListenerConfig, Refusal

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"GET (/[\x21\x22\x24-\x7e]*) HTTP/1\.1\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\x20-\x7e\x80-\xff\t]*)\r\n")
HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z")
_LISTS = frozenset(
    {
        b"connection",
        b"upgrade",
        b"sec-websocket-protocol",
        b"sec-websocket-extensions",
        b"x-forwarded-for",
    }
)
_SINGLE = frozenset({b"host", b"origin", b"sec-websocket-key", b"sec-websocket-version"})
_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect", b"trailer"})
_SECRET_PARAMETERS = frozenset({"token", "access_token"})
_GLANCE = re.compile(rb"\n(origin|host|x-request-id):([^\r\n]*)\r", re.IGNORECASE)

Headers = dict[bytes, bytes]

ORIGIN_REFUSED = Refusal(
    403, "origin_refused", "this Origin may not connect: SYNCBRIDGE_ORIGINS does not list it"
)


class HandshakeError(Exception):
    """The request cannot be a handshake. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A handshake to judge. Header names are lower case; `http2` is RFC 8441's CONNECT."""

    path: bytes
    query: bytes
    headers: Headers
    http2: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of the negotiation: the encoding, the subprotocol to name (or None), the accept
    token, and the answer to the compression offers (or None)."""

    encoding: int
    subprotocol: str | None
    accept: bytes
    compression: bytes | None = None


def parse_head(head: bytes) -> UpgradeRequest | None:
    """Parse one request head that ends with an empty line; None unless it is a plain upgrade.

    None also for features of RFC 9112 that no client needs here: absolute targets, line folding, a
    body, a repeated single field. The general HTTP parser judges those.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        return None
    pairs = _fields(head, line.end())
    if pairs is None:
        return None
    try:
        headers = collect(pairs)
    except HandshakeError:
        return None
    if not is_upgrade(headers) or b"host" not in headers or not _BODY.isdisjoint(headers):
        return None
    path, _, query = line[1].partition(b"?")
    return UpgradeRequest(path, query, headers)


def _fields(head: bytes, start: int) -> list[tuple[bytes, bytes]] | None:
    """The header fields from `start` to the empty line, or None for anything else."""
    pairs = []
    end = len(head) - 2
    while start < end:
        match = _FIELD.match(head, start)
        if match is None:
            return None
        pairs.append((match[1], match[2].strip(b" \t")))
        start = match.end()
    return pairs if start == end else None


def collect(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Fold header pairs into a mapping with lower-case names; lists are joined with commas.

    Raises:
        HandshakeError: a field that must be single (Host, Origin, key, version) came twice.
    """
    headers: Headers = {}
    for original, value in pairs:
        name = original.lower()
        if name not in headers:
            headers[name] = value
        elif name in _LISTS:
            headers[name] += b"," + value
        elif name in _SINGLE:
            detail = f"the header {name.decode()} may come only once"
            raise HandshakeError(Refusal(400, "bad_handshake", detail))
    return headers


def glance(head: bytes) -> Headers:
    """The fields that a refusal needs from an unparsed head: Host, Origin and so on.

    The head may be incomplete or malformed. Of a repeated field the first one counts.
    """
    end = head.find(b"\r\n\r\n")
    fields = _GLANCE.findall(head if end < 0 else head[: end + 2])
    return {name.lower(): value.strip(b" \t") for name, value in reversed(fields)}


def is_upgrade(headers: Headers) -> bool:
    """Whether the headers ask for a WebSocket: `Upgrade` names it, `Connection` names that."""
    return _names(headers.get(b"upgrade", b""), b"websocket") and _names(
        headers.get(b"connection", b""), b"upgrade"
    )


def _names(value: bytes, token: bytes) -> bool:
    """Whether a list contains a token, in any case."""
    value = value.lower()
    return value == token or token in [part.strip() for part in value.split(b",")]


def negotiate(request: UpgradeRequest, config: ListenerConfig) -> Agreement | Refusal:
    """Judge a handshake. Admission of the client follows, by the sink."""
    refusal = (
        _check_path(request.path, config)
        or _check_shape(request)
        or _check_query(request.query)
        or _check_origin(request.headers, config)
    )
    if refusal is not None:
        return refusal
    try:
        compression = choose_compression(request.headers.get(b"sec-websocket-extensions", b""))
    except ValueError as error:
        return Refusal(400, "bad_handshake", str(error))
    name, encoding = _choose(request.headers.get(b"sec-websocket-protocol", b""), config)
    accept = accept_token(request.headers.get(b"sec-websocket-key", b""))
    return Agreement(encoding, name, accept, compression if config.compression else None)


def client_of(peer: str, headers: Headers, config: ListenerConfig) -> str:
    """The client's address for a handshake from `peer`, which may be a proxy."""
    forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1")
    return config.proxies.resolve(peer, [forwarded]) if forwarded else peer


def accept_token(key: bytes) -> bytes:
    """The value of Sec-WebSocket-Accept (RFC 6455 section 4.2.2, 5.4)."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def _check_path(path: bytes, config: ListenerConfig) -> Refusal | None:
    if path in config.paths:
        return None
    return Refusal(404, "not_found", f"WebSockets are served at {config.path}")


def _check_shape(request: UpgradeRequest) -> Refusal | None:
    headers = request.headers
    if not HOST.match(headers.get(b"host", b"")):
        return Refusal(400, "bad_handshake", "the Host header is missing or not a host")
    if not request.http2 and not is_upgrade(headers):
        return Refusal(426, "upgrade_required", "send Connection: Upgrade, Upgrade: websocket")
    if headers.get(b"sec-websocket-version") != b"13":
        return Refusal(426, "upgrade_required", "only WebSocket version 13 is supported")
    if not request.http2 and not is_key(headers.get(b"sec-websocket-key", b"")):
        return Refusal(400, "bad_handshake", "Sec-WebSocket-Key must be 16 bytes in base64")
    return None


def is_key(key: bytes) -> bool:
    """Whether it has the length of 16 bytes in base64."""
    if len(key) != 24:
        return False
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _check_query(query: bytes) -> Refusal | None:
    """Refuse tokens in the URL: they end up in logs, histories and Referer headers."""
    if not query:
        return None
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=64)
    except ValueError:
        return Refusal(400, "bad_handshake", "too many query parameters")
    if _SECRET_PARAMETERS.isdisjoint(name.lower() for name, _ in pairs):
        return None
    return Refusal(400, "token_in_url", "no token in the URL: connect, then send AUTH")


def _check_origin(headers: Headers, config: ListenerConfig) -> Refusal | None:
    origin = headers.get(b"origin")
    if origin is None:
        return None
    if config.origins.admits(origin, headers[b"host"], "websocket"):
        return None
    return ORIGIN_REFUSED


def _choose(offered: bytes, config: ListenerConfig) -> tuple[str | None, int]:
    """The first offered subprotocol that is enabled; else none, with the default encoding."""
    for token in offered.split(b","):
        name = token.strip().decode("latin-1")
        if name in config.subprotocols:
            return name, config.subprotocols[name]
    return None, config.default_encoding
