"""Counts what a store that came back older has cost, and says so once an event."""

from collections.abc import Callable

import structlog

log = structlog.get_logger("gateway")


class Rollbacks:
    """Sessions that went back, and acknowledged updates that were lost with that.

    Attributes:
        sessions, updates: since the start of the process.
        on_report: told (sessions, updates) of each event.
    """

    def __init__(self) -> None:
        self.sessions = self.updates = 0
        self._told = (0, 0)
        self.on_report: Callable[[int, int], None] = _nobody

    def report(self) -> None:
        """Say what was counted since the last report, if anything: one line in the log."""
        sessions, updates = self.sessions - self._told[0], self.updates - self._told[1]
        if not sessions and not updates:
            return
        self._told = (self.sessions, self.updates)
        log.warning("store_rolled_back", sessions=sessions, updates_lost=updates)
        self.on_report(sessions, updates)

    def figures(self) -> list[tuple[str, float]]:
        """For `/metrics`."""
        return [
            ("rolled_back_sessions_total", self.sessions),
            ("lost_updates_total", self.updates),
        ]


def _nobody(sessions: int, updates: int) -> None:
    """Nobody else is told."""
