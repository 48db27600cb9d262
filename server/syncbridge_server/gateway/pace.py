"""How long the next tick may gather, so that updates share what a trip to the store costs.

Theory of operation. A trip to Redis costs two thread switches, two system calls and two turns of
the event loop, whatever it carries. When updates come one at a time and slowly, each goes at once;
that is the fastest answer. When they come faster than `BUSY_PER_MS`, a tick begins no sooner than a
while after the one before, and takes all that has come meanwhile: a bounded delay for a multiple of
the throughput. That while grows with their rate, as the core has less and less time to spare, and
is `interval` from `FULL_PER_MS` on. The rate is that of the last `WINDOW_MS`, older ones counting
less and less: every request adds to it, and time takes from it.

Load that asks nothing of the store (heartbeats) is never held back by itself.
"""

from math import exp

BUSY_PER_MS = 1.0
FULL_PER_MS = 4.0
WINDOW_MS = 20.0


class Pace:
    """Pure; all times in milliseconds of one monotonic clock.

    Args:
        interval: least time between the beginnings of two ticks under full load; 0: no pacing.
    """

    __slots__ = ("_began", "_interval", "_rate")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._rate = 0.0
        self._began = 0.0

    def delay(self, now: float) -> float:
        """How long to gather before the tick that could begin at `now`."""
        if self._rate < BUSY_PER_MS:
            return 0.0
        interval = self._interval * min(1.0, self._rate / FULL_PER_MS)
        return max(0.0, self._began + interval - now)

    def ticked(self, now: float, requests: int) -> None:
        """A tick has begun at `now` and has asked the store for `requests` things."""
        self._rate = self._rate * exp((self._began - now) / WINDOW_MS) + requests / WINDOW_MS
        self._began = now
