"""Whether a client takes its answers: time to do so, given like tokens of a bucket.

Nothing to begin with, STALL_SECONDS at most, filled by what is taken at TAKEN_RATE, used up while
an answer waits for the client. Over HTTP/2 the account is the connection's: to reset a stream and
ask anew, or to open a window byte by byte, does not fill it.
"""

import trio

from syncbridge_server.listener.capacity import STALL_SECONDS

TAKEN_RATE = 1_024
"""Bytes a second that a client must take, on the whole."""


class Uptake:
    """The account of one client."""

    __slots__ = ("_at", "_left", "_waiting")

    def __init__(self) -> None:
        self._left = 0.0
        self._at = trio.current_time()
        self._waiting = 0

    def begin(self) -> None:
        """One more answer waits for the client."""
        self._tick()
        self._waiting += 1

    def end(self) -> None:
        """It has been taken, or given up."""
        self._tick()
        self._waiting -= 1

    def take(self, size: int) -> None:
        """So many bytes have been taken."""
        self._tick()
        self._left = min(STALL_SECONDS, self._left + size / TAKEN_RATE)

    @property
    def spent(self) -> bool:
        """Whether less than half of the time is left."""
        self._tick()
        return self._left < STALL_SECONDS / 2

    def _tick(self) -> None:
        now = trio.current_time()
        if self._waiting:
            self._left = max(0.0, self._left - (now - self._at))
        self._at = now
