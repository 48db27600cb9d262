"""Around every HTTP request: its id, one access line, metrics, and the last catch of exceptions.

Plain ASGI: `RequestMiddleware(app, ...)` wraps the application itself. The id is the caller's
X-Request-ID when it is harmless, else a new one; it is in `scope["state"]["request_id"]`, in every
log line of the request, and in the answer.
"""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncbridge_server.log import get_logger
from syncbridge_server.observability import HttpMetrics
from syncbridge_server.proxies import TrustedProxies
from syncbridge_server.routes.problem import CLIENT_GONE, internal_problem

UNMATCHED = "unmatched"
_HANDOFF = re.compile(r"(/handoff/+)[^/]+", re.IGNORECASE)
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID = b"x-request-id"
_log = get_logger("HTTP")


class RequestMiddleware:
    """See the top of this file.

    Args:
        app: the application.
        metrics: where requests are counted, or None.
        access_log: write a line for each request.
        trusted_proxies: networks whose X-Forwarded-For is believed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics | None = None,
        access_log: bool = True,
        trusted_proxies: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._access_log = access_log
        self._proxies = TrustedProxies(trusted_proxies)
        self._clock = clock
        self._templates = RouteTemplates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, request_id(scope), self._proxies.client(scope))
        start = self._clock()
        if self._metrics:
            self._metrics.running.inc()
        try:
            with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
                await exchange.run(self.app, receive)
                self._finish(exchange, self._clock() - start)
        finally:
            if self._metrics:
                self._metrics.running.dec()

    def _finish(self, exchange: "_Exchange", seconds: float) -> None:
        scope = exchange.scope
        if self._metrics:
            route = self._templates.find(scope)
            self._metrics.observe(scope["method"], route, exchange.status, seconds)
        if self._access_log:
            _log.info(
                "Request answered",
                method=scope["method"],
                path=shown_path(scope),
                status=exchange.status,
                ms=round(seconds * 1000, 2),
                client=exchange.client,
            )


class _Exchange:
    """One request and what has been sent for it."""

    def __init__(self, scope: Scope, send: Send, name: str, client: str) -> None:
        self.scope = scope
        self.request_id = name
        self.client = client
        self.status = 0
        self._send = send
        scope.setdefault("state", {})["request_id"] = name
        scope["state"]["client_address"] = client

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        try:
            await app(self.scope, receive, self.send)
        except ClientDisconnect:
            self.status = self.status or CLIENT_GONE
        except Exception:
            _log.exception(
                "Request failed", method=self.scope["method"], path=shown_path(self.scope)
            )
            if not self.status:
                await internal_problem(self.request_id)(self.scope, receive, self.send)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            others = [pair for pair in message.get("headers", ()) if pair[0] != _REQUEST_ID]
            message["headers"] = [*others, (_REQUEST_ID, self.request_id.encode())]
        await self._send(message)


def request_id(scope: Scope) -> str:
    """The caller's X-Request-ID when it is 1 to 64 of [A-Za-z0-9._-], else a new one."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID:
            given = value.decode("latin-1")
            return given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex
    return uuid.uuid4().hex


def shown_path(scope: Scope) -> str:
    """The path for a log line: a handoff token is part of its path, and is a secret."""
    return _HANDOFF.sub(r"\1[redacted]", scope["path"])


class RouteTemplates:
    """`/session/{uuid}` for a request that a route answered, else `unmatched`.

    The set of answers is bounded, so that they can be labels. Starlette leaves the endpoint in the
    scope, not the route; an endpoint behind one path only is looked up, O(1).
    """

    def __init__(self) -> None:
        self._by_endpoint: dict[Any, str] = {}
        self._read_from: Any = None

    def find(self, scope: Scope) -> str:
        router = getattr(scope.get("app"), "router", None)
        if not isinstance(router, Router) or "endpoint" not in scope:
            return UNMATCHED
        if router is not self._read_from:
            self._by_endpoint, self._read_from = _single_paths(router), router
        return self._by_endpoint.get(scope["endpoint"]) or _matched(router, scope)


def _single_paths(router: Router) -> dict[Any, str]:
    """Endpoint -> path, for endpoints that stand behind one path."""
    paths: dict[Any, set[str]] = {}
    for route in router.routes:
        if isinstance(route, Route):
            paths.setdefault(route.endpoint, set()).add(route.path)
    return {endpoint: next(iter(found)) for endpoint, found in paths.items() if len(found) == 1}


def _matched(router: Router, scope: Scope) -> str:
    bare = {key: scope[key] for key in ("type", "path", "method", "headers", "root_path")}
    for route in router.routes:
        if route.matches(bare)[0] is Match.FULL:
            return str(getattr(route, "path", UNMATCHED))
    return UNMATCHED
