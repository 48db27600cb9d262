"""Counts HTTP/2 frames that cost work but request nothing, for each connection. Pure.

A stream that is reset, by the client or because of what it sent (CVE-2023-44487, CVE-2025-8671), a
PING, SETTINGS, PRIORITY, an empty DATA: each is legitimate, but many of them are a flood. They are
charged to an account, which time and answered requests refill. So a proxy with many users may
cancel as many requests as it lets be answered.
"""

import h2.events

CAPACITY = 1_000.0
"""Initial and highest balance of an account."""
PER_SECOND = 100.0
RESET_COST = 5.0
"""Cost of a reset stream, and refill for an answer. Other frames cost 1."""

_IDLE_FRAMES = (
    h2.events.PingReceived,
    h2.events.RemoteSettingsChanged,
    h2.events.PriorityUpdated,
    h2.events.UnknownFrameReceived,
)


class Restlessness:
    """The account of one connection. `now`: monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._left = CAPACITY
        self._at = now

    def take(self, event: h2.events.Event, now: float) -> None:
        """Charge a frame that requests nothing."""
        if isinstance(event, h2.events.StreamReset):
            self._pay(RESET_COST, now)
        elif isinstance(event, _IDLE_FRAMES) or (
            isinstance(event, h2.events.DataReceived)
            and event.flow_controlled_length == 0
            and event.stream_ended is None
        ):
            self._pay(1.0, now)

    def refuse(self, now: float) -> None:
        """Charge a stream that the server reset because of what the client sent."""
        self._pay(RESET_COST, now)

    def answered(self) -> None:
        """Refill for a complete answer."""
        self._left = min(CAPACITY, self._left + RESET_COST)

    @property
    def spent(self) -> bool:
        """Whether the account is overdrawn."""
        return self._left < 0

    def _pay(self, cost: float, now: float) -> None:
        self._left = min(CAPACITY, self._left + (now - self._at) * PER_SECOND) - cost
        self._at = now
