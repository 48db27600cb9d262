"""A token bucket of time in which a client sends a body (HTTP/1.1 and HTTP/2 alike).

It holds at most `body_timeout`, is refilled by bytes that arrive, at `min_body_rate`, and is used
up only while the server waits for the client. Meanwhile the request may have to give way to a newer
one: first the request whose account has not been full for the longest time.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from syncbridge_server.listener.accept import GAVE_WAY
from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.fast.limits import TIMED_OUT, Refused

T = TypeVar("T")


class Patience:
    """The account of one body. Times in seconds.

    Args:
        occupant: has the place of the request.
    """

    __slots__ = ("_left", "_most", "_occupant", "_rate")

    def __init__(self, config: ListenerConfig, occupant: Occupant) -> None:
        self._occupant = occupant
        self._left = self._most = config.body_timeout
        self._rate = config.min_body_rate

    async def wait(self, read: Callable[[], Awaitable[T]]) -> T:
        """Await `read` and return its result. Raises Refused when the time or the place is lost."""
        start = trio.current_time()
        occupant = self._occupant
        with trio.move_on_after(self._left) as scope:
            occupant.wait(scope, anew=self._left == self._most)
            data = await read()
            self._left = max(0.0, self._left - (trio.current_time() - start))
            if not occupant.evicted:
                return data
        raise Refused(GAVE_WAY if occupant.evicted else TIMED_OUT)

    def earn(self, size: int) -> None:
        """Add the time for bytes that have arrived."""
        self._left = min(self._most, self._left + size / self._rate)
