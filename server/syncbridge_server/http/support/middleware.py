"""Around every HTTP request: its id, one access line, metrics, what other origins may read of the
answer, and the last catch of exceptions.

Plain ASGI: `RequestMiddleware(app, ...)` wraps the application itself. The id is the caller's
X-Request-ID when it is harmless, else a new one; it is in `scope["state"]["request_id"]`, in every
log line of the request, and in the answer.
"""

import itertools
import re
import secrets
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncbridge_server.http.support.cors import CrossOrigin
from syncbridge_server.http.support.problem import CLIENT_GONE, internal_problem
from syncbridge_server.log import REQUEST_ID, get_logger
from syncbridge_server.observability import HttpMetrics
from syncbridge_server.origins import HeaderList
from syncbridge_server.proxies import TrustedProxies

UNMATCHED = "unmatched"
"""What stands for the route in metrics when none answered."""
_HANDOFF = re.compile(r"(/handoff/+)[^/]+", re.IGNORECASE)
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID = b"x-request-id"
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()
_log = get_logger("HTTP")


class RequestMiddleware:
    """See the top of this file.

    Args:
        app: the application.
        metrics: where requests are counted, or None.
        access_log: write a line for each request.
        trusted_proxies: networks whose X-Forwarded-For is believed.
        cors: what pages of other origins may do, or None: nothing.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics | None = None,
        access_log: bool = True,
        trusted_proxies: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        cors: CrossOrigin | None = None,
    ) -> None:
        self.app = app
        self._cors = cors
        self._metrics = metrics
        self._access_log = access_log
        self._proxies = TrustedProxies(trusted_proxies)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, request_id(scope), self._proxies.client(scope))
        app = self.app
        if self._cors is not None:
            exchange.cors = self._cors.answer_headers(scope)
            app = self._cors.preflight(scope) or app
        metrics = self._metrics
        start = self._clock()
        if metrics:
            metrics.running += 1
        bound = REQUEST_ID.set(exchange.request_id)
        try:
            try:
                await app(scope, receive, exchange.send)
            except Exception as error:
                await exchange.failed(error, receive)
            self._finish(exchange, self._clock() - start)
        finally:
            REQUEST_ID.reset(bound)
            if metrics:
                metrics.running -= 1

    def _finish(self, exchange: "_Exchange", seconds: float) -> None:
        scope = exchange.scope
        if self._metrics:
            self._metrics.observe(scope["method"], template(scope), exchange.status, seconds)
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
    """One request and what has been sent for it. `cors`: headers that any answer carries."""

    __slots__ = ("_send", "client", "cors", "request_id", "scope", "status")

    def __init__(self, scope: Scope, send: Send, name: str, client: str) -> None:
        self.scope = scope
        self.request_id = name
        self.client = client
        self.status = 0
        self.cors: HeaderList = []
        self._send = send
        state = scope.setdefault("state", {})
        state["request_id"] = name
        state["client_address"] = client

    async def failed(self, error: Exception, receive: Receive) -> None:
        """The application has raised: log it, and answer if nothing was answered."""
        if isinstance(error, ClientDisconnect):
            self.status = self.status or CLIENT_GONE
            return
        _log.error(
            "Request failed",
            method=self.scope["method"],
            path=shown_path(self.scope),
            exc_info=error,
        )
        if not self.status:
            await internal_problem(self.request_id)(self.scope, receive, self.send)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            others = [pair for pair in message.get("headers", ()) if pair[0] != _REQUEST_ID]
            others.append((_REQUEST_ID, self.request_id.encode()))
            others += self.cors
            message["headers"] = others
        await self._send(message)


def request_id(scope: Scope) -> str:
    """The caller's X-Request-ID when it is 1 to 64 of [A-Za-z0-9._-], else a new one."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID:
            given = value.decode("latin-1")
            return given if _HARMLESS.fullmatch(given) else _new_id()
    return _new_id()


def _new_id() -> str:
    """32 characters that no other process has, and no other request of this one."""
    return f"{_PROCESS}{next(_numbers):016x}"


def shown_path(scope: Scope) -> str:
    """The path for a log line: a handoff token is part of its path, and is a secret."""
    return _HANDOFF.sub(r"\1[redacted]", scope["path"])


def template(scope: Scope) -> str:
    """`/session/{uuid}` for a request that a route answered, else UNMATCHED.

    The set of answers is bounded, so that they can be labels. Starlette 1.0 leaves the endpoint in
    the scope, but not yet the route, so that it has to be looked for again.
    """
    route = scope.get("route")
    router = scope.get("router")
    if route is None and "endpoint" in scope and isinstance(router, Router):
        bare = {key: scope[key] for key in ("type", "path", "method", "headers", "root_path")}
        found = [(one.matches(bare)[0], one) for one in router.routes]
        found.sort(key=lambda pair: pair[0].value, reverse=True)
        route = found[0][1] if found and found[0][0] is not Match.NONE else None
    return str(getattr(route, "path", UNMATCHED))
