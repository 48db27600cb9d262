"""Requests of pages of another origin (CORS, Fetch standard section 3.3).

`Origins` knows which pages are let in. This file answers a preflight with the methods of the path,
and adds to every response, errors too, which origin may read it. Webhooks are not for browsers; at
their paths nothing of this is said.
"""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Scope

from syncbridge_server.http.support.fields import first_fields
from syncbridge_server.http.support.paths import PATHS as WEBHOOKS
from syncbridge_server.http.support.ready import Ready
from syncbridge_server.http.support.resources import Resources
from syncbridge_server.listener.response import refusal_response
from syncbridge_server.listener.upgrade import ORIGIN_REFUSED
from syncbridge_server.origins import HeaderList, Origins

MAX_AGE = 7200
"""Seconds that a browser may remember a preflight; none remembers longer than that or a day."""
READ = (
    "Authorization, Content-Encoding, Content-Type, Idempotency-Key, If-Match, If-None-Match,"
    " X-Device-ID, X-Request-ID"
)
"""Request headers used here that a page may send only after a preflight."""
_VARY = (b"vary", b"Origin")
_VARIES = [_VARY]


class CrossOrigin:
    """Args: `origins`: the pages that are let in. `routes`: of the application."""

    def __init__(self, origins: Origins, routes: Iterable[BaseRoute]) -> None:
        self._origins = origins
        self._resources = Resources(routes)

    def answer_headers(self, scope: Scope) -> HeaderList:
        """The headers of any response to this request; not to be modified."""
        if scope["path"] in WEBHOOKS:
            return []
        fields = first_fields(scope)
        origin = fields.get(b"origin")
        if not origin:
            return _VARIES
        return [_VARY, *self._origins.answer_headers(origin, fields.get(b"host", b""))]

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a preflight; None when the request is none."""
        if scope["method"] != "OPTIONS" or scope["path"] in WEBHOOKS:
            return None
        fields = first_fields(scope)
        origin = fields.get(b"origin")
        if not origin or not fields.get(b"access-control-request-method"):
            return None
        if not self._origins.admits(origin, fields.get(b"host", b""), "preflight"):
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
        """The methods of the routes of a path; all of them for an unknown path, so that the page
        sees the 404."""
        found = self._resources.find(scope["path"], "")
        return self._resources.methods if found is None else found.methods
