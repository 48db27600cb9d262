"""Which kinds of requests the provider has answered with an error lately, as this node saw it.

Kept in memory, one time for each kind: the latest outcome counts, for a while.
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
"""Outcomes that say that the provider does not serve us. What it says of one room is none."""
UNKNOWN = frozenset({"cancelled"})
"""Outcomes that leave it as it was."""
SECONDS = 300.0


class RecentErrors:
    """The latest errors. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._failed_at: dict[str, float] = {}

    def note(self, call: str, outcome: str, now: float) -> None:
        """A request of this kind came to an end."""
        if outcome in ERRORS:
            self._failed_at[call] = now
        elif outcome not in UNKNOWN:
            self._failed_at.pop(call, None)

    def failing(self, now: float) -> bool:
        """Whether the latest request of some kind failed, within the last minutes."""
        return any(now - at < SECONDS for at in self._failed_at.values())
