"""Groups repeated reads of one key into looks.

An open page asks every few seconds. Reads of one key belong to one look while each follows the
previous one closely. The table is bounded: the least recently read key is dropped, and its next
read begins a look. Times are seconds of the caller's clock.
"""

from collections.abc import Hashable


class Looks:
    """The table.

    Args:
        pause: seconds without a read that end a look. kept: most keys.
    """

    def __init__(self, pause: float, kept: int) -> None:
        self._pause = pause
        self._kept = kept
        self._seen: dict[Hashable, float] = {}

    def begins(self, key: Hashable, now: float) -> bool:
        """Note a read; whether it begins a look. O(1)."""
        before = self._seen.pop(key, None)
        self._seen[key] = now
        if len(self._seen) > self._kept:
            del self._seen[next(iter(self._seen))]
        return before is None or not 0 <= now - before < self._pause
