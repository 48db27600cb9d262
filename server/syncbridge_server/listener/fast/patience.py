"""Time to send a body, given like tokens of a bucket (HTTP/1.1 and HTTP/2 alike).

`body_timeout` at most, refilled by what arrives at `min_body_rate`, used up only while somebody
waits for the client.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.fast.limits import TIMED_OUT, Refused

T = TypeVar("T")


class Patience:
    """The account of one body. Times in seconds."""

    __slots__ = ("_left", "_most", "_rate")

    def __init__(self, config: ListenerConfig) -> None:
        self._left = self._most = config.body_timeout
        self._rate = config.min_body_rate

    async def wait(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns. Raises Refused once the time is used up."""
        start = trio.current_time()
        with trio.move_on_after(self._left):
            data = await read()
            self._left = max(0.0, self._left - (trio.current_time() - start))
            return data
        raise Refused(TIMED_OUT)

    def earn(self, size: int) -> None:
        """So many bytes have arrived."""
        self._left = min(self._most, self._left + size / self._rate)
