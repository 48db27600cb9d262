"""Sends documents about calls to the analytics service in the background.

`send` never blocks: it adds a document to a bounded queue, which drops its oldest document when the
service cannot keep up. A document without an answer is retried a few times with jitter; a refused
one is dropped. Every loss is counted.
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
    """The service did not accept a document but may accept it later."""


class AnalyticsLimits(msgspec.Struct, frozen=True):
    """Bounds of the delivery. Times in seconds. `together`: concurrent requests."""

    queue: int = 10_000
    together: int = 4
    deadline_s: float = 5.0
    attempts: int = 3
    pause_s: float = 0.5
    most_s: float = 10.0


class Analytics:
    """Delivers documents.

    Args:
        url: base URL of the service, without a trailing slash. key: bearer token, or empty.
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
        self._idle = trio.lowlevel.ParkingLot()

    def send(self, document: dict[str, Any]) -> None:
        """Queue a document; drops the oldest when the queue is full."""
        self._queue.append(msgspec.json.encode(document))
        if len(self._queue) > self._limits.queue:
            self._queue.popleft()
            self._metrics.dropped.labels("full").inc()
        self._metrics.queued.set(len(self._queue))
        self._idle.unpark()

    async def run(self) -> None:
        """Deliver queued documents for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._limits.together):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            while not self._queue:
                await self._idle.park()
            body = self._queue.popleft()
            self._metrics.queued.set(len(self._queue))
            try:
                await self._deliver(body)
            except Undelivered as error:
                self._metrics.dropped.labels("undelivered").inc()
                log.warning("voice_analytics_undelivered", reason=str(error))

    async def _deliver(self, body: bytes) -> None:
        """Send a document until it is accepted. Raises Undelivered after the last attempt."""
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
        """Make one attempt. Raises Undelivered if a retry makes sense."""
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
        """Send the document; returns the status. The body of the answer is not read."""
        request = self._client.build_request("POST", self._url, content=body, headers=self._headers)
        response = await self._client.send(unbroken(request), stream=True)
        async with aclosing(response):
            return response.status_code
