"""Answers that leave together, at the end of the turn in which they were made.

To send is to wake whoever waits for the bytes. A server that sends after each request wakes the
other side each time, which in turn interrupts this one; and between two answers the caches are
filled with the kernel's things. So short answers of a turn of the event loop are collected, and one
task sends them one after the other. It runs in the turn after that in which the first was added,
that is, before the requests that arrive meanwhile are worked on; `TURN_CONNECTIONS` bounds what an
answer can wait for.
"""

from collections.abc import Callable
from typing import Protocol

import trio


class Flushable(Protocol):
    """What has something to send."""

    def flush(self) -> None:
        """Send without waiting, as far as that goes."""


class Outbox:
    """The senders of one engine, each at most once a turn for each answer."""

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
