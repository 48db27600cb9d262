"""Sends the requests of a tick to the store, and returns each answer to its caller.

Everything asked between two `dispatch` calls goes out as one pipeline. Answers come back on the
Trio thread, in order, as plain function calls: no task waits for a write. `after` runs once per
batch, after all of its answers.

An internal error affects only the request that it concerns. A reply function that raises is called
once more, with `HandlingFailed`, because the caller must get an answer. A request that cannot even
be encoded does not hold back the others of its batch.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import structlog

from syncbridge.errors import ErrorCode, StoreError, StoreTimeout
from syncbridge.records.reads import reads_apart
from syncbridge.records.sessions import Outcome, Request
from syncbridge_server.gateway.counters import GatewayCounters
from syncbridge_server.ports.store import Store

log = structlog.get_logger("gateway")

MAX_BATCH = 512
"""Requests in one submission, so that a full queue refuses some of a burst and not all of it."""

Reply = Callable[..., None]

Waiting = tuple[Reply, tuple[Any, ...]]
"""The reply function, and the context that it gets with the answer."""


class HandlingFailed(StoreTimeout):
    """This node failed on a request or on its answer; the store may have executed it."""

    def __init__(self) -> None:
        super().__init__("the server failed on this message")
        self.code = ErrorCode.INTERNAL


class StoreQueue:
    """Collects requests; see the module's text.

    Args:
        store: receives the requests. after: called after each batch of answers.
    """

    def __init__(self, store: Store, after: Callable[[], None]) -> None:
        self._store = store
        self._after = after
        self._requests: list[Request] = []
        self._replies: list[Waiting] = []
        self.in_flight = 0
        self.counters = GatewayCounters()

    @property
    def apart(self) -> bool:
        """Whether replicas confirm writes before the store answers."""
        return self._store.apart

    def ask(self, request: Request, reply: Reply, *context: Any) -> None:
        """Queue a request; `reply(answer_or_store_error, *context)` is called once, and again with
        `HandlingFailed` if it raises."""
        self._requests.append(request)
        self._replies.append((reply, context))

    def dispatch(self) -> None:
        """Send the requests that were queued since the last call."""
        while self._requests:
            requests = self._requests[:MAX_BATCH]
            replies = self._replies[:MAX_BATCH]
            del self._requests[:MAX_BATCH], self._replies[:MAX_BATCH]
            if self._store.apart:
                self._submit_apart(requests, replies)
            else:
                self._submit(requests, replies)

    def _submit_apart(self, requests: list[Request], replies: list[Waiting]) -> None:
        """Submit reads separately, so that their answers need not wait for those of writes."""
        pairs = list(zip(requests, replies, strict=True))
        for part in reads_apart(pairs, lambda pair: pair[0]):
            self._submit([request for request, _ in part], [reply for _, reply in part])

    def _submit(self, requests: list[Request], replies: list[Waiting]) -> None:
        began = perf_counter()

        def deliver(answers: Sequence[Any]) -> None:
            self.in_flight -= len(replies)
            took, before = perf_counter() - began, self.counters.answered
            self._hand_out(answers, replies)
            if self.counters.answered != before:
                self.counters.commits.observe(took, self.counters.answered - before)
            self._after()

        self.in_flight += len(replies)
        try:
            self._store.submit(requests, deliver)
        except StoreError as error:
            self.in_flight -= len(replies)
            self._hand_out([error] * len(replies), replies)
        except Exception:
            self.in_flight -= len(replies)
            self._singly(requests, replies)

    def _singly(self, requests: list[Request], replies: list[Waiting]) -> None:
        """Send requests one by one, because one of them cannot be encoded."""
        if len(requests) == 1:
            log.exception("request_failed", request=type(requests[0]).__name__)
            self._hand_out([HandlingFailed()], replies)
            return
        for request, reply in zip(requests, replies, strict=True):
            self._submit([request], [reply])

    def _hand_out(self, answers: Sequence[Any], replies: list[Waiting]) -> None:
        for answer, (reply, context) in zip(answers, replies, strict=True):
            if isinstance(answer, Outcome):
                self.counters.count(answer)
            if not _handled(answer, reply, context) and not isinstance(answer, HandlingFailed):
                _handled(HandlingFailed(), reply, context)


def _handled(answer: Any, reply: Reply, context: tuple[Any, ...]) -> bool:
    """Call a reply function; False when it raises."""
    try:
        reply(answer, *context)
    except Exception:
        log.exception("reply_failed", answer=type(answer).__name__)
        return False
    return True
