"""A circuit breaker.

While closed, it admits all requests; `threshold` failures in a row open it. While open, it admits
none for a time that grows with each opening in a row (full jitter within bounds, so that nodes do
not return together). Then it is half-open and admits exactly one probe: success closes the breaker,
failure opens it for longer. An admitted request gets a ticket and returns it with the outcome; a
ticket from before the latest change of state has no effect. A probe that does not return counts as
given up after `probe_s`. All methods are O(1); times are arguments in monotonic seconds.
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec


class BreakerState(StrEnum):
    """CLOSED admits all requests, OPEN none, HALF_OPEN one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerLimits(msgspec.Struct, frozen=True):
    """Bounds of a breaker.

    Attributes:
        threshold: failures in a row that open it. probe_s: timeout of a probe.
        least_s, first_s, most_s: it stays open for at least `least_s` and at most `first_s`; the
            maximum doubles each time a probe fails, up to `most_s`.
    """

    threshold: int = 5
    least_s: float = 1.0
    first_s: float = 5.0
    most_s: float = 60.0
    probe_s: float = 15.0


class Ticket(msgspec.Struct, frozen=True):
    """One admitted request."""

    turn: int
    probe: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Not admitted; retry after `seconds`."""

    seconds: float


class Breaker:
    """A circuit breaker. `chance`: uniform random numbers in [0, 1)."""

    def __init__(self, limits: BreakerLimits, chance: Callable[[], float]) -> None:
        self._limits = limits
        self._chance = chance
        self._state = BreakerState.CLOSED
        self._turn = 0
        self._failures = 0
        self._openings = 0
        self._until = 0.0

    def state(self, now: float) -> BreakerState:
        """The state at `now`."""
        if self._state is BreakerState.OPEN and now >= self._until:
            return BreakerState.HALF_OPEN
        return self._state

    def admit(self, now: float) -> Ticket | Wait:
        """A ticket for one request, or the time to wait."""
        if self._state is BreakerState.CLOSED:
            return Ticket(self._turn)
        if now < self._until:
            return Wait(self._until - now)
        self._turn += 1
        self._state, self._until = BreakerState.HALF_OPEN, now + self._limits.probe_s
        return Ticket(self._turn, probe=True)

    def succeeded(self, ticket: Ticket) -> None:
        """The provider answered."""
        if ticket.turn != self._turn:
            return
        self._failures = 0
        if ticket.probe:
            self._turn += 1
            self._state, self._openings = BreakerState.CLOSED, 0

    def failed(self, ticket: Ticket, now: float) -> None:
        """The provider failed or did not answer."""
        if ticket.turn != self._turn:
            return
        self._failures += 1
        if ticket.probe or self._failures >= self._limits.threshold:
            self._open(now)

    def given_up(self, ticket: Ticket, now: float) -> None:
        """The request has no outcome: it was not sent, or it was cancelled."""
        if ticket.probe and ticket.turn == self._turn:
            self._turn += 1
            self._state, self._until = BreakerState.OPEN, now

    def _open(self, now: float) -> None:
        limits = self._limits
        most = min(limits.first_s * 2.0 ** min(self._openings, 32), limits.most_s)
        self._openings += 1
        self._turn += 1
        self._failures = 0
        self._state = BreakerState.OPEN
        self._until = now + limits.least_s + self._chance() * max(most - limits.least_s, 0.0)
