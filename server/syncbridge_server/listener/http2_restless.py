"""HTTP/2 frames that cost work and ask for nothing, counted for each connection. Pure.

A stream that is reset, by the client or because of what it sent (CVE-2023-44487, CVE-2025-8671), a
PING, SETTINGS, PRIORITY, an empty DATA: each is legitimate, and a stream of them is a flood. An
account pays for them. It is refilled by time and by requests that were answered, so a proxy that
carries many users may cancel as many requests as it lets be answered.
"""

import h2.events

CAPACITY = 1_000.0
"""What an account has at the start, and at most."""
PER_SECOND = 100.0
RESET_COST = 5.0
"""Of a stream that is reset; an answer refills as much. Other frames cost 1."""

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
        """Pay for a frame that asks for nothing."""
        if isinstance(event, h2.events.StreamReset):
            self._pay(RESET_COST, now)
        elif isinstance(event, _IDLE_FRAMES) or (
            isinstance(event, h2.events.DataReceived)
            and event.flow_controlled_length == 0
            and event.stream_ended is None
        ):
            self._pay(1.0, now)

    def refuse(self, now: float) -> None:
        """Pay for a stream that we have reset because of what the client sent."""
        self._pay(RESET_COST, now)

    def answered(self) -> None:
        """An answer was complete."""
        self._left = min(CAPACITY, self._left + RESET_COST)

    @property
    def spent(self) -> bool:
        """Whether the connection has gone too far."""
        return self._left < 0

    def _pay(self, cost: float, now: float) -> None:
        self._left = min(CAPACITY, self._left + (now - self._at) * PER_SECOND) - cost
        self._at = now
