"""What one node knows of one session: its replica, its place in the history, what is missing.

Theory of operation. Redis orders all writes of a session and numbers them 1, 2, 3… within an
epoch. A node learns of commits from two sides: answers to its own writes, and messages from other
nodes. Each side is in order, but the two are not ordered against each other, and messages can be
lost. So `version` is the last commit that this node has given to its devices, and `offer` takes
commits in any order:

* `prev_version == version`: next in line; it is applied, and so is every held commit after it;
* `version <= ours`: seen before; dropped;
* else there is a hole before it: it is held (at most `MAX_HELD`), and the caller is told that it
  must read the difference from the store if the hole does not close by itself.

`catch_up` is the answer to such a read: a difference that spans several versions. Devices get it
as one update with `prev_version` = what they had, which is right because a difference carries the
newest value of each key it names.

The replica (`doc`) is optional: a node that never needed the whole state of a session does not
hold it. When it is there, it always equals the state at `version`.

A step over several versions does not say what each of them did. A key that was made and deleted in
between leaves no trace in the replica, nor does one that is again as it was. Nobody whose version
is the step's first one or older misses that; somebody whose version lies inside does, and can come
from another node. So `jumps` remembers such steps, and `since` knows nothing of versions inside.
For the same reason a difference of contents is no step for a session of which a device has been
told more than the others (`ahead`): that device's version lies inside.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Generic, TypeVar

import msgspec

from syncbridge.kernels import Doc, DocumentLimits, render_pairs, split
from syncbridge.records.sessions import PresenceChange
from syncbridge.roster import Roster

MAX_HELD = 64
"""Commits kept behind a hole; more and they are all dropped for a read of the difference."""

UNLIMITED = DocumentLimits(max_bytes=1 << 30, max_keys=1 << 20, max_value_bytes=1 << 30)
"""For state that comes from our own store, which held it to the real limits."""

MAX_OWED = 4096
"""Acknowledgements kept for commits that were dropped so; a client sends again what it misses."""

MAX_JUMPS = 8
"""Steps over several versions that are kept apart; with more, the oldest two become one."""

C = TypeVar("C")


class Change(msgspec.Struct, gc=False):
    """A step in a session's history: one commit, or a difference over several."""

    version: int
    prev_version: int
    epoch: str
    device_id: str
    correlation_id: str
    sets: Sequence[bytes]
    deletes: Sequence[bytes]
    lineage: str = ""
    prev_lineage: str = ""


class Verdict(Enum):
    """What became of an offered commit."""

    APPLIED = 1
    SEEN = 2
    HELD = 3
    NEW_LINEAGE = 4


class Session(Generic[C]):
    """One session on this node; `C` is the type of its connections.

    Attributes:
        id: canonical UUID text. owner: user id, empty while the session does not exist.
        version, epoch: last commit given to the local devices.
        ahead: the newest version that a single device was told of, straight from the store.
        jumps: (first, last version) of steps that the replica took over several commits.
        doc: replica at `version`, or None.
        devices: device id -> connection, local ones only.
        binary: how many of the devices take protobuf.
        topic: the hub's topic of the local connections.
        held: `prev_version` -> commit that waits behind a hole.
        covered: commits that a difference or a whole state made needless; their senders still
            wait for an acknowledgement. The caller takes them with `take_covered`.
        owed: the same, but the devices do not have their content yet.
        reading: a read of the difference is under way.
        joined: `begin` has been called; commits that come earlier wait for it.
        joining: connections that have asked to join and are not yet in `devices`.
        prefix: JSON text of the envelope members that are the same for all of its messages.
        roster: which devices the local ones were told are online, here and on other nodes.
        recent: changes of other nodes' devices since the first of those that are joining asked.
    """

    __slots__ = (
        "ahead",
        "binary",
        "covered",
        "devices",
        "doc",
        "epoch",
        "held",
        "id",
        "joined",
        "joining",
        "jumps",
        "owed",
        "owner",
        "prefix",
        "reading",
        "recent",
        "roster",
        "topic",
        "version",
    )

    def __init__(self, session_id: str, topic: int = 0) -> None:
        self.id = session_id
        self.owner = ""
        self.version = self.ahead = 0
        self.jumps: list[tuple[int, int]] | None = None
        self.epoch = ""
        self.doc: Doc | None = None
        self.devices: dict[str, C] = {}
        self.binary = 0
        self.topic = topic
        self.held: dict[int, Change] | None = None
        self.covered: list[Change] | None = None
        self.owed: list[Change] | None = None
        self.reading = False
        self.joined = False
        self.joining = 0
        self.prefix = b""
        self.roster = Roster()
        self.recent: list[PresenceChange] = []

    @property
    def empty(self) -> bool:
        """Nobody is here and nobody is coming."""
        return not self.devices and not self.joining

    def begin(
        self, version: int, epoch: str, flat: Sequence[bytes] | None, out: list[Change]
    ) -> None:
        """First news from the store; `flat` is the whole state, or None to do without a replica."""
        self.joined = True
        self.version, self.epoch = version, epoch
        self.doc = None if flat is None else Doc.from_flat(flat, version, epoch)
        self._release(out)

    def absorb(self, flat: Sequence[bytes], version: int, epoch: str, out: list[Change]) -> Verdict:
        """Take a whole state that was read from the store, when it is news.

        Devices that are here are owed the difference; without a replica, or with a device that is
        ahead, it cannot be told, and HELD asks for a read of it.
        """
        if not self.epoch and not self.version:
            self.epoch = epoch
        if epoch != self.epoch:
            return Verdict.NEW_LINEAGE
        if version <= self.version:
            if version == self.version and self.doc is None:
                self.doc = Doc.from_flat(flat, version, epoch)
            return Verdict.SEEN
        if self.doc is None or self.version < self.ahead:
            return Verdict.HELD
        sets, deletes = self.doc.diff(split(render_pairs(flat), UNLIMITED))
        self.catch_up(Change(version, self.version, epoch, "", "", sets, deletes), out)
        return Verdict.APPLIED

    def offer(self, change: Change, out: list[Change]) -> Verdict:
        """Take one commit; append to `out` what the devices must be sent now, in order.

        O(1) plus the size of the change. NEW_LINEAGE: the commit belongs to another epoch, and
        the caller must read the whole state.
        """
        if not self.joined:
            self._hold(change)
            return Verdict.HELD
        if change.epoch != self.epoch:
            if self.epoch:
                self._owe(change)
                return Verdict.NEW_LINEAGE
            if change.prev_version:
                # The session has just been created; its first commit is still on its way.
                self._hold(change)
                return Verdict.HELD
            self.epoch = change.epoch
        if change.version <= self.version:
            self._cover(change)
            return Verdict.SEEN
        if change.prev_version != self.version:
            self._hold(change)
            return Verdict.HELD
        self._advance(change, out)
        self._release(out)
        return Verdict.APPLIED

    def catch_up(self, change: Change, out: list[Change]) -> bool:
        """Take a difference read from the store; False when it does not reach back far enough.

        Its `prev_version` may lie before ours: what it names is newest anyway.
        """
        if change.epoch != self.epoch or change.prev_version > self.version:
            return False
        if change.version > self.version:
            step = msgspec.structs.replace(change, prev_version=self.version)
            self._advance(step, out)
        self._release(out)
        return True

    def told(self, version: int) -> None:
        """A single device was told of a version straight from the store."""
        self.ahead = max(self.ahead, version)

    def since(self, version: int) -> tuple[bytes, bytes] | None:
        """`(changes object, deleted keys array)` after a version of this epoch, as JSON text.

        None when that is not known here: without a replica, before its beginning, or inside of a
        step over several versions.
        """
        if self.doc is None or any(first < version < last for first, last in self.jumps or ()):
            return None
        return self.doc.since(version)

    def restart(self, flat: Sequence[bytes], version: int, epoch: str) -> None:
        """Replace everything by a whole state that was read from the store."""
        self.jumps, self.ahead = None, 0
        self.doc = Doc.from_flat(flat, version, epoch)
        self.version, self.epoch = version, epoch
        self.joined = True
        self._release([])

    def take_covered(self) -> list[Change]:
        """Commits that were swallowed since the last call."""
        covered, self.covered = self.covered, None
        return covered or []

    def has_hole(self) -> bool:
        """Whether commits wait behind a missing one."""
        return bool(self.held)

    def _advance(self, change: Change, out: list[Change]) -> None:
        if self.doc is not None and not self.doc.apply(
            change.sets, change.deletes, change.prev_version, change.version
        ):
            self.doc = None
        if change.version > self.version + 1:
            self._jump(change.version)
        self.version = change.version
        out.append(change)

    def _jump(self, version: int) -> None:
        """Note a step over several versions; the oldest two become one when they are too many."""
        jumps = self.jumps = self.jumps or []
        jumps.append((self.version, version))
        if len(jumps) > MAX_JUMPS:
            jumps[:2] = [(jumps[0][0], jumps[1][1])]

    def _is_news(self, change: Change) -> bool:
        return change.version > self.version and change.epoch == self.epoch

    def _hold(self, change: Change) -> None:
        if self.held is None:
            self.held = {}
        elif len(self.held) >= MAX_HELD:
            for dropped in self.held.values():
                self._owe(dropped)
            self.held = {}
        self.held[change.prev_version] = change

    def _owe(self, change: Change) -> None:
        """Remember who waits for a commit whose content will come by a wider change."""
        if not change.correlation_id:
            return
        if self.owed is None:
            self.owed = []
        elif len(self.owed) >= MAX_OWED:
            del self.owed[0]
        self.owed.append(msgspec.structs.replace(change, sets=[], deletes=[]))

    def _cover(self, change: Change) -> None:
        if self.covered is None:
            self.covered = []
        self.covered.append(change)

    def _release(self, out: list[Change]) -> None:
        while self.held:
            if not self.epoch:
                first = self.held.get(0)
                if first is None:
                    return
                self.epoch = first.epoch
            self._drop_known()
            following = self.held.pop(self.version, None)
            if following is None:
                break
            self._advance(following, out)
        self._settle()

    def _drop_known(self) -> None:
        """Move held commits that are no news any more to `covered`."""
        assert self.held is not None
        known = [p for p, c in self.held.items() if not self._is_news(c)]
        for prev_version in known:
            self._cover(self.held.pop(prev_version))

    def _settle(self) -> None:
        """Move what is owed to `covered` as soon as the devices have its content."""
        if not self.owed:
            return
        waiting = []
        for change in self.owed:
            if change.epoch == self.epoch and change.version <= self.version:
                self._cover(change)
            else:
                waiting.append(change)
        self.owed = waiting or None
