"""Writes that a task waits for, such as those of a REST request.

The writes of one turn of the event loop go to the store together, with one system call. The
store answers within its own deadline. Should it fail to, one task for all, which checks every
`LOOK_SECONDS`, ends the wait.
"""

import math
from collections.abc import Callable
from typing import Any

import outcome
import trio

from syncbridge.errors import StoreError, StoreTimeout
from syncbridge.records.sessions import Apply, Outcome
from syncbridge_server.gateway.store_queue import StoreQueue

LOOK_SECONDS = 1.0

Answer = Outcome | StoreError

Raise = Callable[[], None]
"""Named here: an annotation of an inner function is evaluated whenever that is made."""


class Commits:
    """See the top of this file.

    Args:
        store_queue: takes the writes to the store.
        done: called with each write and its answer, before the waiting task resumes, and also when
            that task has given up. patience: seconds after which it gives up; more than the store's
            own deadline.
    """

    def __init__(
        self, store_queue: StoreQueue, done: Callable[[Apply, Answer], None], patience: float
    ) -> None:
        self._store_queue = store_queue
        self._done = done
        self._looks = 0
        self._last_look = math.ceil(patience / LOOK_SECONDS) + 1  # the first may come at once
        self._waiting: dict[object, tuple[trio.lowlevel.Task, int]] = {}
        self._dispatching = False

    async def commit(self, request: Apply) -> Outcome:
        """Write. Raises StoreError; the write may still happen after a cancellation."""
        task, call = trio.lowlevel.current_task(), object()

        def reply(answer: Answer) -> None:
            try:
                self._done(request, answer)
            finally:
                if self._waiting.pop(call, None) is not None:
                    trio.lowlevel.reschedule(task, outcome.Value(answer))

        def abort(_: Raise) -> trio.lowlevel.Abort:
            self._waiting.pop(call, None)
            return trio.lowlevel.Abort.SUCCEEDED

        self._store_queue.ask(request, reply)
        if not self._dispatching:
            self._dispatching = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._dispatch)
        self._waiting[call] = task, self._looks + self._last_look
        answer: Any = await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(answer, StoreError):
            raise answer
        result: Outcome = answer
        return result

    async def run(self) -> None:
        """End waits that exceed the patience, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            self._looks += 1
            looks = self._looks
            overdue = [(call, task) for call, (task, due) in self._waiting.items() if due <= looks]
            for call, task in overdue:
                del self._waiting[call]
                late = StoreTimeout("no answer from the store in time")
                trio.lowlevel.reschedule(task, outcome.Value(late))

    def _dispatch(self) -> None:
        self._dispatching = False
        self._store_queue.dispatch()
