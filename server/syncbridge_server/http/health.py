"""GET /health, /health/live, /health/ready: for people, for supervisors, for load balancers."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import __version__
from syncbridge_server.durations import clock_duration
from syncbridge_server.http.support.ready import json_of_now
from syncbridge_server.openapi.describe import Answer, describe


class HealthSource(Protocol):
    """What health is read from."""

    @property
    def active_connections(self) -> int:
        """Open WebSockets of this process."""

    @property
    def store_connected(self) -> bool:
        """Whether Redis answers."""

    @property
    def store_reason(self) -> str:
        """Why a write would not be stored or a message to another node not arrive, or empty."""

    @property
    def draining(self) -> bool:
        """Whether a shutdown has begun."""

    @property
    def kernel(self) -> str:
        """Which document kernel runs: `compiled` or `pure`."""


class HealthMetrics(msgspec.Struct):
    """The health of the server and of its parts."""

    snapshot_ttl_hours: float
    multi_device_enabled: bool
    versioning_enabled: bool
    kernel: str
    store_connected: bool


class HealthBody(msgspec.Struct):
    """Answer of `GET /health`."""

    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: str
    version: str
    uptime: str
    active_connections: int
    metrics: HealthMetrics
    reasons: list[str] = []


class StatusBody(msgspec.Struct):
    """Answer of a probe."""

    status: str


class NotReadyBody(msgspec.Struct):
    """Answer of the readiness probe when new work is not welcome."""

    status: str
    reason: str


STORES = ("", "bus_deaf", "bus_elsewhere")
"""Reasons with which a write is stored."""


class Health:
    """The three answers.

    Args:
        session_ttl: seconds. clock: Unix seconds. started: when the server did, same clock.
    """

    def __init__(
        self,
        source: HealthSource,
        session_ttl: float = 604_800.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._session_ttl = session_ttl
        self._clock = clock
        self._started = clock()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/health/live", self.live, methods=["GET"]),
            Route("/health/ready", self.ready, methods=["GET"]),
        ]

    def reasons(self) -> list[str]:
        """Why new work is not welcome; empty when it is."""
        draining = ["draining"] if self._source.draining else []
        store = self._source.store_reason
        return [*draining, store] if store else draining

    def status(self) -> str:
        """unhealthy while no write would be stored, degraded for other reasons, else healthy."""
        if self._source.store_reason not in STORES:
            return "unhealthy"
        return "degraded" if self.reasons() else "healthy"

    @describe("Health of the server", answers={200: HealthBody}, public=True, limited=False)
    async def health(self, request: Request) -> Response:
        """Always 200: the process answers, and says how it is."""
        now = self._clock()
        hours, reasons = self._session_ttl / 3600, self.reasons()
        return _json(
            ({"reasons": reasons} if reasons else {})
            | {
                "status": self.status(),
                "timestamp": datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "version": __version__,
                "uptime": clock_duration(max(0.0, now - self._started)),
                "active_connections": self._source.active_connections,
                "metrics": {
                    "snapshot_ttl_hours": int(hours) if hours.is_integer() else round(hours, 3),
                    "multi_device_enabled": True,
                    "versioning_enabled": True,
                    "kernel": self._source.kernel,
                    "store_connected": self._source.store_connected,
                },
            }
        )

    @describe("Liveness probe", answers={200: StatusBody}, public=True, limited=False)
    async def live(self, request: Request) -> Response:
        """200 while the event loop turns; says nothing of Redis, whose loss no restart mends."""
        return _json({"status": "alive"})

    @describe(
        "Readiness probe",
        answers={200: StatusBody, 503: Answer("Draining, or Redis cannot be used.", NotReadyBody)},
        public=True,
        limited=False,
    )
    async def ready(self, request: Request) -> Response:
        """200 if a write would be stored and a message to other nodes would arrive; else 503 with
        the reason."""
        reasons = self.reasons()
        if not reasons:
            return _json({"status": "ready"})
        body = {"status": "not_ready", "reason": reasons[0]}
        return _json(body, 503, (b"retry-after", b"1"))


def _json(body: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Response:
    return json_of_now(msgspec.json.encode(body), status, *headers)
