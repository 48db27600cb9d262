"""Sends documents about calls to the analytics service, in the background.

Nobody waits for it: `send` puts a document into a bounded queue, out of which the oldest is dropped
when the service cannot keep up. What got no answer is sent again a few times, with jitter; what is
refused is dropped. Every loss is counted.
"""

from collections import deque
from contextlib import aclosing
from typing import Any

import httpx
import msgspec
import stamina
import structlog
import trio

from syncbridge_server.voice.figures.metrics import AnalyticsMetrics
from syncbridge_server.voice.payload import unbroken

log = structlog.get_logger("voice")

PATH = "/voice-metrics"
LATER = frozenset({408, 425, 429})


class Undelivered(Exception):
    """The service did not take a document, and may take it later."""


class AnalyticsLimits(msgspec.Struct, frozen=True):
    """Bounds of the delivery. Times in seconds; `together`: documents sent at the same time."""

    queue: int = 10_000
    together: int = 4
    deadline_s: float = 5.0
    attempts: int = 3
    pause_s: float = 0.5
    most_s: float = 10.0


class Analytics:
    """Delivers documents.

    Args:
        url: of the service, without a slash at the end. key: bearer token; empty: none is sent.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        key: str,
        metrics: AnalyticsMetrics,
        limits: AnalyticsLimits | None = None,
    ) -> None:
        self._client = client
        self._url = url + PATH
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._metrics = metrics
        self._limits = limits or AnalyticsLimits()
        self._queue: deque[bytes] = deque()
        self._arrived = trio.Event()

    def send(self, document: dict[str, Any]) -> None:
        """Have a document sent; the oldest makes room when there is none."""
        self._queue.append(msgspec.json.encode(document))
        if len(self._queue) > self._limits.queue:
            self._queue.popleft()
            self._metrics.dropped.labels("full").inc()
        self._metrics.queued.set(len(self._queue))
        self._arrived.set()

    async def run(self) -> None:
        """Deliver, for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._limits.together):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._arrived = trio.Event()
                await self._arrived.wait()
            body = self._queue.popleft()
            self._metrics.queued.set(len(self._queue))
            try:
                await self._deliver(body)
            except Undelivered as error:
                self._metrics.dropped.labels("undelivered").inc()
                log.warning("voice_analytics_undelivered", reason=str(error))

    async def _deliver(self, body: bytes) -> None:
        """Send a document until it is taken. Raises Undelivered after the last attempt."""
        limits = self._limits
        async for attempt in stamina.retry_context(
            Undelivered,
            attempts=limits.attempts,
            timeout=None,
            wait_initial=limits.pause_s,
            wait_max=limits.most_s,
            wait_jitter=limits.pause_s,
        ):
            with attempt:
                await self._post(body)

    async def _post(self, body: bytes) -> None:
        """One attempt. Raises Undelivered when another one makes sense."""
        try:
            with trio.fail_after(self._limits.deadline_s):
                status = await self._status(body)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            raise Undelivered(type(error).__name__) from None
        if status >= 500 or status in LATER:
            raise Undelivered(f"the service answered {status}")
        if status < 300:
            self._metrics.sent.inc()
            return
        self._metrics.dropped.labels("refused").inc()
        log.warning("voice_analytics_refused", status=status)

    async def _status(self, body: bytes) -> int:
        """Send it. The answer's body does not matter, so it is not read."""
        request = self._client.build_request("POST", self._url, content=body, headers=self._headers)
        response = await self._client.send(unbroken(request), stream=True)
        async with aclosing(response):
            return response.status_code
