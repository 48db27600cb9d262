"""Counts what a store has lost that came back older, reports each such event once, and schedules
further comparisons."""

import math
from collections.abc import Callable

import structlog

from syncbridge.records.sessions import Place

log = structlog.get_logger("gateway")

AGAIN_SECONDS = 2.0, 128.0


class Rollbacks:
    """Sessions that went back, and acknowledged updates that were lost with that.

    Attributes:
        sessions, updates: since the start of the process.
        on_report: called with (sessions, updates) of each event. on_session: called with each
            session: its id, its owner, its new place, and the reason.
    """

    def __init__(self) -> None:
        self.sessions = self.updates = 0
        self._told = (0, 0)
        self.on_report: Callable[[int, int], None] = _nobody
        self.on_session: Callable[[str, str, Place, str], None] = _nobody_of

    def session(self, sid: str, owner: str, place: Place, reason: str) -> None:
        """A session was rolled back, and continues from `place`."""
        self.sessions += 1
        self.on_session(sid, owner, place, reason)

    def report(self) -> None:
        """Log what was counted since the last report, if anything, in one line."""
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


class ComparisonSchedule:
    """When to compare all sessions again after some were rolled back.

    A backup may be restored key by key under running nodes. What is restored after one comparison
    is found by the next, 2, 4, 8 ... 128 s later; the intervals restart when more sessions were
    rolled back.
    """

    def __init__(self) -> None:
        self._seen, self._pause, self._at = 0, 0.0, math.inf

    def due(self, sessions: int, now: float) -> bool:
        """Call about once a second. `sessions`: number of sessions rolled back so far."""
        first, longest = AGAIN_SECONDS
        if sessions != self._seen:
            self._seen, self._pause, self._at = sessions, first, now + first
        if now < self._at:
            return False
        self._pause *= 2
        self._at = now + self._pause if self._pause <= longest else math.inf
        return True


def _nobody(sessions: int, updates: int) -> None:
    """Nobody else is told."""


def _nobody_of(sid: str, owner: str, place: Place, reason: str) -> None:
    """Nobody else is told."""
