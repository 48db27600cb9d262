"""The way of own updates: taken, sent, rebased after a conflict, sent again, refused for good, and
those that the server had acknowledged and then lost.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from syncbridge_client import wire
from syncbridge_client.catalogue import ErrorCode, Limits
from syncbridge_client.catalogue import MessageType as M
from syncbridge_client.conflicts import MAX_ROUNDS, rebased
from syncbridge_client.errors import InvalidUpdate, UpdateRefused
from syncbridge_client.events import Conflict, Event, Lost, LostUpdate, Refused
from syncbridge_client.operations import Edit
from syncbridge_client.options import Options
from syncbridge_client.queue import Pending
from syncbridge_client.replica import Replica, Step
from syncbridge_client.values import MISSING, check_key

RETRY_BASE, RETRY_CAP = 0.25, 30.0
"""Seconds before an update that was refused for a moment is sent again: doubled each time."""

REMEMBERED = 128
"""Acknowledged updates that are remembered, in case the server loses them."""

LOST_BASE = frozenset({ErrorCode.BASE_VERSION_AHEAD.wire, ErrorCode.BASE_LOST.wire})
"""Refusals of a base that the server's history does not have."""

OUT_OF_STEP = frozenset({ErrorCode.SEQUENCE_GAP.wire, ErrorCode.UNKNOWN_STREAM.wire})
"""Refusals of a number."""


class Told(Protocol):
    """Who is told what happened to updates."""

    def changed(self, step: Step, own: bool) -> None:
        """The view has changed; `own`: by this program itself."""

    def event(self, event: Event) -> None:
        """Something worth knowing."""

    def finished(self, pending: Pending, error: UpdateRefused | None) -> None:
        """An update is done, or refused for good."""


class Updates:
    """Own updates of one session, over any number of connections."""

    def __init__(
        self, replica: Replica, options: Options, sink: Told, new_id: Callable[[], str]
    ) -> None:
        self._replica = replica
        self._queue = replica.queue
        self._options = options
        self._sink = sink
        self._new_id = new_id
        self._done: deque[Pending] = deque(maxlen=REMEMBERED)

    def submit(self, edits: dict[str, Edit], limits: Limits) -> Pending:
        """Take an update; raises QueueFull and InvalidUpdate."""
        check_edits(edits, limits)
        guarded = self._options.conflict is not None and is_plain(edits)
        waiting = self._queue.replaceable(edits, guarded)
        if waiting is None:
            pending = Pending(self._new_id(), edits, guarded)
            step = self._replica.overlay(pending, limits.message_bytes)
        else:
            pending = waiting
            step = self._replica.replace(waiting, edits, limits.message_bytes)
        self._sink.changed(step, own=True)
        return pending

    # Sending

    def next(self, now: float) -> Pending | None:
        """The next update that may be sent, rebased if it has to be."""
        while pending := self._queue.ready(now):
            if pending.guarded and not pending.sent:
                if pending.contested and not self._rebase(pending):
                    continue
                replica = self._replica
                pending.base_version = max(pending.base_version or 0, replica.version)
                seen = pending.base_version == replica.version
                pending.base_lineage = replica.lineage if seen else ""
            return pending
        return None

    def take(self, now: float) -> bytes | None:
        """The message of the next update, which is on the way from here on."""
        pending = self.next(now)
        if pending is None:
            return None
        self._queue.sent(pending, now)
        body = pending.payload() | {"stream": self._queue.stream, "seq": pending.seq}
        return wire.write(M.STATE_UPDATE, body, pending.id)

    # What the server says

    def report(self, step: Step) -> None:
        """Tell what a step did."""
        self._sink.changed(step, own=False)
        for pending in step.settled:
            self._done.append(pending)
            self._sink.finished(pending, None)

    def reconcile(self, applied: int, ids: Sequence[str]) -> None:
        """What the server has of our stream; `ids`: what it knows to have lost of it."""
        done, lost = self._queue.reconcile(applied)
        for pending in done:
            self.report(self._replica.confirm(pending))
        if self._queue.astray or not (lost or ids):
            return
        stream = self._queue.stream
        gone = [p for p in self._done if p.id in ids or (p.stream == stream and p.seq > applied)]
        self._done = deque((p for p in self._done if p not in gone), REMEMBERED)
        updates = tuple(lost_update(each.id, each.edits) for each in gone)
        self._sink.event(Lost(max(lost, len(gone)), updates))

    def refuse_oversized(self, max_message: int) -> None:
        """A larger message would end the connection for good."""
        for pending in self._queue.oversized(max_message):
            code = ErrorCode.TOO_LARGE
            self._refuse(pending, UpdateRefused(code.wire, f"a message has {max_message} bytes"))

    def refused(self, pending: Pending, failure: wire.Failure, now: float) -> bool:
        """The server has refused an update; returns whether the state must be asked for."""
        if pending.ack_version is not None or not self._queue.is_last_answer(pending):
            return False
        if failure.code in OUT_OF_STEP:
            last = failure.details.get("last")
            self._queue.out_of_step(pending, last if type(last) is int else None)
            return False
        pending.attempts += 1
        conflict = failure.code == ErrorCode.VERSION_CONFLICT.wire and pending.guarded
        ahead = failure.code in LOST_BASE and pending.guarded
        internal = failure.code == ErrorCode.INTERNAL.wire
        tired = pending.attempts > MAX_ROUNDS and (conflict or ahead or internal)
        if tired or not (conflict or ahead or failure.retryable):
            error = UpdateRefused(failure.code, failure.message, failure.details)
            self._refuse(pending, error)
            return False
        if conflict or ahead:  # then it was not carried out before
            pending.tried = False
        self._queue.refused(pending)
        if conflict:
            on_conflict(pending, failure)
        else:
            wait = min(RETRY_CAP, RETRY_BASE * 2.0 ** min(pending.attempts - 1, 16))
            pending.not_before = now + max(failure.retry_after, wait)
        if ahead:
            pending.base_version = None
        return ahead

    def _rebase(self, pending: Pending) -> bool:
        """Settle the contested keys of an update; False when nothing is left of it."""
        policy = self._options.conflict
        assert policy is not None
        try:
            edits, decided = rebased(pending, policy)
        except Exception as error:
            self._refuse(pending, UpdateRefused("conflict", f"resolving it failed: {error!r}"))
            return False
        pending.contested.clear()
        self._sink.changed(self._replica.rewrite(pending, edits), own=True)
        self._sink.event(Conflict(pending.id, tuple(decided)))
        if not edits:
            pending.version = self._replica.version
            self._sink.finished(pending, None)
        return bool(edits)

    def _refuse(self, pending: Pending, error: UpdateRefused) -> None:
        keys = pending.keys
        self._queue.refused(pending)
        self._sink.changed(self._replica.withdraw(pending), own=False)
        self._sink.event(Refused(pending.id, keys, error))
        self._sink.finished(pending, error)


def is_plain(edits: Mapping[str, Edit]) -> bool:
    """Whether an update says what its keys become: only such can conflict."""
    return all(edit.operation in ("SET", "DELETE") for edit in edits.values())


def on_conflict(pending: Pending, failure: wire.Failure) -> None:
    """Note what the server has in place of what an update was made on."""
    current = failure.details.get("current_version")
    pending.base_version = current if type(current) is int else None
    for entry in failure.details.get("conflicts") or ():
        if isinstance(entry, dict) and entry.get("key") in pending.edits:
            pending.contested[entry["key"]] = entry.get("server_value", MISSING)


def lost_update(update_id: str, edits: dict[str, Edit]) -> LostUpdate:
    """An update as the program is told of it."""
    changes = {key: edit.value for key, edit in edits.items() if edit.value is not MISSING}
    deleted = tuple(key for key, edit in edits.items() if edit.value is MISSING)
    operation = "" if is_plain(edits) else next(iter(edits.values())).operation
    return LostUpdate(update_id, changes, deleted, operation, edits)


def check_edits(edits: Mapping[str, Edit], limits: Limits) -> None:
    """Refuse what no server takes; raises InvalidUpdate."""
    if not edits:
        raise InvalidUpdate("an update names at least one key")
    if len(edits) > limits.changes:
        raise InvalidUpdate(f"an update names at most {limits.changes} keys")
    for key in edits:
        check_key(key, limits.key_bytes)
