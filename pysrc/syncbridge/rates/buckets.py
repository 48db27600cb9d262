"""Token buckets: a sustained rate and a burst for each of many keys, in bounded memory.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm,
ITU-T I.371). Each token taken moves that time on by `1 / rate`, so idle keys cost nothing. The
least recently used key is forgotten when there are too many, which gives it a full bucket again:
an attacker with more addresses than `capacity` gains one burst each.
"""

from collections import OrderedDict

MAX_KEYS = 65_536
ROUNDING = 1e-9
"""Seconds by which sums of intervals may be wrong."""


class TokenBuckets:
    """A token bucket for each key.

    Args:
        rate: tokens a second. burst: most tokens at once, at least 1.
        capacity: most keys remembered.
    """

    def __init__(self, rate: float, burst: float, capacity: int = MAX_KEYS) -> None:
        self._interval = 1 / rate
        self._depth = max(burst, 1) / rate
        self._capacity = capacity
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Take one token at `now` (seconds); 0, or the seconds until there is one. O(1)."""
        buckets = self._full_at
        following = max(buckets.get(key, now), now) + self._interval
        wait = following - now - self._depth
        if wait <= ROUNDING:
            buckets[key], wait = following, 0.0
            if len(buckets) > self._capacity:
                buckets.popitem(last=False)
        buckets.move_to_end(key)
        return wait
