"""Retries with exponential backoff: consecutive failures by key, and when to give up.

The table has only keys that failed. The pause doubles with each failure, up to a bound. The table
is bounded, too: the key whose last failure is oldest is dropped and starts again. Times are seconds
of the caller's clock.
"""

from collections.abc import Hashable


class Attempts:
    """The table.

    Args:
        most: failures in a row before giving up. first_s, longest_s: pauses. kept: most keys.
    """

    def __init__(
        self, most: int = 6, first_s: float = 1.0, longest_s: float = 60.0, kept: int = 4_096
    ) -> None:
        self._most = most
        self._first_s = first_s
        self._longest_s = longest_s
        self._kept = kept
        self._failed: dict[Hashable, tuple[int, float]] = {}

    def ready(self, key: Hashable, now: float) -> bool:
        """Whether a key may be tried now. O(1)."""
        return now >= self._failed.get(key, (0, now))[1]

    def failed(self, key: Hashable, now: float) -> float | None:
        """Note a failure; returns the pause before the next attempt, or None to give up. O(1)."""
        count = min(self._failed.pop(key, (0, 0.0))[0] + 1, self._most)
        pause = min(self._first_s * 2.0 ** (count - 1), self._longest_s)
        self._failed[key] = count, now + pause
        if len(self._failed) > self._kept:
            del self._failed[next(iter(self._failed))]
        return None if count >= self._most else pause

    def worked(self, key: Hashable) -> None:
        """Forget the failures of a key. O(1)."""
        self._failed.pop(key, None)

    def count(self, key: Hashable) -> int:
        """Failures in a row."""
        return self._failed.get(key, (0, 0.0))[0]
