"""The request budget of a provider: one token bucket for all its requests.

A provider limits requests by account, so a polling loop could block joins. Polls therefore leave a
reserve in the bucket for requests that a user waits for. A 429 answer closes the bucket until the
time that the provider named. Nothing waits here: a rejected request gets a retry time. All methods
are O(1); times are arguments.
"""

RESERVE = 0.25
"""Part of the burst that polls leave for other requests."""


class RequestBudget:
    """A token bucket.

    Args:
        rate: sustained requests per second. burst: requests at once, at least 1.
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
            0.0 if it was taken, otherwise the seconds until a retry.
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
        """The number of tokens at `now` (monotonic seconds); 0.0 while closed by the provider."""
        self._fill(now)
        return self._level if now >= self._shut_until else 0.0

    def shut(self, until: float) -> None:
        """Give no token before `until` (monotonic seconds), as the provider demanded."""
        self._shut_until = max(self._shut_until, until)

    def _fill(self, now: float) -> None:
        if now > self._seen:
            if self._seen != float("-inf"):
                self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
            self._seen = now
