"""Prometheus metrics of voice. Label values come from fixed sets, never from input."""

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WRONG_SECONDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 65.0, 120.0, 300.0, 900.0, 3600.0)
PASS_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)


class ProviderMetrics(NamedTuple):
    """Requests to the provider by call and outcome, and their duration."""

    requests: Counter
    seconds: Histogram
    retries: Counter


class SyncMetrics(NamedTuple):
    """The comparison with the provider.

    `unverified`: calls that the latest pass could not verify. `waiting`: calls that it left over.
    `repairs`, `wrong`: unnoticed joins and leaves, and the longest time for which they were.
    """

    passes: Counter
    seconds: Histogram
    calls: Counter
    looks: Counter
    drift: Counter
    unverified: Gauge
    waiting: Gauge
    orphans: Counter
    recreated: Counter
    repairs: Counter
    wrong: Histogram


class ChannelMetrics(NamedTuple):
    """Calls: results of the monitor's latest pass, and ended calls."""

    live: Gauge
    participants: Gauge
    health: Gauge
    finals: Counter
    participant_seconds: Counter
    migrations: Counter
    migrated: Counter
    stranded: Counter
    handovers: Counter
    recordings: Counter


class AnalyticsMetrics(NamedTuple):
    """Delivery to the analytics service."""

    sent: Counter
    dropped: Counter
    queued: Gauge


class VoiceMetrics(NamedTuple):
    """All metrics of voice."""

    provider: ProviderMetrics
    sync: SyncMetrics
    calls: ChannelMetrics
    analytics: AnalyticsMetrics


def voice_metrics(registry: CollectorRegistry) -> VoiceMetrics:
    """Register the metrics of voice, once for each registry."""
    make = _Maker(registry)
    return VoiceMetrics(_provider(make), _sync(make), _calls(make), _analytics(make))


class _Maker:
    """Makes metrics whose names begin with `syncbridge_voice_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"syncbridge_voice_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"syncbridge_voice_{name}", text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"syncbridge_voice_{name}", text, labels, registry=self._registry, buckets=buckets
        )


def _provider(make: _Maker) -> ProviderMetrics:
    return ProviderMetrics(
        make.counter("provider_requests_total", "Provider calls.", "call", "outcome"),
        make.histogram("provider_seconds", "Time of provider calls.", SECONDS, "call"),
        make.counter("provider_retries_total", "Provider calls that were repeated.", "call"),
    )


def _sync(make: _Maker) -> SyncMetrics:
    return SyncMetrics(
        make.counter("sync_passes_total", "Comparisons with the provider.", "result"),
        make.histogram("sync_seconds", "Time of comparisons.", PASS_SECONDS),
        make.counter("sync_calls_total", "Provider calls of comparisons.", "call"),
        make.counter("sync_looks_total", "State checks of calls.", "reason"),
        make.counter("drift_total", "Differences found.", "type"),
        make.gauge("unverified", "Calls that the latest comparison could not verify."),
        make.gauge("sync_waiting", "Calls that wait for a state check."),
        make.counter("orphans_total", "Rooms at the provider that no channel held any more."),
        make.counter("recreated_total", "Rooms that the provider had lost.", "result"),
        make.counter("repairs_total", "Users who came or went unnoticed.", "cause"),
        make.histogram("wrong_seconds", "How long a call was wrong.", WRONG_SECONDS, "cause"),
    )


def _calls(make: _Maker) -> ChannelMetrics:
    return ChannelMetrics(
        make.gauge("live_channels", "Live voice channels."),
        make.gauge("participants", "Users in calls."),
        make.gauge("health", "Calls by health.", "status"),
        make.counter("finals_total", "Calls that ended.", "reason"),
        make.counter("participant_seconds_total", "Time of all users in calls that ended."),
        make.counter("migrations_total", "Migrations by how they ended.", "result"),
        make.counter("migrated_total", "Users who came over in migrations."),
        make.counter("stranded_total", "Users who did not come over in migrations."),
        make.counter("handovers_total", "Calls handed to another device, step by step.", "step"),
        make.counter("recordings_total", "Recordings by outcome.", "outcome"),
    )


def _analytics(make: _Maker) -> AnalyticsMetrics:
    return AnalyticsMetrics(
        make.counter("analytics_sent_total", "Documents that the analytics service accepted."),
        make.counter("analytics_dropped_total", "Documents that were dropped.", "reason"),
        make.gauge("analytics_queued", "Documents in the queue."),
    )
