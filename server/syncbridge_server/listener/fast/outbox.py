"""Sends the answers of a turn together, at its end.

Sending wakes the receiver. A server that sends after each request wakes the peer each time, which
interrupts this process in turn, and the kernel's work between two answers displaces its caches. So
the short answers of one turn of the event loop are collected, and one task sends them one after the
other. It runs in the turn after that in which the first was added, that is, before requests that
arrive meanwhile; `TURN_CONNECTIONS` bounds the wait of an answer.
"""

from collections.abc import Callable
from typing import Protocol

import trio


class Flushable(Protocol):
    """An object with bytes to send."""

    def flush(self) -> None:
        """Send as much as possible without waiting."""


class Outbox:
    """The senders of one engine."""

    def __init__(self) -> None:
        self._senders: list[Flushable] = []
        self._task: trio.lowlevel.Task | None = None

    def add(self, sender: Flushable) -> None:
        """Have a sender flushed at the end of the turn."""
        self._senders.append(sender)
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            if not self._senders:
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            senders, self._senders = self._senders, []
            for sender in senders:
                sender.flush()

    def _abort(self, _: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
