"""Responses, encoded by `syncbridge.kernels`, and the lines that each begins with. Pure except for
the time of day.
"""

import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus

from syncbridge.kernels import Response
from syncbridge_server.listener.response import PROTECTION

__all__ = ["CONTINUE", "Openings", "Response", "opening", "protected_opening"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Openings:
    """Status line and Date header (RFC 9110 section 6.6.1) by status, renewed each second.

    Args:
        clock: Unix seconds.
        more: headers that follow.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, more: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self._clock = clock
        self._more = b"".join(name + b": " + value + b"\r\n" for name, value in more)
        self._second = 0
        self._made: dict[int, bytes] = {}

    def __call__(self, status: int) -> bytes:
        """The lines of a final response. Raises RuntimeError for any other status."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._made = {}
        made = self._made.get(status)
        if made is None:
            made = self._made[status] = self._make(status)
        return made

    def _make(self, status: int) -> bytes:
        if not 200 <= status <= 999:
            raise RuntimeError(f"{status} is not the status of a final response")
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        date = formatdate(self._second, usegmt=True).encode()
        return b"%bdate: %b\r\n%b" % (line, date, self._more)


opening = Openings()
protected_opening = Openings(more=PROTECTION)
