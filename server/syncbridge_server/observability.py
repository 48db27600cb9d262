"""Metrics: counters that we keep, and statistics of the parts read when somebody asks.

The registry is private to a server, so that two servers in one process (tests) do not share it.
Labels come from fixed sets only: route templates, methods, status codes; never from input.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from syncbridge import __version__

if TYPE_CHECKING:
    from syncbridge_core.hub import HubStatistics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_GAUGE_NAME = re.compile(r"^(open|queued)_")


class StatisticsSource(Protocol):
    """The hub, as far as metrics see it."""

    def statistics(self) -> "HubStatistics": ...


class HttpMetrics(NamedTuple):
    """What the request middleware counts."""

    requests: Counter
    seconds: Histogram
    running: Gauge

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one finished request. `route`: its template, not its path."""
        method = method if method in _METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)


def new_registry() -> CollectorRegistry:
    """A registry with process metrics and the version."""
    # One series more for each set of labels, which nobody reads
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Gauge("syncbridge_build", "Always 1.", ["version"], registry=registry)
    build.labels(__version__).set(1)
    return registry


def http_metrics(registry: CollectorRegistry) -> HttpMetrics:
    """Register the metrics of HTTP requests."""
    return HttpMetrics(
        Counter(
            "syncbridge_http_requests_total",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=registry,
        ),
        Histogram(
            "syncbridge_http_request_seconds",
            "Time from the request to the last byte of the answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        ),
        Gauge("syncbridge_http_requests_running", "HTTP requests under way.", registry=registry),
    )


class HubCollector(Collector):
    """The hub's statistics; a field `open_*` or `queued_*` is a gauge, the others are counters."""

    def __init__(self, hub: StatisticsSource) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        statistics = self._hub.statistics()
        for name, value in zip(statistics._fields, statistics, strict=True):
            text = f"Hub: {name.replace('_', ' ')}."
            if _GAUGE_NAME.match(name):
                yield GaugeMetricFamily(f"syncbridge_hub_{name}", text, value=value)
            else:
                yield CounterMetricFamily(f"syncbridge_hub_{name}", text, value=value)


class ReadingCollector(Collector):
    """Numbers that a part of the server reports when asked.

    Args:
        prefix: first words of the metric names, such as `syncbridge_store`.
        read: returns name -> value; a name that ends in `_total` is a counter, others are gauges.
    """

    def __init__(self, prefix: str, read: Callable[[], Iterable[tuple[str, float]]]) -> None:
        self._prefix = prefix
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, value in self._read():
            kind: Any = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            text = f"{name.removesuffix('_total').replace('_', ' ')}."
            yield kind(f"{self._prefix}_{name}", text, value=value)


class StoreSource(Protocol):
    """The store, as far as metrics see it."""

    @property
    def connected(self) -> bool: ...


def register_hub(registry: CollectorRegistry, hub: StatisticsSource) -> None:
    """Show the hub in the registry."""
    registry.register(HubCollector(hub))


def register_store(registry: CollectorRegistry, store: StoreSource) -> None:
    """Show in the registry whether Redis answers."""
    register_reading(registry, "syncbridge_store", lambda: [("connected", float(store.connected))])


def register_reading(
    registry: CollectorRegistry, prefix: str, read: Callable[[], Iterable[tuple[str, float]]]
) -> None:
    """Show any other numbers. See `ReadingCollector`."""
    registry.register(ReadingCollector(prefix, read))
