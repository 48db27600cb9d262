"""Errors as `application/problem+json` (RFC 9457), and bodies read within bounds.

A handler raises `SyncBridgeError`; `exception_handlers`, the mapping for
`Starlette(exception_handlers=...)`, turns it, Starlette's own 404 and 405, and whatever else is
raised into a problem document. `RequestMiddleware` logs the unexpected ones.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.http.support.encoding import ACCEPT_ENCODING, coding_of, unfold, wire_bound
from syncbridge_server.http.support.fields import first_fields
from syncbridge_server.listener.contract import ARRIVED

MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499
"""The status in the access log and the metrics when the caller disconnected."""
UNDECLARED = ("", "text/plain")
"""Types of a body that say nothing about it."""
SEND_JSON = "send Content-Type: application/json"
_RESERVED = frozenset({"type", "title", "status", "detail", "code", "instance"})
_BY_STATUS = {
    401: ErrorCode.AUTH_REQUIRED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.OVERLOADED,
}

T = TypeVar("T")


def problem(
    code: ErrorCode,
    detail: str,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Response:
    """A problem document. Fields named like members of the standard are dropped."""
    status = status or code.status
    members: dict[str, Any] = {
        "type": f"urn:syncbridge:error:{code.wire}",
        "title": code.title,
        "status": status,
        "detail": detail,
        "code": code.wire,
    }
    members |= {name: value for name, value in fields.items() if name not in _RESERVED}
    return Response(msgspec.json.encode(members), status, headers, MEDIA_TYPE)


def problem_of(error: SyncBridgeError) -> Response:
    """The document of an error, with the headers that belong to it."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.code is ErrorCode.UNSUPPORTED_MEDIA:
        headers["Accept"] = "application/json"  # RFC 9110 section 12.5.1
    if error.code is ErrorCode.UNSUPPORTED_ENCODING:
        headers["Accept-Encoding"] = ACCEPT_ENCODING  # RFC 9110 section 15.5.16
    if error.code.status == 401:
        headers["WWW-Authenticate"] = _challenge(error.code)
    return problem(error.code, error.detail, headers=headers, **error.fields)


def internal_problem(request_id: str) -> Response:
    """The 500 of an unexpected exception; it says only where to look."""
    return problem(
        ErrorCode.INTERNAL,
        "the server failed; its log has the request id",
        request_id=request_id,
    )


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for `SyncBridgeError`."""
    assert isinstance(error, SyncBridgeError)
    refused_with(request.scope, error)
    return problem_of(error)


def refused_with(scope: MutableMapping[str, Any], error: SyncBridgeError) -> None:
    """Tell `RequestMiddleware`, which counts refusals."""
    scope.setdefault("state", {})["refused"] = error


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for `HTTPException`: no such path, wrong method."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    headers = dict(error.headers or {})
    if status in (204, 304):
        return Response(None, status, headers)
    default = ErrorCode.INVALID_JSON if status < 500 else ErrorCode.INTERNAL
    code = _BY_STATUS.get(status, default)
    refused_with(request.scope, SyncBridgeError(code, str(error.detail)))
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        return problem(code, f"allowed here: {headers['Allow']}", status=status, headers=headers)
    return problem(code, str(error.detail), status=status, headers=headers)


async def handle_unexpected(request: Request, error: Exception) -> Response:
    """Starlette's handler for everything else; Starlette raises the exception again after it."""
    return internal_problem(request.scope.get("state", {}).get("request_id", ""))


async def handle_disconnect(request: Request, error: Exception) -> Response:
    """The caller disconnected while the body was read: nobody receives this answer."""
    return Response(None, CLIENT_GONE)


exception_handlers: dict[Any, Any] = {
    SyncBridgeError: handle_error,
    HTTPException: handle_http_exception,
    ClientDisconnect: handle_disconnect,
    Exception: handle_unexpected,
}


def read_body(request: Request, limit: int) -> Awaitable[bytes]:
    """The body, of any type, refused with TOO_LARGE as soon as it is known to exceed `limit` bytes.

    A body with a Content-Encoding is decoded; the limit counts what it unfolds to.

    Raises UNSUPPORTED_ENCODING and INVALID_ENCODING for codings, and
    starlette.requests.ClientDisconnect when the caller goes away.
    """
    fields = first_fields(request.scope)
    named = fields.get(b"content-encoding")
    coding = coding_of(named.decode("latin-1")) if named else ""
    if not coding:
        return _read_raw(request, fields, limit, limit)
    return _unfolded(_read_raw(request, fields, wire_bound(limit), limit), coding, limit)


def read_raw(request: Request, limit: int) -> Awaitable[bytes]:
    """The body as it came, whatever its coding; raises as `read_body`, but nothing for codings."""
    return _read_raw(request, first_fields(request.scope), limit, limit)


async def _unfolded(coded: Awaitable[bytes], coding: str, limit: int) -> bytes:
    body = unfold(await coded, coding, limit)
    if body is None:
        raise _too_large(limit)
    return body


async def _read_raw(
    request: Request, fields: Mapping[bytes, bytes], bound: int, limit: int
) -> bytes:
    """At most `bound` bytes as they come; the error names `limit`."""
    announced = fields.get(b"content-length", b"")
    if announced.isdigit() and int(announced[:20]) > bound:
        raise _too_large(limit)
    arrived: Callable[[], bytes | None] | None = request.scope.get(ARRIVED)
    if arrived is not None and (body := arrived()) is not None:
        return body
    pieces: list[bytes] = []
    size, more, receive = 0, True, request.receive
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > bound:
            raise _too_large(limit)
        pieces.append(piece)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def read_json(request: Request, kind: type[T], limit: int = 65_536) -> T:
    """The body as a `kind`.

    Raises as `read_json_body`, INVALID_JSON (not JSON) and INVALID_FIELD (JSON, but not such a one;
    `field` says where).
    """
    value: T = decode_json(await read_json_body(request, limit), kind)
    return value


def read_json_body(request: Request, limit: int) -> Awaitable[bytes]:
    """The bytes of a body that is JSON by its Content-Type. Raises UNSUPPORTED_MEDIA, TOO_LARGE."""
    if first_fields(request.scope).get(b"content-type") != b"application/json":
        require_json(request)
    return read_body(request, limit)


def require_json(request: Request) -> None:
    """Raise UNSUPPORTED_MEDIA unless the body is to be read as JSON.

    It is when its type says so. It is also without a type, and as text/plain, which is what the
    `fetch` of a browser sends for a string; but only with a bearer token. A page of any origin may
    send such a body to us without asking first (Fetch standard, CORS-safelisted headers), and then
    whatever else makes the caller somebody (a developer on this machine) would act for that page.
    With a token the browser has asked first, and the page has the token anyway.
    """
    fields = first_fields(request.scope)
    given = fields.get(b"content-type", b"")
    media = given.decode("latin-1").partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        return
    if media not in UNDECLARED:
        raise SyncBridgeError(ErrorCode.UNSUPPORTED_MEDIA, f"{media[:64]}: {SEND_JSON}")
    if not fields.get(b"authorization", b"").lower().startswith(b"bearer "):
        detail = f"{media or 'no Content-Type'}, and no Authorization: Bearer: {SEND_JSON}"
        raise SyncBridgeError(ErrorCode.UNSUPPORTED_MEDIA, detail)


def decode_json(body: bytes, kind: Any) -> Any:
    """Bytes as a `kind`; raises as `read_json`, and TOO_DEEP."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if kind is not Any:
            decode_json(body, Any)  # the wrong shape was met first, but is it JSON at all?
        text, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").removeprefix(".")
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, _says(text, field), field=field) from None
    except RecursionError:
        raise SyncBridgeError(ErrorCode.TOO_DEEP, "nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SyncBridgeError(ErrorCode.INVALID_JSON, "the body is not valid JSON") from None


def _says(text: str, field: str) -> str:
    return f"{field}: {text}" if field else text


def _challenge(code: ErrorCode) -> str:
    """RFC 6750 section 3: no error code when no token was sent. Webhooks are signed instead."""
    if code is ErrorCode.WEBHOOK_SIGNATURE:
        return 'Webhook-Signature realm="syncbridge"'
    if code is ErrorCode.AUTH_REQUIRED:
        return 'Bearer realm="syncbridge"'
    return f'Bearer realm="syncbridge", error="invalid_token", error_description="{code.title}"'


def _too_large(limit: int) -> SyncBridgeError:
    return SyncBridgeError(
        ErrorCode.TOO_LARGE, f"the body must not exceed {limit} bytes", limit=limit
    )
