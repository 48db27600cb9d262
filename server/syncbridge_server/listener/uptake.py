"""Whether a client reads its answers: a token bucket of time to do so.

It begins empty, holds STALL_SECONDS at most, is filled by bytes that are read, at TAKEN_RATE, and
is used up while an answer waits for the client. Over HTTP/2 the account is the connection's:
resetting a stream and asking again, or opening a window byte by byte, does not fill it.
"""

import trio

from syncbridge_server.listener.capacity import STALL_SECONDS

TAKEN_RATE = 1_024
"""Bytes a second that a client must read on average."""


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
        """An answer was read, or given up."""
        self._tick()
        self._waiting -= 1

    def take(self, size: int) -> None:
        """Add the time for bytes that were read."""
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
