"""Requests of pages of another origin (CORS, Fetch standard section 3.3).

`Origins` knows which pages are let in. Here is what their browsers ask and are told: a preflight is
answered with what the routes of its path take, and every answer, errors too, says who may read it.
Webhooks are not for browsers; at their paths nothing of this is said.
"""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from syncbridge_server.http.support.paths import PATHS as WEBHOOKS
from syncbridge_server.http.support.ready import Ready
from syncbridge_server.listener.response import refusal_response
from syncbridge_server.listener.upgrade import ORIGIN_REFUSED
from syncbridge_server.origins import HeaderList, Origins

MAX_AGE = 7200
"""Seconds that a browser may remember a preflight; none remembers longer than that or a day."""
READ = (
    "Authorization, Content-Encoding, Content-Type, Idempotency-Key, If-Match, If-None-Match,"
    " X-Device-ID, X-Request-ID"
)
"""Request headers that mean something here and that a page may only send when it was told so."""
_VARY = (b"vary", b"Origin")
_BARE = ("type", "path", "method", "headers", "root_path")


class CrossOrigin:
    """Args: `origins`: the pages that are let in. `routes`: of the application."""

    def __init__(self, origins: Origins, routes: Iterable[BaseRoute]) -> None:
        self._origins = origins
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._methods = frozenset().union(*(route.methods or () for route in self._routes))

    def answer_headers(self, scope: Scope) -> HeaderList:
        """What any answer to this request says besides its own."""
        if scope["path"] in WEBHOOKS:
            return []
        origin = _header(scope, b"origin")
        if not origin:
            return [_VARY]
        return [_VARY, *self._origins.answer_headers(origin, _header(scope, b"host"))]

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a preflight; None when the request is none."""
        if scope["method"] != "OPTIONS" or scope["path"] in WEBHOOKS:
            return None
        origin = _header(scope, b"origin")
        if not origin or not _header(scope, b"access-control-request-method"):
            return None
        if not self._origins.admits(origin, _header(scope, b"host"), "preflight"):
            status, headers, body = refusal_response(ORIGIN_REFUSED)
            return Ready(status, headers, body)
        methods = ", ".join(sorted(self._methods_at(scope)))
        headers = [
            (b"access-control-allow-methods", methods.encode()),
            (b"access-control-allow-headers", READ.encode()),
            (b"access-control-max-age", b"%d" % MAX_AGE),
        ]
        return Ready(204, headers, b"")

    def _methods_at(self, scope: Scope) -> frozenset[str]:
        """What the routes of a path take; where there is none, all: the page shall see the 404."""
        bare = {key: scope[key] for key in _BARE}
        here = [route for route in self._routes if route.matches(bare)[0] is not Match.NONE]
        return frozenset().union(*(route.methods or () for route in here)) or self._methods


def _header(scope: Scope, wanted: bytes) -> bytes:
    """The first value of a header; empty without one."""
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""
