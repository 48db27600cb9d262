"""Metrics: our own counters, and statistics of the parts, read at each scrape.

The registry is private to a server, so that two servers in one process (tests) do not share it.
Labels come from fixed sets only: route templates, methods, status codes; never from input.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from syncbridge import __version__

if TYPE_CHECKING:
    from syncbridge_core.hub import HubStatistics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BOUNDS = (*map(str, _SECONDS), "+Inf")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_GAUGE_NAME = re.compile(r"^(open|queued)_")


class StatisticsSource(Protocol):
    """The hub, as far as metrics see it."""

    def statistics(self) -> "HubStatistics": ...


class _Series:
    """The histogram of one method and route: answers by bucket, the last one without a bound."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0


class _Answers:
    """Those of one method, route and status; and the histogram that they are in."""

    __slots__ = ("count", "series")

    def __init__(self, series: _Series) -> None:
        self.count = 0
        self.series = series


class HttpMetrics(Collector):
    """What the request middleware counts; a few integers, made into metrics when asked.

    The library's own counters take a lock and look their labels up for each increment, which
    costs more than all of this. Here everything is counted on the event loop's thread.

    Attributes:
        running: requests under way.
    """

    def __init__(self) -> None:
        self.running = 0
        self._answers: dict[tuple[str, str, int], _Answers] = {}
        self._series: dict[tuple[str, str], _Series] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one finished request. `route`: its template, not its path."""
        answers = self._answers.get((method, route, status))
        if answers is None:
            answers = self._new_answers(method, route, status)
        answers.count += 1
        series = answers.series
        series.buckets[bisect_left(_SECONDS, seconds)] += 1
        series.seconds += seconds

    def _new_answers(self, method: str, route: str, status: int) -> _Answers:
        known = method if method in _METHODS else "other"
        answers = self._answers.get((known, route, status))
        if answers is None:
            series = self._series.setdefault((known, route), _Series())
            answers = self._answers[known, route, status] = _Answers(series)
        return answers

    def collect(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "syncbridge_http_requests",
            "HTTP requests answered.",
            labels=("method", "route", "status"),
        )
        for (method, route, status), answers in list(self._answers.items()):
            counted.add_metric((method, route, str(status)), answers.count)
        timed = HistogramMetricFamily(
            "syncbridge_http_request_seconds",
            "Time from the request to the last byte of the answer.",
            labels=("method", "route"),
        )
        for labels, series in list(self._series.items()):
            bounds = zip(_BOUNDS, accumulate(series.buckets), strict=True)
            timed.add_metric(labels, list(bounds), series.seconds)
        yield counted
        yield timed
        yield GaugeMetricFamily(
            "syncbridge_http_requests_running", "HTTP requests under way.", value=self.running
        )


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
    metrics = HttpMetrics()
    registry.register(metrics)
    return metrics


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


class ReadinessSource(Protocol):
    """What is known of whether Redis can be used."""

    def figures(self) -> list[tuple[str, float]]: ...
    def by_reason(self) -> dict[str, float]: ...


class ReadinessCollector(Collector):
    """Shows the reason why the store is not ready."""

    def __init__(self, source: ReadinessSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        name, text = "syncbridge_store_not_ready", "1 for the reason why the store is not ready."
        family = GaugeMetricFamily(name, text, labels=["reason"])
        for reason, value in self._source.by_reason().items():
            family.add_metric([reason], value)
        yield family


def register_readiness(registry: CollectorRegistry, source: ReadinessSource) -> None:
    """Show in the registry whether the store is ready, and why it is not."""
    register_reading(registry, "syncbridge_store", source.figures)
    registry.register(ReadinessCollector(source))


def register_reading(
    registry: CollectorRegistry, prefix: str, read: Callable[[], Iterable[tuple[str, float]]]
) -> None:
    """Show any other numbers. See `ReadingCollector`."""
    registry.register(ReadingCollector(prefix, read))
