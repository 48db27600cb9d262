"""How many requests to the provider a piece of work has cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Meter:
    """How many requests were sent. What it counts, the meter around it counts, too."""

    def __init__(self, outer: "Meter | None") -> None:
        self.sent = 0
        self._outer = outer

    def count(self) -> None:
        """One more was."""
        self.sent += 1
        if self._outer is not None:
            self._outer.count()


current: ContextVar[Meter | None] = ContextVar("provider_requests", default=None)
"""The meter of this task."""


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the requests of this task, and of those that it starts, inside of the block."""
    meter = Meter(current.get())
    token = current.set(meter)
    try:
        yield meter
    finally:
        current.reset(token)
