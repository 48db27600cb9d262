"""This node's record of the kinds of requests that currently fail at the provider.

It has one time for each kind, in memory. The latest outcome counts, for a limited time.
"""

ERRORS = frozenset(
    {
        "network_error",
        "service_unavailable",
        "unreachable",
        "rate_limited",
        "permission_denied",
        "refused",
        "invalid_request",
        "unreadable",
    }
)
"""Outcomes that mean a failing provider. Errors about a single room are not among them."""
UNKNOWN = frozenset({"cancelled"})
"""Outcomes without an effect."""
SECONDS = 300.0


class RecentErrors:
    """The latest errors. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._failed_at: dict[str, float] = {}

    def note(self, call: str, outcome: str, now: float) -> None:
        """Note the outcome of a request of this kind."""
        if outcome in ERRORS:
            self._failed_at[call] = now
        elif outcome not in UNKNOWN:
            self._failed_at.pop(call, None)

    def failing(self, now: float) -> bool:
        """Whether the latest request of any kind failed within `SECONDS`."""
        return any(now - at < SECONDS for at in self._failed_at.values())
