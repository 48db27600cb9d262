"""Requests of one caller, held to a rate by token buckets."""

import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.routes.problem import problem_of

MAX_CALLERS = 65_536
EXEMPT = ("/health", "/metrics")


class TokenBuckets:
    """A token bucket a key, the least recently used of which are forgotten.

    Args:
        rate: tokens a second. burst: most tokens at once. capacity: most keys remembered.
    """

    def __init__(self, rate: float, burst: float, capacity: int = MAX_CALLERS) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Take one token at `now` (seconds); 0, or the seconds until there is one. O(1)."""
        tokens, last = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - last) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[key] = (tokens - 1 if not wait else tokens, now)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return wait


class RateLimit:
    """ASGI: 429 with Retry-After for callers above the rate. Probes and metrics are exempt."""

    def __init__(
        self, app: ASGIApp, buckets: TokenBuckets, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app = app
        self._buckets = buckets
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(EXEMPT):
            await self.app(scope, receive, send)
            return
        wait = self._buckets.take(scope["state"].get("client_address", ""), self._clock())
        if not wait:
            await self.app(scope, receive, send)
            return
        error = SyncBridgeError(ErrorCode.RATE_LIMITED, "too many requests", retry_after=wait)
        await problem_of(error)(scope, receive, send)
