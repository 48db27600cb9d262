"""How many requests a provider is asked, as one token bucket for all calls of that provider.

A provider counts per account, so one loop that polls can lock out everybody who wants to join.
Reads that only compare (polls) therefore leave a reserve in the bucket, which only calls that
somebody waits for may use. A 429 empties the bucket until the time that the provider named.
Nothing waits here: who gets no token is told when to come back. O(1), told the time.
"""

RESERVE = 0.25
"""Part of the burst that polls leave to others."""


class RequestBudget:
    """A token bucket.

    Args:
        rate: requests a second in the long run. burst: requests at once, at least 1.
    """

    def __init__(self, rate: float, burst: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a budget needs a positive rate and a burst of at least 1")
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._seen = float("-inf")
        self._shut_until = float("-inf")

    def take(self, now: float, *, poll: bool = False) -> float:
        """Take one token at `now` (monotonic seconds).

        Returns:
            0.0 when it was taken, else the seconds after which to try again.
        """
        if now < self._shut_until:
            return self._shut_until - now
        self._fill(now)
        least = 1.0 + (min(self._burst * RESERVE, self._burst - 1.0) if poll else 0.0)
        if self._level < least:
            return (least - self._level) / self._rate
        self._level -= 1.0
        return 0.0

    def left(self, now: float) -> float:
        """How many tokens there are at `now` (monotonic seconds); 0.0 while it is shut."""
        self._fill(now)
        return self._level if now >= self._shut_until else 0.0

    def shut(self, until: float) -> None:
        """Give nothing before `until` (monotonic seconds): the provider said so."""
        self._shut_until = max(self._shut_until, until)

    def _fill(self, now: float) -> None:
        if now > self._seen:
            if self._seen != float("-inf"):
                self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
            self._seen = now
