"""How long to wait before trying again, and how fast to send.

`Backoff` is exponential with full jitter: the n-th wait is uniform in [0, min(cap, base * 2**n)],
and in a quarter of the outage so far when that is less. After a crash of a server all of its
clients come back spread over the interval, not in waves, and within a time that fits the outage.
`Pacer` is a token bucket that stays below the server's rate, so that a long offline queue is not
refused as a flood.
"""

import math
import random
from collections.abc import Callable

LONGEST_WAIT = 3_600.0
"""Seconds: what a server may ask for at most, so that every wait ends."""


OUTAGE_SHARE = 0.25
"""No wait is longer than this share of the time that it has not worked so far."""


def asked_for(seconds: float) -> float:
    """A wait that a server has asked for, within bounds."""
    return min(max(0.0, seconds), LONGEST_WAIT)


class Backoff:
    """Waits between attempts, in seconds.

    Args:
        base: upper end of the first wait. cap: of every wait. draw: uniform in [0, 1).
    """

    def __init__(
        self,
        base: float = 0.25,
        cap: float = 30.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._draw = draw
        self._attempts = 0

    def next(self, at_least: float = 0.0, outage: float = math.inf) -> float:
        """The next wait.

        Args:
            at_least: what the server asked for. outage: for how long it has not worked.
        """
        grown = min(self._cap, self._base * 2.0 ** min(self._attempts, 32))
        ceiling = min(grown, max(self._base, outage * OUTAGE_SHARE))
        self._attempts += 1
        return max(0.0, at_least) + self._draw() * ceiling

    def reset(self) -> None:
        """It worked: the next wait is a first one again."""
        self._attempts = 0


UNBOUNDED = 1e9
"""Messages a second that no client sends."""


class Pacer:
    """Allows `burst` messages at once and `rate` a second after that.

    `share` of what the server allows is used: clocks differ, and so do arrival times. A rate of 0
    is what a server without a bound tells: then nothing is held back, unless it asks for silence.
    """

    def __init__(self, rate: float, burst: float, now: float, share: float = 0.8) -> None:
        self._rate = max(rate * share, 0.1) if rate else UNBOUNDED
        self._burst = max(burst * share, 1.0) if rate else UNBOUNDED
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more message may go now; counts it when it may."""
        self._refill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait(self, now: float) -> float:
        """Seconds until `take` will allow a message."""
        self._refill(now)
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def pause(self, seconds: float, now: float) -> None:
        """The server asked for silence: nothing goes for so long."""
        self._refill(now)
        self._tokens = min(self._tokens, 1.0 - seconds * self._rate)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
