"""Counts the requests to the provider within a block of code."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Meter:
    """Counts requests; the enclosing meter counts them too."""

    def __init__(self, outer: "Meter | None") -> None:
        self.sent = 0
        self._outer = outer

    def count(self) -> None:
        """Count one request."""
        self.sent += 1
        if self._outer is not None:
            self._outer.count()


current: ContextVar[Meter | None] = ContextVar("provider_requests", default=None)
"""The meter of this task."""


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the requests of this task and its child tasks within the block."""
    meter = Meter(current.get())
    token = current.set(meter)
    try:
        yield meter
    finally:
        current.reset(token)
