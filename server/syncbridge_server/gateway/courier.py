"""Brings the requests of a tick to the store, and each answer back to who asked.

Everything asked between two `dispatch` calls goes out as one pipeline. Answers come back on the
Trio thread, in order, as plain function calls: no task waits for a write. `after` runs once a
batch, when all of its answers have been handled.
"""

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from syncbridge.errors import StoreError
from syncbridge.records.sessions import Outcome, Request
from syncbridge_server.gateway.tally import Tally
from syncbridge_server.ports.store import Store

log = structlog.get_logger("gateway")

MAX_BATCH = 512
"""Requests in one submission, so that a full queue refuses some of a burst and not all of it."""

Reply = Callable[..., None]


class Courier:
    """Collects requests; see the module's text.

    Args:
        store: where requests go.
        after: called after a batch of answers was handled.
    """

    def __init__(self, store: Store, after: Callable[[], None]) -> None:
        self._store = store
        self._after = after
        self._requests: list[Request] = []
        self._replies: list[tuple[Reply, tuple[Any, ...]]] = []
        self.in_flight = 0
        self.tally = Tally()

    def ask(self, request: Request, reply: Reply, *context: Any) -> None:
        """Queue a request; `reply(answer_or_store_error, *context)` is called exactly once."""
        self._requests.append(request)
        self._replies.append((reply, context))

    def dispatch(self) -> int:
        """Send what was asked since the last call; returns how many requests that were."""
        count = len(self._requests)
        while self._requests:
            requests = self._requests[:MAX_BATCH]
            replies = self._replies[:MAX_BATCH]
            del self._requests[:MAX_BATCH], self._replies[:MAX_BATCH]
            self._submit(requests, replies)
        return count

    def _submit(
        self, requests: list[Request], replies: list[tuple[Reply, tuple[Any, ...]]]
    ) -> None:
        def deliver(answers: Sequence[Any]) -> None:
            self.in_flight -= len(replies)
            self._hand_out(answers, replies)
            self._after()

        self.in_flight += len(replies)
        try:
            self._store.submit(requests, deliver)
        except StoreError as error:
            self.in_flight -= len(replies)
            self._hand_out([error] * len(replies), replies)

    def _hand_out(
        self, answers: Sequence[Any], replies: list[tuple[Reply, tuple[Any, ...]]]
    ) -> None:
        for answer, (reply, context) in zip(answers, replies, strict=True):
            if isinstance(answer, Outcome):
                self.tally.count(answer)
            try:
                reply(answer, *context)
            except Exception:
                log.exception("Reply failed", request=type(answer).__name__)
