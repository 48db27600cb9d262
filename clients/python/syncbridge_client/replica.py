"""What the client knows of its session: the server's state, and its own updates laid over it.

Theory of operation. `server` is the state at `(epoch, version)`, made of what the server sent and
nothing else. `view` is `server` with every pending update applied on top, oldest first; it is what
a program sees. A commit that comes in changes `server`, and in the same step the update that it
acknowledges leaves the queue. So a key with a pending update of our own never shows an older value
in between: it shows ours until the server has ordered it, and then what the server says.

The view is kept up to date key by key: O(keys of a commit), not O(keys of the state).

An acknowledgement may overtake the commit that it speaks of. Then the update stays, with its
`ack_version`, until the replica has that version.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from syncbridge_client.operations import Edit
from syncbridge_client.queue import OfflineQueue, Pending
from syncbridge_client.values import MISSING, same


class Verdict(Enum):
    """What became of a commit."""

    APPLIED = 1
    KNOWN = 2
    GAP = 3
    OTHER_EPOCH = 4


class Step:
    """What one event did to the view. `settled`: updates that are done, with their version."""

    __slots__ = ("changed", "deleted", "settled", "verdict")

    def __init__(self, verdict: Verdict = Verdict.APPLIED) -> None:
        self.verdict = verdict
        self.changed: dict[str, Any] = {}
        self.deleted: set[str] = set()
        self.settled: list[Pending] = []

    def __bool__(self) -> bool:
        return bool(self.changed or self.deleted)


class Replica:
    """One session as this device sees it.

    Attributes:
        version, epoch, lineage: of `server`; epoch is empty until the first answer, or while the
            session does not exist.
        known: a whole state was received once, so that resuming is possible.
        view: what the program sees; the object stays the same for ever.
        queue: the pending updates.
    """

    def __init__(self, queue: OfflineQueue) -> None:
        self.queue = queue
        self.version = 0
        self.epoch = ""
        self.lineage = ""
        self.known = False
        self.server: dict[str, Any] = {}
        self.view: dict[str, Any] = {}
        self._confirmed: list[Pending] = []

    # Our own updates

    def overlay(self, pending: Pending, max_message: int) -> Step:
        """Take an update into the queue and show its effect; raises as `OfflineQueue.add`."""
        self.queue.add(pending, max_message)
        return self._refreshed(Step(), pending.edits)

    def replace(self, pending: Pending, edits: dict[str, Edit], max_message: int) -> Step:
        """Give an update that was never sent another value; raises as `OfflineQueue.add`."""
        self.queue.replace(pending, edits, max_message)
        return self._refreshed(Step(), edits)

    def withdraw(self, pending: Pending) -> Step:
        """An update was refused for good: take it and its effect out."""
        self.queue.remove(pending)
        return self._refreshed(Step(), pending.edits)

    def rewrite(self, pending: Pending, edits: dict[str, Edit]) -> Step:
        """Rebase an update on what others have done; no edits left means that it is dropped."""
        keys = pending.keys
        if edits:
            self.queue.rewrite(pending, edits)
        else:
            self.queue.remove(pending)
        return self._refreshed(Step(), keys)

    def restore(self, state: dict[str, Any], version: int, epoch: str, lineage: str) -> None:
        """Take what a journal has kept, before the first answer of the server."""
        self.server = dict(state)
        self.version, self.epoch, self.lineage, self.known = version, epoch, lineage, True

    def refresh(self) -> Step:
        """The queue or `server` was changed: show it."""
        keys = {key for pending in self.queue for key in pending.edits}
        return self._refreshed(Step(), keys | self.server.keys())

    # What the server says

    def confirm(self, pending: Pending) -> Step:
        """The server has carried out an update, and what we have contains it."""
        self._confirm(pending, self.version)
        return self._settle(Step(), ())

    def whole(
        self,
        state: dict[str, Any],
        version: int,
        epoch: str,
        lineage: str = "",
        *,
        reset: bool = False,
    ) -> Step:
        """A whole state: the truth, whatever was known before.

        `reset`: it is not the continuation of what was known.
        """
        if reset or epoch != self.epoch:
            self._new_lineage()
        for pending in self._confirmed:
            pending.ack_version = 0
        touched = state.keys() | self.server.keys()
        for key in touched:
            self._contest(key, state.get(key, MISSING), version)
        self.server = dict(state)
        self.version, self.epoch, self.known = version, epoch, True
        self.lineage = lineage
        return self._settle(Step(), touched | self.view.keys())

    def difference(
        self,
        changes: Mapping[str, Any],
        deleted: Iterable[str],
        version: int,
        epoch: str,
        lineage: str = "",
    ) -> Step:
        """What changed since a version that we have, up to `version`."""
        if epoch != self.epoch and self.epoch:
            return Step(Verdict.OTHER_EPOCH)
        if version < self.version:
            return Step(Verdict.KNOWN)
        self.epoch, self.lineage = epoch, lineage
        return self._apply(changes, deleted, version, own=None)

    def commit(
        self,
        changes: Mapping[str, Any],
        deleted: Iterable[str],
        version: int,
        prev_version: int,
        epoch: str,
        update_id: str | None,
        lineage: str = "",
        prev_lineage: str = "",
    ) -> Step:
        """One STATE_UPDATE; `update_id` is its correlation id."""
        own = self.queue.get(update_id)
        if epoch != self.epoch and (self.epoch or prev_version):
            return self._acknowledge(own, version, Verdict.OTHER_EPOCH)
        if version <= self.version:
            return self._acknowledge(own, version, Verdict.KNOWN)
        if prev_version > self.version:
            return self._acknowledge(own, version, Verdict.GAP)
        known = self.lineage and prev_lineage and prev_version == self.version
        if known and prev_lineage != self.lineage:
            return self._acknowledge(own, version, Verdict.OTHER_EPOCH)
        self.epoch, self.lineage = epoch, lineage
        if own is not None:
            self._confirm(own, version)
        return self._apply(changes, deleted, version, own)

    def _acknowledge(self, own: Pending | None, version: int, verdict: Verdict) -> Step:
        step = Step(verdict)
        if own is None or verdict is Verdict.OTHER_EPOCH:
            return step
        self._confirm(own, version)
        return self._settle(step, ())

    def _confirm(self, own: Pending, version: int) -> None:
        """Our update has a version, and those before it one that is not greater.

        What others saw of them was no conflict for our later ones.
        """
        for done in self.queue.up_to(own):
            if done.ack_version is None:
                self._confirmed.append(done)
            done.ack_version = done.version = version
            self.queue.acknowledge(done)
            self._absolve(done)

    def _absolve(self, own: Pending) -> None:
        for key in own.edits:
            for later in self.queue.touching(key):
                if key in later.contested and same(later.contested[key], written(own, key)):
                    del later.contested[key]

    def _apply(
        self,
        changes: Mapping[str, Any],
        deleted: Iterable[str],
        version: int,
        own: Pending | None,
    ) -> Step:
        told = {**changes, **dict.fromkeys(deleted, MISSING)}
        for key, value in told.items():
            if own is None:
                self._contest(key, value, version)
            if value is MISSING:
                self.server.pop(key, None)
            else:
                self.server[key] = value
        self.version = version
        return self._settle(Step(), told)

    def _contest(self, key: str, theirs: Any, version: int) -> None:
        """Mark updates of a key that changes under them, unless the change was our own.

        To be called while `server` is as it was: a difference may name again what we have, and
        that is no news.
        """
        if same(self.server.get(key, MISSING), theirs):
            return
        waiting = self.queue.touching(key)
        if any(p.ack_version is not None and same(written(p, key), theirs) for p in waiting):
            return
        for pending in waiting:
            news = pending.base_version is None or version > pending.base_version
            if pending.guarded and news and pending.ack_version is None:
                pending.contested[key] = theirs

    def _settle(self, step: Step, touched: Iterable[str]) -> Step:
        """Let go of every update whose version we have, then bring the view up to date."""
        keys = set(touched)
        waiting = []
        for pending in self._confirmed:
            assert pending.ack_version is not None
            if pending.ack_version <= self.version:
                self.queue.remove(pending)
                step.settled.append(pending)
                keys.update(pending.edits)
            else:
                waiting.append(pending)
        self._confirmed = waiting
        return self._refreshed(step, keys)

    def _new_lineage(self) -> None:
        """Versions start again: earlier bases mean nothing."""
        for pending in self.queue:
            pending.base_version = None

    def _refreshed(self, step: Step, keys: Iterable[str]) -> Step:
        for key in keys:
            old, new = self.view.get(key, MISSING), self._overlaid(key)
            if new is MISSING:
                if old is not MISSING:
                    del self.view[key]
                    step.deleted.add(key)
            else:
                self.view[key] = new
                if not same(old, new):
                    step.changed[key] = new
        return step

    def _overlaid(self, key: str) -> Any:
        value = self.server.get(key, MISSING)
        for pending in self.queue.touching(key):
            value = pending.edits[key].on(value)
        return value


def written(pending: Pending, key: str) -> Any:
    """What an update leaves in a key; itself, equal to no value, when only the server knows."""
    edit = pending.edits[key]
    return edit.value if edit.operation in ("SET", "DELETE") else pending
