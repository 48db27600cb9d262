"""Updates that the server has not acknowledged yet: strictly in order, within bounds, each carried
out once.

Theory of operation. An update keeps its correlation id for its whole life, and what it says from
its first sending on. The queue is a `stream`: the updates of it are numbered 1, 2, 3 ... in the
order in which they are sent, and the server carries one out only if its number is the next. So
several may be on the way at once, and one that the server refuses for a moment is not overtaken:
those behind it are refused with `sequence_gap`, and all of them get new numbers once everything
that was on the way is answered. An update that is refused uses no number. The acknowledgement of
one says that all before it were carried out, too.

Numbers are given by position: the first update that is not acknowledged has `acked + 1`. The same
order gives the same numbers, on a new connection and after a restart of the program. On a
connection they stay: an update may be asked again, and is answered once for each copy of it.

Where the numbers and the server's disagree, the connection is given up, and the next one begins
with the truth. So it is, too, when the server has gone back while a copy of an update may still be
on the way: an update that is done, as its first copy was answered, may be carried out anew by its
second one, and then it is not lost. The server reads no copy of an older connection.

A server without streams ignores the numbers and knows updates by their ids. There two updates of
one key are never on the way together, so that an older one is not sent again after a newer one.

An acknowledgement may come before the replica has its version. A guarded update of the same key
waits until then: sent with the older base, it would conflict with our own write.

An update is queued, then `in_flight`, and back to queued when its answer did not come. It leaves
when the replica holds what it did (`ack_version`), or when it is refused for good.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from syncbridge_client.errors import InvalidUpdate, QueueFull
from syncbridge_client.operations import Edit
from syncbridge_client.values import MISSING, to_text


class Pending:
    """One update of ours.

    Attributes:
        id: correlation id, the idempotency key.
        edits: key -> operation. Several keys: SET and DELETE only.
        guarded: it is sent with `base_version`, so that conflicts are found.
        base_version, base_lineage: what it was last sent with; the latter only for a version that
            the replica had.
        contested: keys that somebody else changed after the update was made -> their value.
        seq: its number in the stream; 0 while it has none. stream: in which it was done.
        copies: how often it was sent without being answered, on this connection.
        doubtful: one of its answers was overdue, or is one too few.
        in_flight, sent: on the way now; it may have been carried out, so that what it says must
            not change. tried: it was sent on an earlier connection, too.
        sent_at, not_before: times in seconds of the caller's clock.
        attempts: refusals so far.
        ack_version: the replica must have this version before the update can go; None while it
            is not acknowledged. version: what the server gave it, 0 until then.
        mark: what must have reached the disk before it may leave.
    """

    __slots__ = (
        "ack_version",
        "attempts",
        "base_lineage",
        "base_version",
        "contested",
        "copies",
        "doubtful",
        "edits",
        "guarded",
        "id",
        "in_flight",
        "mark",
        "not_before",
        "sent",
        "sent_at",
        "seq",
        "size",
        "stream",
        "tried",
        "version",
    )

    def __init__(self, update_id: str, edits: dict[str, Edit], guarded: bool = False) -> None:
        self.id = update_id
        self.edits = edits
        self.guarded = guarded
        self.base_version: int | None = None
        self.base_lineage = self.stream = ""
        self.contested: dict[str, Any] = {}
        self.seq = self.mark = self.copies = 0
        self.in_flight = self.sent = self.tried = self.doubtful = False
        self.sent_at = 0.0
        self.not_before = 0.0
        self.attempts = 0
        self.ack_version: int | None = None
        self.version = 0
        self.size = len(to_text(self.payload()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it touches."""
        return tuple(self.edits)

    def payload(self) -> dict[str, Any]:
        """The payload of its STATE_UPDATE."""
        body = self._single() if len(self.edits) == 1 else self._several()
        if self.guarded and self.base_version is not None:
            body["base_version"] = self.base_version
            if self.base_lineage:
                body["base_lineage"] = self.base_lineage
        return body

    def _single(self) -> dict[str, Any]:
        [(key, edit)] = self.edits.items()
        body = {"key": key, "operation": edit.operation}
        if edit.operation != "DELETE":
            body["value"] = edit.value
        if edit.expected is not MISSING:
            body["expected"] = edit.expected
        return body

    def _several(self) -> dict[str, Any]:
        sets = {k: e.value for k, e in self.edits.items() if e.operation == "SET"}
        deleted = [k for k, e in self.edits.items() if e.operation == "DELETE"]
        return {"changes": sets, "deleted_keys": deleted}


class Journal(Protocol):
    """Who keeps the queue on disk. Each change is told at once; `flushed` is raised when safe."""

    def put(self, pending: Pending) -> None:
        """An update is new, or says something else."""

    def remove(self, update_id: str) -> None:
        """An update has left."""

    def moved(self) -> None:
        """The stream or its acknowledged number has changed."""


class OfflineQueue:
    """Pending updates in the order in which they were made.

    Args:
        new_id: makes names of streams.
        max_updates, max_bytes: bounds; a new update beyond them is refused, none is dropped.
        window: updates on the way at once.

    Attributes:
        stream: the name of this queue at the server. acked: its last acknowledged number.
        sequenced: the server takes the stream in order.
        astray: only a new connection can tell what the server has.
        journal: keeps it on disk. marks: changes told to it; flushed: how many of them are safe.
    """

    def __init__(
        self,
        new_id: Callable[[], str],
        max_updates: int = 1_000,
        max_bytes: int = 1_048_576,
        window: int = 32,
    ) -> None:
        self._new_id = new_id
        self._max_updates = max_updates
        self._max_bytes = max_bytes
        self._window = window
        self._updates: dict[str, Pending] = {}
        self._by_key: dict[str, list[Pending]] = {}
        self._last = self._barrier = 0
        self._stalled = self._repeated = False
        self.stream = new_id()
        self.acked = 0
        self.sequenced = self.astray = False
        self.bytes = 0
        self.journal: Journal | None = None
        self.marks = 0
        self.flushed: float = math.inf

    def __len__(self) -> int:
        return len(self._updates)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._updates.values())

    def get(self, update_id: str | None) -> Pending | None:
        """The update with a correlation id."""
        return None if update_id is None else self._updates.get(update_id)

    def touching(self, key: str) -> list[Pending]:
        """Updates of one key, oldest first."""
        return self._by_key.get(key, [])

    # Taking updates

    def add(self, pending: Pending, max_message: int) -> None:
        """Append an update.

        Raises:
            QueueFull: it does not fit; nothing changed.
            InvalidUpdate: it is larger than a message of `max_message` bytes can be.
        """
        if len(self._updates) >= self._max_updates:
            raise QueueFull(f"{self._max_updates} updates wait to be acknowledged")
        self._check(pending.size, pending.size, max_message)
        self.restore(pending)
        self._store(pending)

    def restore(self, pending: Pending) -> None:
        """Put an update back that was kept by a journal."""
        self._updates[pending.id] = pending
        self.bytes += pending.size
        for key in pending.edits:
            self._by_key.setdefault(key, []).append(pending)

    def replaceable(self, edits: dict[str, Edit], guarded: bool) -> Pending | None:
        """The update whose value a newer one of the same key may take over.

        It was not sent, has this key alone, and nothing later touches the key.
        """
        if len(edits) != 1:
            return None
        [(key, edit)] = edits.items()
        last = self.touching(key)[-1:]
        if not last or last[0].sent or last[0].ack_version is not None:
            return None
        if len(last[0].edits) != 1 or last[0].guarded != guarded:
            return None
        plain = {edit.operation, last[0].edits[key].operation} <= {"SET", "DELETE"}
        return last[0] if plain else None

    def replace(self, pending: Pending, edits: dict[str, Edit], max_message: int) -> None:
        """Give an update that was not sent another value for its key; raises as `add`."""
        size = Pending(pending.id, edits, pending.guarded).size
        self._check(size, size - pending.size, max_message)
        self.rewrite(pending, edits)

    def remove(self, pending: Pending) -> None:
        """Take an update out: done, or refused."""
        del self._updates[pending.id]
        self.bytes -= pending.size
        for key in pending.edits:
            self._forget(key, pending)
        if self.journal is not None:
            self.journal.remove(pending.id)

    def rewrite(self, pending: Pending, edits: dict[str, Edit]) -> None:
        """Give an update other edits, on some of its keys."""
        kept = {key: edits[key] for key in pending.edits if key in edits}
        for key in set(pending.edits) - set(kept):
            self._forget(key, pending)
        pending.edits = kept
        self.bytes -= pending.size
        pending.size = len(to_text(pending.payload()))
        self.bytes += pending.size
        self._store(pending)

    def oversized(self, max_message: int) -> list[Pending]:
        """Updates that do not fit a message of so many bytes."""
        return [p for p in self if p.size + ENVELOPE_BYTES > max_message]

    # Sending

    def ready(self, now: float) -> Pending | None:
        """The next update to send, or None. O(pending updates)."""
        blocked: set[str] = set()
        unseen: set[str] = set()
        on_the_way = 0
        for pending in self:
            if pending.ack_version is not None:
                unseen.update(pending.edits)
            elif pending.in_flight:
                on_the_way += 1
                if on_the_way >= self._window:
                    return None
                blocked.update(pending.edits)
            elif self._may_go(pending, now, blocked, unseen):
                return pending
            elif not self._stalled:  # else one behind may have to be asked again first
                return None
        return None

    def _may_go(self, pending: Pending, now: float, blocked: set[str], unseen: set[str]) -> bool:
        if (self._stalled and not pending.seq) or pending.not_before > now:
            return False
        if self.flushed < max(pending.mark, self._barrier):
            return False
        if (pending.guarded or not self.sequenced) and not blocked.isdisjoint(pending.edits):
            return False
        return not pending.guarded or unseen.isdisjoint(pending.edits)

    def sent(self, pending: Pending, now: float) -> None:
        """An update is on the way."""
        if not pending.seq:
            self._last += 1
            pending.seq = self._last
        pending.in_flight = pending.sent = True
        self._repeated |= pending.copies > 0
        pending.copies += 1
        pending.sent_at = now

    def times(self, now: float, ack_timeout: float) -> list[float]:
        """When refused updates may be sent again, and when answers are overdue."""
        refused = [p.not_before for p in self if p.not_before > now and not p.in_flight]
        return refused + [p.sent_at + ack_timeout for p in self if p.in_flight]

    def resend_older(self, than: float) -> None:
        """Send again what was sent before a time and is not answered; twice in vain is enough."""
        for pending in self:
            if pending.in_flight and pending.sent_at <= than:
                pending.in_flight = False
                self.astray |= pending.doubtful
                pending.doubtful = True

    def recall(self) -> None:
        """Answers may have been left out: ask again, under the same numbers."""
        for pending in self:
            pending.in_flight = False

    def disconnected(self) -> None:
        """The connection is gone: send everything again.

        What was acknowledged is in what the next one begins with, or lost with the store.
        """
        for pending in self:
            if pending.ack_version is not None:
                pending.ack_version = 0
            pending.tried = pending.sent
            pending.in_flight = pending.doubtful = False
            pending.copies = 0
        self.astray = self._repeated = False
        self._renumber()

    # What the server says

    def up_to(self, last: Pending) -> list[Pending]:
        """What an acknowledgement speaks of: the answers of those before may have been left out."""
        if not self.sequenced:
            return [last]
        return [p for p in self if p is last or (0 < p.seq < last.seq and p.ack_version is None)]

    def acknowledge(self, pending: Pending) -> None:
        """The server has carried out an update."""
        pending.in_flight = False
        pending.copies = 0
        pending.stream = self.stream
        if self.journal is not None:  # together with the number, or it would get another one
            self.journal.remove(pending.id)
        if pending.seq > self.acked:
            self.acked = pending.seq
            self._tell_moved()
        self._settle()

    def is_last_answer(self, pending: Pending) -> bool:
        """An update was refused: whether that holds, or another copy's answer will tell."""
        pending.copies = max(0, pending.copies - 1)
        pending.doubtful = pending.copies > 0
        return not pending.doubtful

    def refused(self, pending: Pending) -> None:
        """The server has not carried out an update; it stays, or `remove` follows.

        One that knows ids only may have carried it out before, and refuse to look now.
        """
        pending.seq = pending.copies = 0
        pending.in_flight = pending.doubtful = False
        pending.sent = pending.tried and not self.sequenced
        self._move_barrier()
        self._stalled = True
        self._settle()

    def out_of_step(self, pending: Pending, last: int | None) -> None:
        """The numbers are not those that the server expects: `last` is the one it has."""
        self.sequenced = True
        self.refused(pending)
        # While others are not answered, they may be what `last` counts.
        self.astray |= last is None or (last != self.acked and not self._awaits())

    def forgotten(self) -> None:
        """A server that takes streams does not tell what it has of ours: it does not know."""
        if self.sequenced:
            self.new_stream()

    def new_stream(self) -> None:
        """Nobody knows the old stream, or another copy of this queue uses it."""
        self.stream = self._new_id()
        self.sequenced = False
        self.astray = True
        self._set_acked(0)

    def reconcile(self, applied: int) -> tuple[list[Pending], int]:
        """What the server has of the stream.

        Returns updates of ours that it has carried out, and how many acknowledged ones it does not
        have any more. Nothing while a copy may be on the way: that is for a new connection.
        """
        self.astray |= self._repeated or self._awaits()
        if self.astray:
            return [], 0
        self.sequenced = True
        lost = max(0, self.acked - applied)
        sent = [p for p in self if p.ack_version is None and p.sent]
        done = sent[: max(0, applied - self.acked)]
        first = self.acked + 1
        if applied > self.acked + len(sent):
            self.new_stream()
        elif lost or done:
            self._set_acked(applied)
        self._renumber()
        for number, pending in enumerate(done, first):
            pending.seq = number
        return done, lost

    def _set_acked(self, last: int) -> None:
        self.acked = last
        self._move_barrier()

    def _move_barrier(self) -> None:
        """Nothing leaves before the disk has what numbers are given by."""
        self.marks += 1
        self._barrier = self.marks
        self._tell_moved()

    def _tell_moved(self) -> None:
        if self.journal is not None:
            self.journal.moved()

    def _settle(self) -> None:
        """New numbers, once nothing is on the way that has an old one."""
        if self._stalled and not self._awaits():
            self._renumber()

    def _awaits(self) -> bool:
        return any(p.copies and p.ack_version is None for p in self)

    def _renumber(self) -> None:
        self._stalled = False
        self._last = self.acked
        for pending in self:
            if pending.ack_version is None:
                pending.seq = 0

    # Parts

    def _check(self, size: int, more: int, max_message: int) -> None:
        if size + ENVELOPE_BYTES > max_message:
            raise InvalidUpdate(
                f"an update of {size} bytes does not fit a message of {max_message}"
            )
        if self.bytes + more > self._max_bytes:
            raise QueueFull(f"updates of {self.bytes} bytes wait to be acknowledged")

    def _store(self, pending: Pending) -> None:
        self.marks += 1
        pending.mark = self.marks
        if self.journal is not None:
            self.journal.put(pending)

    def _forget(self, key: str, pending: Pending) -> None:
        waiting = self._by_key[key]
        waiting.remove(pending)
        if not waiting:
            del self._by_key[key]


ENVELOPE_BYTES = 420
"""What a message has around its payload: type, ids, stream, number, a base version."""
