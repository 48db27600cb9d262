"""How long the next tick may gather, so that updates share what a trip to the store costs.

Theory of operation. A trip to Redis costs two thread switches, two system calls and two turns of
the event loop, whatever it carries. When updates come one at a time and slowly, each goes at once;
that is the fastest answer. When they come faster than `BUSY_PER_MS`, a tick begins no sooner than
`interval` after the one before, and takes all that has come meanwhile: a bounded delay for a
multiple of the throughput. `level` is a leaky counter of store requests: every request adds one,
every millisecond takes `BUSY_PER_MS`; it rises only while they come faster than that.

Load that asks nothing of the store (heartbeats) is never held back by itself.
"""

BUSY_PER_MS = 1.0
HIGH = 4.0
CAP = 20.0


class Pace:
    """Pure; all times in milliseconds of one monotonic clock.

    Args:
        interval: least time between the beginnings of two ticks under load; 0 turns pacing off.
    """

    __slots__ = ("_began", "_interval", "_level")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._level = 0.0
        self._began = 0.0

    def delay(self, now: float) -> float:
        """How long to gather before the tick that could begin at `now`."""
        if self._level < HIGH:
            return 0.0
        return max(0.0, self._began + self._interval - now)

    def ticked(self, now: float, requests: int) -> None:
        """A tick has begun at `now` and has asked the store for `requests` things."""
        leaked = (now - self._began) * BUSY_PER_MS
        self._level = min(CAP, max(0.0, self._level - leaked) + requests)
        self._began = now
