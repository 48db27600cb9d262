"""Updates that the server has not acknowledged yet: in order, within bounds, each sent once or
again.

Theory of operation. An update keeps its correlation id for its whole life. The server remembers
the ids that it has carried out, so sending an update again after an unknown outcome does nothing
twice. Several updates may be on the way at once, but never two that touch the same key: whatever
the server refuses for a moment can then be sent again later without undoing a newer write of our
own. So the order of the updates of one key always holds. Updates of different keys leave in order;
one that the server refuses for a moment is overtaken.

An acknowledgement may come before the replica has its version. A guarded update of the same key
waits until then: sent with the older base, it would conflict with our own write.

An update is `queued`, then `in_flight`, and back to queued when its answer did not come. It leaves
when the replica holds what it did (`ack_version`), or when it is refused for good.
"""

from collections.abc import Iterator
from typing import Any

from syncbridge_client.errors import InvalidUpdate, QueueFull
from syncbridge_client.operations import Edit
from syncbridge_client.values import MISSING, to_text


class Pending:
    """One update of ours.

    Attributes:
        id: correlation id, the idempotency key.
        edits: key -> operation. Several keys: SET and DELETE only.
        guarded: it is sent with `base_version`, so that conflicts are found.
        base_version: what it was last sent with.
        contested: keys that somebody else changed after the update was made -> their value.
        in_flight, sent: on the way now; ever sent, so that its outcome may be unknown.
        sent_at, not_before: times in seconds of the caller's clock.
        attempts, conflicts: refusals so far.
        ack_version: the replica must have this version before the update can go; None while it
            is not acknowledged. version: what the server gave it, 0 until then.
    """

    __slots__ = (
        "ack_version",
        "attempts",
        "base_version",
        "conflicts",
        "contested",
        "edits",
        "guarded",
        "id",
        "in_flight",
        "not_before",
        "sent",
        "sent_at",
        "size",
        "version",
    )

    def __init__(self, update_id: str, edits: dict[str, Edit], guarded: bool = False) -> None:
        self.id = update_id
        self.edits = edits
        self.guarded = guarded
        self.base_version: int | None = None
        self.contested: dict[str, Any] = {}
        self.in_flight = False
        self.sent = False
        self.sent_at = 0.0
        self.not_before = 0.0
        self.attempts = 0
        self.conflicts = 0
        self.ack_version: int | None = None
        self.version = 0
        self.size = len(to_text(self.payload()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it touches."""
        return tuple(self.edits)

    def is_free(self, blocked: set[str], unseen: set[str]) -> bool:
        """Whether it may go while older updates of these keys are open, or done but `unseen`."""
        return blocked.isdisjoint(self.edits) and (
            not self.guarded or unseen.isdisjoint(self.edits)
        )

    def payload(self) -> dict[str, Any]:
        """The payload of its STATE_UPDATE."""
        body = self._single() if len(self.edits) == 1 else self._several()
        if self.guarded and self.base_version is not None:
            body["base_version"] = self.base_version
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


class OfflineQueue:
    """Pending updates in the order in which they were made.

    Args:
        max_updates, max_bytes: bounds; a new update beyond them is refused, none is dropped.
        window: updates on the way at once.
    """

    def __init__(
        self, max_updates: int = 1_000, max_bytes: int = 1_048_576, window: int = 32
    ) -> None:
        self._max_updates = max_updates
        self._max_bytes = max_bytes
        self._window = window
        self._updates: dict[str, Pending] = {}
        self._by_key: dict[str, list[Pending]] = {}
        self.bytes = 0

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

    def add(self, pending: Pending, max_message: int) -> None:
        """Append an update.

        Raises:
            QueueFull: it does not fit; nothing changed.
            InvalidUpdate: it is larger than a message of `max_message` bytes can be.
        """
        if pending.size + ENVELOPE_BYTES > max_message:
            raise InvalidUpdate(
                f"an update of {pending.size} bytes does not fit a message of {max_message}"
            )
        if len(self._updates) >= self._max_updates:
            raise QueueFull(f"{self._max_updates} updates wait to be acknowledged")
        if self.bytes + pending.size > self._max_bytes:
            raise QueueFull(f"updates of {self.bytes} bytes wait to be acknowledged")
        self._updates[pending.id] = pending
        self.bytes += pending.size
        self._index(pending)

    def remove(self, pending: Pending) -> None:
        """Take an update out: done, or refused."""
        del self._updates[pending.id]
        self.bytes -= pending.size
        self._unindex(pending)

    def rewrite(self, pending: Pending, edits: dict[str, Edit]) -> None:
        """Give an update other edits, on some of its keys."""
        kept = {key: edits[key] for key in pending.edits if key in edits}
        for key in set(pending.edits) - set(kept):
            self._forget(key, pending)
        pending.edits = kept
        self.bytes -= pending.size
        pending.size = len(to_text(pending.payload()))
        self.bytes += pending.size

    def ready(self, now: float) -> Pending | None:
        """The next update to send, or None. O(pending updates)."""
        blocked: set[str] = set()
        unseen: set[str] = set()
        on_the_way = 0
        for pending in self._updates.values():
            if pending.ack_version is not None:
                unseen.update(pending.edits)
                continue
            if pending.in_flight:
                on_the_way += 1
                if on_the_way >= self._window:
                    return None
            elif pending.not_before <= now and pending.is_free(blocked, unseen):
                return pending
            blocked.update(pending.edits)
        return None

    def times(self, now: float, ack_timeout: float) -> list[float]:
        """When refused updates may be sent again, and when answers are overdue."""
        refused = [p.not_before for p in self if p.not_before > now and not p.in_flight]
        return refused + [p.sent_at + ack_timeout for p in self if p.in_flight]

    def oversized(self, max_message: int) -> list[Pending]:
        """Updates that do not fit a message of so many bytes."""
        return [p for p in self if p.size + ENVELOPE_BYTES > max_message]

    def overdue(self, before: float) -> list[Pending]:
        """Updates on the way since before a time."""
        return [p for p in self if p.in_flight and p.sent_at <= before]

    def sent(self, pending: Pending, now: float) -> None:
        """An update is on the way."""
        pending.in_flight = pending.sent = True
        pending.sent_at = now

    def recall(self) -> None:
        """The connection is gone, or answers may have been lost: send everything again."""
        for pending in self:
            pending.in_flight = False

    def _index(self, pending: Pending) -> None:
        for key in pending.edits:
            self._by_key.setdefault(key, []).append(pending)

    def _unindex(self, pending: Pending) -> None:
        for key in pending.edits:
            self._forget(key, pending)

    def _forget(self, key: str, pending: Pending) -> None:
        waiting = self._by_key[key]
        waiting.remove(pending)
        if not waiting:
            del self._by_key[key]


ENVELOPE_BYTES = 160
"""What a message has around its payload: type, correlation id, a base version."""
