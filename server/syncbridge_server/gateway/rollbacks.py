"""Counts what a store that came back older has cost, and says so once an event."""

from collections.abc import Callable

import structlog

from syncbridge.records.sessions import Place

log = structlog.get_logger("gateway")


class Rollbacks:
    """Sessions that went back, and acknowledged updates that were lost with that.

    Attributes:
        sessions, updates: since the start of the process.
        on_report: told (sessions, updates) of each event.
        on_session: told of each session: its id, where it is now, and why.
    """

    def __init__(self) -> None:
        self.sessions = self.updates = 0
        self._told = (0, 0)
        self.on_report: Callable[[int, int], None] = _nobody
        self.on_session: Callable[[str, Place, str], None] = _nobody_of

    def session(self, sid: str, place: Place, reason: str) -> None:
        """A session went back, and goes on from a place."""
        self.sessions += 1
        self.on_session(sid, place, reason)

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


def _nobody_of(sid: str, place: Place, reason: str) -> None:
    """Nobody else is told."""
