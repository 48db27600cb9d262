"""Metrics of webhooks: outcomes, pending deliveries, and the time until they take effect."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
OUTCOMES = (
    "accepted",
    "repeated",
    "ignored",
    "missing",
    "malformed",
    "stale",
    "mismatch",
    "unconfigured",
    "unverifiable",
    "unreadable",
    "too_large",
    "overloaded",
    "unavailable",
)
"""Labels of `syncbridge_webhooks_total`: stored, stored before, not relevant; then the reasons for
an invalid signature; then other errors of the request and of this server."""


class WebhookMetrics:
    """Implements `inbox_worker.Effects`; `received` counts outcomes of requests."""

    def __init__(self) -> None:
        self.received = Counter(
            "syncbridge_webhooks", "Webhooks answered.", ["outcome"], registry=None
        )
        for outcome in OUTCOMES:
            self.received.labels(outcome)
        self._dead = Counter(
            "syncbridge_webhooks_dead",
            "Webhooks that became dead letters.",
            ["reason"],
            registry=None,
        )
        self._waiting = Gauge(
            "syncbridge_webhooks_waiting",
            "Webhooks that have not taken effect, on all nodes, at the last look.",
            registry=None,
        )
        self._seconds = Histogram(
            "syncbridge_webhook_effect_seconds",
            "Time from the receipt of a webhook to its effect.",
            buckets=_SECONDS,
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        for metric in (self.received, self._dead, self._waiting, self._seconds):
            registry.register(metric)

    def took_effect(self, seconds: float) -> None:
        """See `Effects.took_effect`."""
        self._seconds.observe(seconds)

    def buried(self, reason: str) -> None:
        """See `Effects.buried`."""
        self._dead.labels(reason).inc()

    def waiting(self, count: int) -> None:
        """See `Effects.waiting`."""
        self._waiting.set(count)
