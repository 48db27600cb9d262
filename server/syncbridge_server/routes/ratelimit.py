"""Requests of one caller, held to a rate by token buckets.

A caller with a valid token is its user, wherever it comes from; anybody else is an address. So
users behind one address do not use up each other's requests, and inventing tokens gains nothing.
"""

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from syncbridge.buckets import TokenBuckets
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge_server.routes.problem import problem_of

EXEMPT = ("/health", "/metrics")
Verify = Callable[[str], Identity]
"""Token -> who holds it; raises SyncBridgeError and never waits."""


class RateLimit:
    """ASGI: 429 with Retry-After for callers above the rate. Probes and metrics are exempt.

    Args:
        verify: who holds a token; None: callers are told apart by address only.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        buckets: TokenBuckets,
        verify: Verify | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self._buckets = buckets
        self._verify = verify
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self.app(scope, receive, send)
            return
        wait = self._buckets.take(self._caller(scope), self._clock())
        if not wait:
            await self.app(scope, receive, send)
            return
        error = SyncBridgeError(ErrorCode.RATE_LIMITED, "too many requests", retry_after=wait)
        await problem_of(error)(scope, receive, send)

    def _caller(self, scope: Scope) -> str:
        address = str(scope["state"].get("client_address", ""))
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if self._verify is None or scheme.lower() != "bearer":
            return address
        try:
            return "user " + self._verify(token.strip()).user_id
        except SyncBridgeError:
            return address
