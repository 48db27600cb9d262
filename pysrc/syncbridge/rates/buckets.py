"""Token buckets: a lasting rate and a burst for each of very many keys, in bounded memory.

A bucket is two numbers, the tokens that were left and when. It is filled when it is looked at, so
idle keys cost nothing. The least recently used key is forgotten when there are too many, which
gives it a full bucket again: an attacker with more addresses than `capacity` gains one burst each.
"""

from collections import OrderedDict

MAX_KEYS = 65_536


class TokenBuckets:
    """A token bucket a key.

    Args:
        rate: tokens a second. burst: most tokens at once. capacity: most keys remembered.
    """

    def __init__(self, rate: float, burst: float, capacity: int = MAX_KEYS) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Take one token at `now` (seconds); 0, or the seconds until there is one. O(1)."""
        tokens, last = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - last) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[key] = (tokens - 1 if not wait else tokens, now)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)
        return wait
