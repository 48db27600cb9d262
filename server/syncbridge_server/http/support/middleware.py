"""Around every HTTP request: its id, one access line, metrics, what other origins may read of the
answer, the headers that protect it, and the last catch of exceptions.

Plain ASGI: `RequestMiddleware(app, ...)` wraps the application itself. The id is the caller's
X-Request-ID when it is harmless, else a new one; it is in `scope["state"]["request_id"]`, in every
log line of the request, and in the answer.
"""

import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncbridge_server.auth.audit import Audit
from syncbridge_server.auth.refusals import Refusals
from syncbridge_server.http.support.cors import CrossOrigin
from syncbridge_server.http.support.fields import first_fields
from syncbridge_server.http.support.problem import CLIENT_GONE, internal_problem
from syncbridge_server.listener.contract import ANSWER, Answerer
from syncbridge_server.listener.response import PROTECTION
from syncbridge_server.log import REQUEST_ID, Frequent, get_logger
from syncbridge_server.observability import HttpMetrics
from syncbridge_server.origins import HeaderList
from syncbridge_server.proxies import TrustedProxies
from syncbridge_server.telemetry.tracing import TRACING

UNMATCHED = "unmatched"
"""What stands for the route in metrics when none answered."""
_HANDOFF = re.compile(r"(/handoff/+)[^/]+", re.IGNORECASE)
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID = b"x-request-id"
_OURS = frozenset({_REQUEST_ID, *(name for name, _ in PROTECTION)})
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()
_log = get_logger("HTTP")
_answered = Frequent("HTTP", "_finish", "request_answered")


class RequestMiddleware:
    """See the top of this file.

    Args:
        app: the application.
        metrics: where requests are counted, or None.
        access_log: write a line for each request.
        trusted_proxies: networks whose X-Forwarded-For is trusted.
        cors: what pages of other origins may do, or None: nothing.
        refusals: where refused requests are counted, or None.
        audit: where some requests leave a line of their own, or None.
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
        refusals: Refusals | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.app = app
        self._cors = cors
        self._refusals = refusals
        self._audit = audit
        self._metrics = metrics
        self._access_log = access_log
        self._proxies = TrustedProxies(trusted_proxies)
        self._clock = clock

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        if scope.get("root_path"):
            scope = _without_root(scope)
        exchange = _Exchange(scope, send, request_id(scope), self._proxies.client(scope))
        if ANSWER in scope:
            scope[ANSWER] = exchange.answer
        if TRACING.on:
            parent = first_fields(scope).get(b"traceparent", b"").decode("latin-1")
            if TRACING.samples(parent):
                return self._traced(exchange, receive, parent)
        return self._answer(exchange, receive)

    async def _traced(self, exchange: "_Exchange", receive: Receive, parent: str) -> None:
        scope = exchange.scope
        with TRACING.request(scope["method"], parent) as told:
            await self._answer(exchange, receive)
            told |= {
                "http.request.method": scope["method"],
                "http.route": template(scope),
                "http.response.status_code": exchange.status,
                "syncbridge.request_id": exchange.request_id,
            }

    async def _answer(self, exchange: "_Exchange", receive: Receive) -> None:
        app, scope = self.app, exchange.scope
        if self._cors is not None:
            exchange.cors = self._cors.answer_headers(scope)
            if scope["method"] == "OPTIONS":
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
        state, route = scope["state"], template(scope)
        error = state["refused"]
        if error is not None and self._refusals is not None:
            user = state.get("user", "")
            self._refusals.error("http", error, client=exchange.client, user=user, route=route)
        if self._audit is not None:
            self._audit.request(scope, route, exchange.status, time.time())
        if self._metrics is not None:
            self._metrics.observe(scope["method"], route, exchange.status, seconds)
        if self._access_log:
            _answered(
                method=scope["method"],
                path=shown_path(scope),
                status=exchange.status,
                ms=round(seconds * 1000, 2),
                client=exchange.client,
            )


class _Exchange:
    """One request and what has been sent for it. `cors`: headers that any answer carries."""

    __slots__ = ("_answer", "_send", "client", "cors", "request_id", "scope", "status")

    def __init__(self, scope: Scope, send: Send, name: str, client: str) -> None:
        self._answer: Answerer | None = scope.get(ANSWER)
        self.scope = scope
        self.request_id = name
        self.client = client
        self.status = 0
        self.cors: HeaderList = []
        self._send = send
        state = scope.setdefault("state", {})
        state["request_id"] = name
        state["client_address"] = client
        state["refused"] = None

    async def failed(self, error: Exception, receive: Receive) -> None:
        """The application has raised: log it, and answer if nothing was answered."""
        if isinstance(error, ClientDisconnect):
            self.status = self.status or CLIENT_GONE
            return
        _log.error(
            "request_failed",
            method=self.scope["method"],
            path=shown_path(self.scope),
            exc_info=error,
        )
        if not self.status:
            await internal_problem(self.request_id)(self.scope, receive, self.send)

    def answer(self, status: int, headers: HeaderList, body: bytes) -> Awaitable[None] | None:
        """As `send`, for a whole answer: see `Answerer`."""
        assert self._answer is not None
        self.status = status
        headers.append((_REQUEST_ID, self.request_id.encode()))
        headers += self.cors
        return self._answer(status, headers, body)

    def send(self, message: Message) -> Awaitable[None]:
        """It hands on what the server awaits, so that it costs no frame of its own."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            others = [pair for pair in message.get("headers", ()) if pair[0] not in _OURS]
            others.append((_REQUEST_ID, self.request_id.encode()))
            others += PROTECTION
            others += self.cors
            message["headers"] = others
        return self._send(message)


def _without_root(scope: Scope) -> Scope:
    """With the path as routes know it: some proxies pass on the one under which they show us."""
    root, path = scope["root_path"], scope["path"]
    return {**scope, "path": path[len(root) :]} if path.startswith(root + "/") else scope


def request_id(scope: Scope) -> str:
    """The caller's X-Request-ID when it is 1 to 64 of [A-Za-z0-9._-], else a new one."""
    given = first_fields(scope).get(_REQUEST_ID)
    if given is not None and _HARMLESS.fullmatch(text := given.decode("latin-1")):
        return text
    return _new_id()


def _new_id() -> str:
    """32 characters that no other process has, and no other request of this one."""
    return f"{_PROCESS}{next(_numbers):016x}"


def shown_path(scope: Scope) -> str:
    """The path for a log line: a handoff token is part of its path, and is a secret."""
    return _HANDOFF.sub(r"\1[redacted]", scope["path"])


def template(scope: Scope) -> str:
    """`/session/{uuid}` for a request that a route answered, else UNMATCHED.

    The set of answers is bounded, so that they can be labels.
    """
    return str(getattr(scope.get("route"), "path", UNMATCHED))
