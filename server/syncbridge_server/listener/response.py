"""Answers to a handshake: the headers of a 101, and problem documents (RFC 9457).

They are status, header pairs and body, for every HTTP stack; `to_http1` encodes them for the native
path.
"""

import json
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from syncbridge_server.listener.contract import Refusal
from syncbridge_server.listener.upgrade import Agreement
from syncbridge_server.origins import HeaderList, Origins

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")

Response = tuple[int, HeaderList, bytes]
PROTECTION: HeaderList = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
"""On every answer: no content sniffing, no framing, no Referer."""
NO_HEADERS: Mapping[bytes, bytes] = MappingProxyType({})


def request_id(given: bytes = b"") -> bytes:
    """The caller's X-Request-ID if it is short and plain, else a new random one."""
    return given if _REQUEST_ID.match(given) else secrets.token_hex(8).encode()


def refusal_response(
    refusal: Refusal, request: Mapping[bytes, bytes] = NO_HEADERS, origins: Origins | None = None
) -> Response:
    """Render a refusal. A 426 names the accepted protocol (RFC 9110 section 15.5.22).

    Args:
        request: the request's headers, with lower-case names, as far as they were read.
        origins: pages that may read the refusal; None: the caller adds those headers.
    """
    body = json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(refusal.status).phrase,
            "status": refusal.status,
            "detail": refusal.detail,
            "code": refusal.code,
        }
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id(request.get(b"x-request-id", b""))),
        *PROTECTION,
    ]
    if origins is not None:
        headers.append((b"vary", b"Origin"))
        if origin := request.get(b"origin"):
            headers += origins.answer_headers(origin, request.get(b"host", b""))
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.status == HTTPStatus.UPGRADE_REQUIRED:
        headers.append((b"sec-websocket-version", b"13"))
    return refusal.status, headers, body


def agreement_headers(agreement: Agreement, given_id: bytes = b"") -> HeaderList:
    """Headers of a positive answer, common to HTTP/1.1 and HTTP/2."""
    headers = [(b"x-request-id", request_id(given_id))]
    if agreement.subprotocol is not None:
        headers.append((b"sec-websocket-protocol", agreement.subprotocol.encode()))
    if agreement.compression is not None:
        headers.append((b"sec-websocket-extensions", agreement.compression))
    return headers


def switching_headers(agreement: Agreement, given_id: bytes = b"") -> HeaderList:
    """Headers of the 101 answer (RFC 6455 section 4.2.2)."""
    return [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", agreement.accept),
        *agreement_headers(agreement, given_id),
    ]


def to_http1(status: int, headers: HeaderList, body: bytes = b"") -> bytes:
    """The response as HTTP/1.1 bytes. Any status but 101 ends the connection."""
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers]
    if status == HTTPStatus.UPGRADE_REQUIRED:
        lines += [b"upgrade: websocket", b"connection: close, upgrade"]
    elif status != HTTPStatus.SWITCHING_PROTOCOLS:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", body])
