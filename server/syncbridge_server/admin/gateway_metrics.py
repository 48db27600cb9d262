"""Counts of the gateway and the link to Redis, collected as metrics.

The parts keep plain integers. Labels come from the catalogues of message types, error codes and
close codes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from syncbridge.close_codes import CloseCode
from syncbridge.messages import MessageType
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.telemetry.timing import Timing

FOREIGN_CLOSES = frozenset({1003, 1005, 1006, 1008, 1010})
"""Close codes of clients, browsers and broken connections, besides our own."""


class GatewayMetrics(Collector):
    """Reads a gateway and its link to Redis. O(labels). `most`: bound of sockets; 0 for none."""

    def __init__(self, gateway: Gateway, io: RedisIO, most: int = 0) -> None:
        self._gateway = gateway
        self._most = most
        self._io = io

    def collect(self) -> Iterator[Metric]:
        gateway, counters = self._gateway, self._gateway.counters
        registry = gateway.registry
        yield _gauge("syncbridge_sessions", "Sessions on this process.", len(registry.sessions))
        yield _gauge("syncbridge_devices", "Sockets with a valid AUTH.", registry.authenticated)
        yield _gauge("syncbridge_connections_limit", "Bound of sockets; 0: none.", self._most)
        yield _gauge("syncbridge_redis_queued", "Commands without an answer yet.", self._io.queued)
        totals = (
            ("syncbridge_commits", "Writes that made a new version.", counters.writes),
            ("syncbridge_conflicts", "Writes refused: another was faster.", counters.conflicts),
            ("syncbridge_sessions_created", "Sessions made by a write.", counters.created),
            (
                "syncbridge_written_bytes",
                "Keys and values stored, in bytes.",
                counters.written_bytes,
            ),
        )
        for name, text, value in totals:
            yield CounterMetricFamily(name, text, value=value)
        yield from self._labelled()
        timed = (
            ("syncbridge_commit_seconds", "From a write to the answer of Redis.", counters.commits),
            ("syncbridge_redis_seconds", "Commands together, to their answers.", self._io.times),
            (
                "syncbridge_tick_seconds",
                "Work on what one look at the sockets gave.",
                counters.ticks,
            ),
        )
        for name, text, timing in timed:
            yield histogram(name, text, timing)

    def _labelled(self) -> Iterator[Metric]:
        gateway = self._gateway
        engine, counters = gateway.engine, gateway.counters
        messages = {type_name(kind): n for kind, n in list(engine.messages.items())}
        yield _counter("syncbridge_messages", "Messages carried out.", "type", messages)
        yield _counter("syncbridge_auth", "AUTH messages by result.", "result", counters.auth)
        yield _counter("syncbridge_closes", "Sockets closed.", "code", closes(engine.closes))
        text = "What AUTH gave a device that had a state."
        yield _counter("syncbridge_resumes", text, "kind", counters.resumes)


def type_name(kind: int | str) -> str:
    """The label of a message type."""
    return kind if isinstance(kind, str) else MessageType(kind).name.lower()


def closes(counted: Mapping[int, int]) -> dict[str, int]:
    """Counts by close code; undefined codes share one label."""
    known = FOREIGN_CLOSES | set(CloseCode)
    found: dict[str, int] = {}
    for code, count in list(counted.items()):
        label = str(int(code)) if code in known else "other"
        found[label] = found.get(label, 0) + count
    return found


def histogram(name: str, text: str, timing: Timing) -> Metric:
    """One histogram without labels."""
    family = HistogramMetricFamily(name, text)
    family.add_metric((), timing.buckets(), timing.seconds)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, label: str, counts: Mapping[str, Any]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
