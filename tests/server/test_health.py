"""/health, /health/live, /health/ready and /metrics."""

from datetime import UTC, datetime

import httpx
import pytest
from starlette.applications import Starlette

from support.auth_kit import NOW, Clock
from syncbridge import __version__
from syncbridge_server.http.health import Health
from syncbridge_server.http.metrics import metrics_routes
from syncbridge_server.observability import (
    new_registry,
    register_hub,
    register_reading,
    register_store,
)


class Source:
    """A server that says of itself what it is told to."""

    active_connections = 5_432
    store_connected = True
    store_reason = ""
    draining = False
    kernel = "compiled"

    @property
    def connected(self) -> bool:
        return self.store_connected


def client(source: Source, clock: Clock) -> httpx.AsyncClient:
    """A client of the health routes."""
    transport = httpx.ASGITransport(Starlette(routes=Health(source, clock=clock).routes()))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_health_has_the_documented_body() -> None:
    """Field for field."""
    clock = Clock()
    async with client(Source(), clock) as http:
        clock.now += 260_130
        answer = await http.get("/health")

    body = answer.json()
    assert 200 == answer.status_code
    assert {
        "status": "healthy",
        "timestamp": datetime.fromtimestamp(NOW + 260_130, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": __version__,
        "uptime": "72h15m30s",
        "active_connections": 5_432,
        "metrics": {
            "snapshot_ttl_hours": 168,
            "multi_device_enabled": True,
            "versioning_enabled": True,
            "kernel": "compiled",
            "store_connected": True,
        },
    } == body


@pytest.mark.parametrize(
    ("reason", "draining", "status", "reasons"),
    [
        ("", False, "healthy", []),
        ("away", False, "unhealthy", ["away"]),
        ("oom", False, "unhealthy", ["oom"]),
        ("bus_deaf", False, "degraded", ["bus_deaf"]),
        ("", True, "degraded", ["draining"]),
        ("readonly", True, "unhealthy", ["draining", "readonly"]),
    ],
)
async def test_readiness(reason: str, draining: bool, status: str, reasons: list[str]) -> None:
    """Not ready, with the first reason, while Redis cannot be used or while draining."""
    source = Source()
    source.store_reason, source.draining = reason, draining
    async with client(source, Clock()) as http:
        health, live, readiness = [
            await http.get(f"/health{path}") for path in ("", "/live", "/ready")
        ]

    assert (200, status) == (health.status_code, health.json()["status"])
    assert reasons == health.json().get("reasons", [])
    assert 200 == live.status_code
    expected = {"status": "not_ready", "reason": reasons[0]} if reasons else {"status": "ready"}
    assert (503 if reasons else 200, expected) == (readiness.status_code, readiness.json())
    assert ("retry-after" in readiness.headers) is bool(reasons)


class FakeHub:
    """A hub with numbers."""

    def statistics(self):  # type: ignore[no-untyped-def]
        from collections import namedtuple

        return namedtuple("Statistics", "open_connections queued_bytes frames_out")(3, 4, 5)


async def test_metrics_show_the_parts() -> None:
    """Gauges and counters of the hub, the store, other parts and the process."""
    registry = new_registry()
    register_hub(registry, FakeHub())
    register_store(registry, Source())
    register_reading(registry, "syncbridge_voice", lambda: [("rooms", 2), ("polls_total", 7)])
    transport = httpx.ASGITransport(Starlette(routes=metrics_routes(registry)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        plain = await http.get("/metrics")
        accept = {"Accept": "application/openmetrics-text"}
        modern = await http.get("/metrics", headers=accept)

    lines = plain.text.splitlines()
    for line in (
        "# TYPE syncbridge_hub_open_connections gauge",
        "syncbridge_hub_open_connections 3.0",
        "syncbridge_hub_queued_bytes 4.0",
        "# TYPE syncbridge_hub_frames_out_total counter",
        "syncbridge_hub_frames_out_total 5.0",
        "syncbridge_store_connected 1.0",
        "syncbridge_voice_rooms 2.0",
        "syncbridge_voice_polls_total 7.0",
        f'syncbridge_build{{version="{__version__}"}} 1.0',
    ):
        assert line in lines
    assert "process_resident_memory_bytes" in plain.text
    assert "_created" not in plain.text
    assert plain.headers["content-type"].startswith("text/plain")
    assert modern.text.endswith("# EOF\n")
    assert modern.headers["content-type"].startswith("application/openmetrics-text")


def test_registries_are_private() -> None:
    """Two servers of one process do not share numbers."""
    first, second = new_registry(), new_registry()
    register_store(first, Source())

    assert 1.0 == first.get_sample_value("syncbridge_store_connected")
    assert second.get_sample_value("syncbridge_store_connected") is None
