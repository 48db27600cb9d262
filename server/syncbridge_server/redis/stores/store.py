"""Sessions in Redis: `syncbridge_server.ports.store.Store` over the connections and the scripts."""

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import outcome
import trio

from syncbridge.errors import StoreError
from syncbridge.kernels import spelling
from syncbridge.limits import Limits
from syncbridge.records.reads import READS, reads_apart
from syncbridge.records.sessions import (
    Answer,
    Apply,
    Deliver,
    Outcome,
    Place,
    Request,
    Seal,
    Welcome,
)
from syncbridge_server.redis.link.client import Outboxes, RedisIO
from syncbridge_server.redis.link.pipeline import Command, Unconfirmed
from syncbridge_server.redis.link.wire import pack
from syncbridge_server.redis.stores.codec import CODECS, StoreSettings
from syncbridge_server.redis.stores.cold import ColdIndex, StateDamaged
from syncbridge_server.redis.stores.device_codec import QUERY_CODECS
from syncbridge_server.redis.stores.frozen_queue import FrozenQueue, session_of

UNPACKED_SPARE = 16_777_216
"""Bytes of a packed state beyond its values: keys, versions, deleted keys."""

UNKNOWN = b"?"
"""Marks a value whose spelling the script could not determine."""

ScriptCall = tuple[Request, Callable[[Answer | Exception], None]]
Raise = Callable[[], None]
"""Named here: an annotation of an inner function is evaluated whenever that is made."""
Received = Answer | Exception
Answers = Sequence[Answer | StoreError]
Replies = list[Any]


class RedisStore:
    """Implements `syncbridge_server.ports.store.Store`.

    Args:
        io: running client.
        node: id of this node: its own commits are not published to it. No spaces.
        limits: caps and TTL that the scripts enforce.
        freeze_after: seconds without use after which a session may be packed, see `freezer`;
            0 when nobody does that. Sessions that are packed are unpacked in any case.
        check: raises ValueError for an invalid answer; the caller gets StateDamaged instead. None:
            keys and values are any bytes. key_writers: whether the writer of each key is recorded.
    """

    def __init__(
        self,
        io: RedisIO,
        node: str,
        limits: Limits | None = None,
        freeze_after: float = 0.0,
        check: Callable[[Answer], None] | None = None,
        *,
        key_writers: bool = False,
    ) -> None:
        self._io = io
        self._check = check or _any
        limits = limits or Limits()
        io.scripts.limit(limits, key_writers)
        self._random = random.Random()  # noqa: S311 - tokens must differ, not be secret
        self._settings = StoreSettings.of(node, limits, partial(self._random.randbytes, 8))
        self._index = ColdIndex(io, round(freeze_after * 1000)) if freeze_after else None
        # Where reads have their own connections their answers do not wait for those of writes.
        self._frozen_queue = self._new_frozen_queue()
        self._reading = self._new_frozen_queue() if io.apart else self._frozen_queue
        self._calls: list[ScriptCall] = []

    def _new_frozen_queue(self) -> FrozenQueue:
        return FrozenQueue(
            self._io,
            self._command,
            nonce=self._settings.nonce,
            most_bytes=4 * self._settings.state_bytes + UNPACKED_SPARE,
            on_thaw=self._thawed,
        )

    @property
    def apart(self) -> bool:
        """Whether reads have their own connection, and so no order with writes."""
        return self._reading is not self._frozen_queue

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Send requests as one pipeline; `deliver` gets one answer or StoreError each, in order.

        Raises StoreOverloaded when the queue is full, ValueError for a write that names a key
        twice; nothing was sent then.
        """

        def decoded(replies: Replies) -> None:
            pairs = zip(replies, requests, strict=True)
            answers = [self._answer(reply, request) for reply, request in pairs]
            if self._io.outboxes is not None:
                self._tell_created(self._io.outboxes, requests, answers)
            if self._index is not None:
                self._enter(self._index, requests, answers)
            self._seal(requests, answers)
            deliver(answers)

        reads = self.apart and all(isinstance(request, READS) for request in requests)
        (self._reading if reads else self._frozen_queue).submit(requests, decoded)

    async def call(self, request: Request) -> Any:
        """One request; returns its answer type or raises StoreError.

        The calls of one turn of the event loop are sent together, with one system call.
        """
        task = trio.lowlevel.current_task()
        waiting = True

        def deliver(answer: Received) -> None:
            if waiting:
                trio.lowlevel.reschedule(task, outcome.Value(answer))

        def abort(_: Raise) -> trio.lowlevel.Abort:
            nonlocal waiting
            waiting = False
            return trio.lowlevel.Abort.SUCCEEDED

        if not self._calls:
            trio.lowlevel.current_trio_token().run_sync_soon(self._send_calls)
        self._calls.append((request, deliver))
        answer = await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send_calls(self) -> None:
        calls, self._calls = self._calls, []
        for part in reads_apart(calls, lambda call: call[0]) if self.apart else [calls]:
            if not self._sent_together(part):
                for call in part:
                    self._sent_together([call])

    def _sent_together(self, calls: list[ScriptCall]) -> bool:
        """Send calls as one pipeline; False when refused: send them one by one."""

        def deliver(answers: Answers) -> None:
            for (_, receiver), answer in zip(calls, answers, strict=True):
                receiver(answer)

        try:
            self.submit([request for request, _ in calls], deliver)
        except (StoreError, ValueError) as error:
            if len(calls) > 1:
                return False
            calls[0][1](error)
        return True

    @property
    def thawed(self) -> int:
        """Sessions that were unpacked here since the start."""
        return self._frozen_queue.thawed + self._reading.thawed * self.apart

    @property
    def old_data(self) -> bool:
        """Whether scripts look for keys of format 1: until there are known to be none."""
        return self._settings.old_data

    @old_data.setter
    def old_data(self, there: bool) -> None:
        self._settings.old_data = there

    def bar(self, reason: str) -> None:
        """Refuse to change sessions from now on, for a reason; an empty one ends that."""
        self._frozen_queue.barred = self._reading.barred = reason

    def _enter(
        self,
        index: ColdIndex,
        requests: Sequence[Request],
        answers: Sequence[Answer | StoreError],
    ) -> None:
        """Enter changed or joined sessions into the index of cold sessions."""
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Outcome):
                if answer.created:
                    index.enter([session_of(request)])
                elif answer.version != answer.prev_version:
                    index.note(session_of(request))
            elif isinstance(answer, Welcome) and answer.version:
                index.note(session_of(request))
        index.flush()

    def _tell_created(
        self, outboxes: Outboxes, requests: Sequence[Request], answers: Answers
    ) -> None:
        """Report created sessions while events are written."""
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Outcome) and answer.created:
                outboxes.created(session_of(request))

    def _seal(self, requests: Sequence[Request], answers: Answers) -> None:
        """Record the spelling of values that a script made but could not determine."""
        seals = [
            Seal(request.sid, request.sets[0], place_of(answer), spelling(answer.result))
            for request, answer in zip(requests, answers, strict=True)
            if isinstance(answer, Outcome) and isinstance(request, Apply)
            if answer.spelling == UNKNOWN and answer.version != answer.prev_version
        ]
        if seals:
            try:
                self._frozen_queue.submit(seals, _ignore)
            except StoreError:
                pass  # until it is written again, the value is equal to its own text only

    def _thawed(self, sids: Iterable[str]) -> None:
        if self._index is not None:
            self._index.enter(sids)
            self._index.flush()

    def _command(self, request: Request) -> Command:
        server = self._io.server
        if server is not None:
            self._settings.cluster = server.cluster
        kind = type(request)
        write = (CODECS.get(kind) or QUERY_CODECS[kind])[0]
        call = write(request, self._settings)
        if not call.script:
            return Command(pack(*call.args), call.keys[0], call.repeatable, reads=True)
        return self._io.script_command(
            call.script, call.keys, call.args, repeatable=call.repeatable
        )

    def _answer(self, reply: Any, request: Request) -> Answer | StoreError:
        if isinstance(reply, StoreError):
            return reply
        try:
            answer: Answer
            codec = CODECS.get(type(request))
            if codec is None:
                answer = QUERY_CODECS[type(request)][1](reply)
            else:
                answer = codec[1](reply, request, self._settings)
                if isinstance(answer, Welcome) and isinstance(reply, Unconfirmed):
                    answer.applied = -1  # it may be lost yet, and would be taken for acknowledged
            self._check(answer)
            return answer
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # What one session's keys hold must not keep the others from their answers.
            return StateDamaged(f"a session is damaged: {type(error).__name__}")


def place_of(answer: Outcome) -> Place:
    """The place of the session after a write."""
    return Place(answer.epoch, answer.version, answer.lineage)


def _any(answer: Answer) -> None:
    """Accept any answer."""


def _ignore(replies: list[Any]) -> None:
    """Ignore the answer."""
