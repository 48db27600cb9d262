"""Limits the request rate of each caller with token buckets.

A caller with a valid token counts as its user, any other as its address. So
users behind one address do not use up each other's requests, and inventing tokens gains nothing.

Webhooks come from few addresses and in bursts, so they have buckets of their own, by address. Above
the rate they are answered 503: providers do not send again what was answered with 4xx.
"""

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.rates.buckets import TokenBuckets
from syncbridge_server.http.support.paths import PATHS as WEBHOOKS
from syncbridge_server.http.support.problem import problem_of, refused_with
from syncbridge_server.listener.shares import holder_name

EXEMPT = ("/health", "/metrics")
Verify = Callable[[str], Identity]
"""Token -> who holds it; raises SyncBridgeError and never waits."""


class RateLimit:
    """ASGI: 429 with Retry-After for callers above the rate. Probes and metrics are exempt.

    Args:
        webhooks: buckets of webhooks; None: those of everybody.
        verify: who holds a token; None: callers are distinguished by address only.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        buckets: TokenBuckets,
        verify: Verify | None = None,
        clock: Callable[[], float] = time.monotonic,
        webhooks: TokenBuckets | None = None,
    ) -> None:
        self.app = app
        self._buckets = buckets
        self._webhooks = buckets if webhooks is None else webhooks
        self._verify = verify
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self.app(scope, receive, send)
            return
        webhook = scope["path"] in WEBHOOKS
        wait = self._webhook_wait(scope) if webhook else self._wait(scope)
        if not wait:
            await self.app(scope, receive, send)
            return
        code = ErrorCode.OVERLOADED if webhook else ErrorCode.RATE_LIMITED
        error = SyncBridgeError(code, "too many requests", retry_after=wait)
        refused_with(scope, error)
        await problem_of(error)(scope, receive, send)

    def _wait(self, scope: Scope) -> float:
        return self._buckets.take(self._caller(scope), self._clock())

    def _webhook_wait(self, scope: Scope) -> float:
        return self._webhooks.take(_address(scope), self._clock())

    def _caller(self, scope: Scope) -> str:
        address = _address(scope)
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if self._verify is None or scheme.lower() != "bearer":
            return address
        try:
            return "user " + self._verify(token.strip()).user_id
        except SyncBridgeError:
            return address


def _address(scope: Scope) -> str:
    client = str(scope["state"].get("client_address", ""))
    return holder_name(client) or client  # IPv6 by /64
