"""The state of one session on one node: its replica, its place in the history, and the gaps.

Theory of operation. Redis orders all writes of a session, numbers them 1, 2, 3… within an epoch,
and chains a token to each, the lineage. So a place (epoch, version, lineage) names a whole history,
also after Redis has come back older than it was. A node learns of commits from two sides: answers
to its own writes, and messages from other nodes. Each side is in order, but the two are not ordered
against each other, and messages can be lost. The place is that of the last commit that this node
has delivered to its devices. `offer` takes commits in any order:

* made on our place: it is next in line; it is applied, and so is every held commit after it;
* it leads to our place, or to one of the last `MAX_KEPT`: seen before; dropped;
* of another epoch: a read is needed at once (FOREIGN);
* anything else is held (at most `MAX_HELD`). Mostly something before it is still under way; if that
  does not come by itself, the caller reads from the store.

From `read` on, everything that is offered is held: the replica stands still, so that the answer
fits it. Commits held before the read happened before it, so its answer contains them, unless the
store has lost them. `catch_up` takes a difference from our place, `replace` a whole state that is
not the continuation of what devices have. Then `release` offers what was held meanwhile.

The replica (`doc`) is optional: a node that never needed the whole state of a session does not
hold it. When it is there, it always equals the state at `version`.

A step over several versions does not say what each of them did. A key that was made and deleted in
between leaves no trace in the replica, nor does one that is again as it was. Nobody whose version
is the step's first one or older misses that; somebody whose version lies inside does, and can come
from another node. So `jumps` remembers such steps, and `since` knows nothing of versions inside.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Generic, TypeVar

import msgspec

from syncbridge.ephemeral import Ephemeral
from syncbridge.kernels import Doc, DocumentLimits
from syncbridge.records.sessions import Place
from syncbridge.roster import Roster, Summary

MAX_HELD = 64
"""Commits that wait; with more, all but the last are dropped for a read of the difference."""

MAX_KEPT = 64
"""Places that are known to lie behind us."""

UNLIMITED = DocumentLimits(max_bytes=1 << 30, max_keys=1 << 20, max_value_bytes=1 << 30)
"""Limits for state from our own store, which has enforced the real ones."""

MAX_OWED = 4096
"""Acknowledgements kept for commits that were dropped so; a client sends again what it misses."""

MAX_JUMPS = 8
"""Steps over several versions that are kept apart; with more, the oldest two become one."""

C = TypeVar("C")


class Change(msgspec.Struct, gc=False):
    """A step in a session's history: one commit, or a difference over several.

    Attributes:
        lineage, prev_lineage: tokens of `version` and `prev_version`; "" for version 0.
        seq: number of an own write in its stream. duplicate: it had been done before, and `seq` is
            the last one of the stream.
    """

    version: int
    prev_version: int
    epoch: str
    device_id: str
    correlation_id: str
    sets: Sequence[bytes]
    deletes: Sequence[bytes]
    lineage: str = ""
    prev_lineage: str = ""
    seq: int = 0
    duplicate: bool = False


class OfferResult(Enum):
    """What became of an offered commit."""

    APPLIED = 1
    SEEN = 2
    HELD = 3
    FOREIGN = 4


class Session(Generic[C]):
    """One session on this node; `C` is the type of its connections.

    Attributes:
        owner: user id, "" while the session does not exist.
        version, epoch, lineage: place of the last commit given to the local devices.
        resets: how often the state was replaced by one that is not its continuation.
        kept: version -> lineage of places on the way to ours, at most `MAX_KEPT`.
        jumps: (first, last version) of steps that the replica took over several commits.
        doc: replica at `version`, or None.
        devices: device id -> connection, local ones only.
        binary: how many of the devices take protobuf.
        topic: the hub's topic of the local connections.
        touched: when it was last seen to be registered in the store, seconds of a clock; 0: never.
        held: place before a commit -> commit that waits, see the module's text.
        covered: commits whose content the devices have; their senders still wait for an
            acknowledgement. The caller takes them with `take_covered`.
        owed: the same, but the devices do not have their content yet.
        reading: a read of the difference is under way.
        joined: `begin` has been called; commits that come earlier wait for it.
        joining: connections that have asked to join and are not yet in `devices`.
        prefix: JSON text of the envelope members that are the same for all of its messages.
        roster: which devices the local ones were told are online, here and on other nodes.
        summary: what a session of many devices was not told yet; None while it is small.
        ephemeral: what the devices say of themselves while they are there; None: nothing so far.
    """

    __slots__ = (
        "binary",
        "covered",
        "devices",
        "doc",
        "ephemeral",
        "epoch",
        "held",
        "id",
        "joined",
        "joining",
        "jumps",
        "kept",
        "lineage",
        "owed",
        "owner",
        "prefix",
        "reading",
        "resets",
        "roster",
        "summary",
        "topic",
        "touched",
        "version",
    )

    def __init__(self, session_id: str, topic: int = 0) -> None:
        self.id = session_id
        self.owner = ""
        self.version = self.resets = 0
        self.jumps: list[tuple[int, int]] | None = None
        self.epoch = self.lineage = ""
        self.kept: dict[int, str] | None = None
        self.doc: Doc | None = None
        self.devices: dict[str, C] = {}
        self.binary = 0
        self.topic = topic
        self.touched = 0.0
        self.held: dict[Place, Change] | None = None
        self.covered: list[Change] | None = None
        self.owed: list[Change] | None = None
        self.reading = False
        self.joined = False
        self.joining = 0
        self.prefix = b""
        self.roster = Roster()
        self.summary: Summary | None = None
        self.ephemeral: Ephemeral | None = None

    @property
    def empty(self) -> bool:
        """Whether there are no devices and no joins in progress."""
        return not self.devices and not self.joining

    @property
    def place(self) -> Place:
        """Where the devices here are."""
        return Place(self.epoch, self.version, self.lineage)

    def begin(self, place: Place, flat: Sequence[bytes] | None, out: list[Change]) -> None:
        """First news from the store; `flat` is the whole state, or None to do without a replica."""
        self._set(place, flat)
        self.joined = True
        self.release(out)

    def offer(self, change: Change, out: list[Change]) -> OfferResult:
        """Take one commit; append the changes that the devices must now get to `out`, in order.

        O(1) plus the size of the change, but for commits that wait. FOREIGN: the commit is of
        another epoch, and the caller must read from the store.
        """
        if self.reading or not self.joined:
            self._hold(change)
            return OfferResult.HELD
        if self._follows(change):
            self._advance(change, out)
            self._go_on(out)
            return OfferResult.APPLIED
        if self._seen(change):
            self._cover(change)
            self._note(change.prev_version, change.prev_lineage)
            self._drop_seen()
            return OfferResult.SEEN
        if self.version and change.epoch != self.epoch:
            self._owe(change)
            return OfferResult.FOREIGN
        self._hold(change)
        return OfferResult.HELD

    def knows(self, place: Place) -> bool:
        """Whether a place is ours, or lies on the way to it as far as that is kept."""
        if place.version == self.version:
            return place.lineage == self.lineage and (not self.version or place.epoch == self.epoch)
        known = self.kept.get(place.version) if self.kept else None
        return known == place.lineage and place.epoch == self.epoch

    def read(self) -> Place:
        """A read begins: the place that it is to be asked from, at which everything stays."""
        self.reading = True
        held, self.held = self.held, None
        for change in (held or {}).values():
            self._owe(change)
        return self.place

    def catch_up(
        self, place: Place, sets: Sequence[bytes], deletes: Sequence[bytes], out: list[Change]
    ) -> None:
        """Take a difference from our place to another."""
        if place.version > self.version:
            step = Change(place.version, self.version, place.epoch, "", "", sets, deletes)
            step.lineage, step.prev_lineage = place.lineage, self.lineage
            self._advance(step, out)

    def replace(self, place: Place, flat: Sequence[bytes]) -> None:
        """Take a whole state that is not the continuation of what the devices have.

        Commits of the history before are done with; the caller takes them with `take_covered`
        before it tells the devices.
        """
        self.resets += 1
        self._settle(lambda change: change.epoch != place.epoch or self.epoch == place.epoch)
        self._set(place, flat)

    def fill(self, place: Place, flat: Sequence[bytes]) -> None:
        """Take a whole state as the replica when it is that of our place and there is none."""
        if self.doc is None and place == self.place:
            self.doc = Doc.from_flat(flat, place.version, place.epoch)

    def release(self, out: list[Change]) -> OfferResult:
        """A read has ended, well or not: offer what was held meanwhile.

        FOREIGN: another read is needed.
        """
        self.reading = False
        verdict = OfferResult.SEEN
        held, self.held = self.held, None
        for change in (held or {}).values():
            if self.offer(change, out) is OfferResult.FOREIGN:
                verdict = OfferResult.FOREIGN
        self._settle(self._contains)
        return verdict

    def since(self, place: Place) -> tuple[bytes, bytes] | None:
        """`(changes object, deleted keys array)` after a place in our history, as JSON text.

        None when that is not known here: without a replica, before its beginning, inside of a step
        over several versions, or when the place cannot be verified.
        """
        if place.epoch != self.epoch or (place.lineage and not self.knows(place)):
            return None
        return self.since_version(place.version)

    def since_version(self, version: int) -> tuple[bytes, bytes] | None:
        """The same after a version that is known to lie in our history."""
        if self.doc is None or any(first < version < last for first, last in self.jumps or ()):
            return None
        return self.doc.since(version)

    def lineage_of(self, version: int) -> str:
        """The lineage of an earlier version, "" if it is no longer known."""
        if version == self.version:
            return self.lineage
        return (self.kept or {}).get(version, "")

    def rest(self) -> None:
        """Nothing is under way: what is kept for the sake of that can go."""
        if not self.held and not self.reading:
            self.kept = None

    def take_covered(self) -> list[Change]:
        """Commits that were swallowed since the last call."""
        covered, self.covered = self.covered, None
        return covered or []

    def give_up(self) -> list[Change]:
        """What waits for content that cannot be read is forgotten; the caller tells its senders."""
        waiting = [*(self.owed or ()), *(self.held or {}).values()]
        self.owed = self.held = None
        return waiting

    def has_hole(self) -> bool:
        """Whether commits wait behind a missing one."""
        return bool(self.held)

    def _set(self, place: Place, flat: Sequence[bytes] | None) -> None:
        self.jumps = self.kept = None
        self.epoch, self.version, self.lineage = place
        self.doc = None if flat is None else Doc.from_flat(flat, place.version, place.epoch)

    def _follows(self, change: Change) -> bool:
        return (
            change.prev_version == self.version
            and change.prev_lineage == self.lineage
            and (change.epoch == self.epoch or not self.version)
        )

    def _seen(self, change: Change) -> bool:
        return self.knows(Place(change.epoch, change.version, change.lineage))

    def _contains(self, change: Change) -> bool:
        """Whether the devices have the content of a commit that happened before a read."""
        return change.epoch == self.epoch and change.version <= self.version

    def _advance(self, change: Change, out: list[Change]) -> None:
        if self.doc is not None and not self.doc.apply(
            change.sets, change.deletes, change.prev_version, change.version
        ):
            self.doc = None
        if change.version > self.version + 1:
            self._jump(change.version)
        self._note(self.version, self.lineage)
        self.epoch, self.version, self.lineage = change.epoch, change.version, change.lineage
        out.append(change)

    def _jump(self, version: int) -> None:
        """Note a step over several versions; the oldest two become one when they are too many."""
        jumps = self.jumps = self.jumps or []
        jumps.append((self.version, version))
        if len(jumps) > MAX_JUMPS:
            jumps[:2] = [(jumps[0][0], jumps[1][1])]

    def _note(self, version: int, lineage: str) -> None:
        """A place on the way to ours."""
        if version:
            kept = self.kept = self.kept or {}
            kept[version] = lineage
            if len(kept) > MAX_KEPT:
                del kept[next(iter(kept))]

    def _hold(self, change: Change) -> None:
        held = self.held = self.held or {}
        if len(held) >= MAX_HELD:
            for dropped in held.values():
                self._owe(dropped)
            held.clear()
        before = Place(change.epoch, change.prev_version, change.prev_lineage)
        if before in held:  # made on the same place in another history
            self._owe(held.pop(before))
        held[before] = change

    def _owe(self, change: Change) -> None:
        """Remember who waits for a commit whose content will come by a wider change."""
        if not change.correlation_id and not change.seq:
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

    def _go_on(self, out: list[Change]) -> None:
        """Apply what was held behind our place."""
        while self.held:
            following = self.held.pop(self.place, None)
            if following is None and not self.version:
                following = self._first()
            if following is None:
                break
            self._advance(following, out)
        self._settle(self._contains)

    def _first(self) -> Change | None:
        """The first commit of a session that did not exist, if it is held."""
        assert self.held is not None
        found = next((place for place in self.held if not place.version), None)
        return None if found is None else self.held.pop(found)

    def _drop_seen(self) -> None:
        """A place has been verified: so are those that lead to it."""
        for before in sorted(self.held or (), key=version_of, reverse=True):
            assert self.held is not None
            change = self.held[before]
            if self._seen(change):
                del self.held[before]
                self._cover(change)
                self._note(change.prev_version, change.prev_lineage)

    def _settle(self, done: Callable[[Change], bool]) -> None:
        """Move what is owed and done with to `covered`."""
        waiting = []
        for change in self.owed or ():
            if done(change):
                self._cover(change)
            else:
                waiting.append(change)
        self.owed = waiting or None


def version_of(place: Place) -> int:
    """For sorting."""
    return place.version
