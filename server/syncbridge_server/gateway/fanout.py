"""Gives commits to the devices of this node, in version order and without holes.

Commits come from three sides: answers to our own writes (`commit`), other nodes (`receive`), and
reads of a difference (`mend`). `syncbridge.session.Session` puts them in order; this file asks the
store for what is missing and turns changes into frames.

A hole usually closes by itself within a millisecond, when an answer of our own is overtaken by
another node's message. So holes are noted, and a read is made only for those that are still there
when `mend_holes` runs.
"""

from collections.abc import Iterable, Sequence

import msgspec
import structlog
import trio

from syncbridge import encode
from syncbridge.errors import StoreError
from syncbridge.kernels import render_pairs
from syncbridge.messages import MessageType
from syncbridge.records.sessions import Commit, Place, Resume, Resumed, Status, Touched
from syncbridge.session import Change, Verdict
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.post import Post, prefix
from syncbridge_server.gateway.registry import Registry

log = structlog.get_logger("gateway")


class Fanout:
    """Commits in, frames out.

    Attributes:
        wanted: set when there is a hole to look after.
        holes: ids of sessions in which a commit waits behind a missing one.
        doubts: ids of sessions whose place in the store is not known: a write whose fate is
            unknown, or a read that failed.
    """

    def __init__(self, registry: Registry, post: Post, courier: Courier) -> None:
        self._registry = registry
        self._post = post
        self._courier = courier
        self.holes: set[str] = set()
        self.doubts: set[str] = set()
        self.wanted = trio.Event()
        self.mended = 0

    def commit(self, session_id: str, change: Change) -> None:
        """A commit that the store has; does nothing when the session is not here."""
        session = self._registry.sessions.get(session_id)
        if session is None:
            return
        out: list[Change] = []
        verdict = session.offer(change, out)
        if verdict is Verdict.HELD:
            self._found_hole(session_id)
        self.publish(session, out)
        if verdict is Verdict.FOREIGN:
            self.mend(session)

    def receive(self, commits: Sequence[Commit]) -> None:
        """Commits of other nodes."""
        for c in commits:
            self.commit(
                c.sid,
                Change(
                    c.version,
                    c.prev_version,
                    c.epoch,
                    c.device_id,
                    c.correlation_id,
                    c.sets,
                    c.deletes,
                    c.lineage,
                    c.prev_lineage,
                ),
            )

    def publish(self, session: LocalSession, changes: Iterable[Change]) -> None:
        """Send changes to every device of the session here.

        A commit that was swallowed by a wider change is acknowledged to its sender.
        """
        for change in changes:
            self._post.update(session, change)
        for change in session.take_covered():
            connection = session.devices.get(change.device_id)
            if connection is not None and change.correlation_id:
                self._post.update_one(connection, acknowledgement(change))

    def mend_holes(self) -> None:
        """Read the difference for every session that still has a hole."""
        holes, self.holes = self.holes, set()
        for session_id in holes:
            session = self._registry.sessions.get(session_id)
            if session is None or not session.held:
                continue
            if session.joined:
                self.mend(session)
            else:
                self._found_hole(session_id)

    def mend_doubts(self) -> None:
        """Read the difference for every session that is in doubt."""
        doubts, self.doubts = self.doubts, set()
        for session_id in doubts:
            session = self._registry.sessions.get(session_id)
            if session is not None:
                self.mend(session)

    def mend(self, session: LocalSession) -> None:
        """Ask the store what changed since what the devices here have."""
        if session.reading or not session.joined:
            return
        self.mended += 1
        self._courier.ask(Resume(session.id, session.read()), self._mended, session)

    def compare(self, session: LocalSession, answer: Touched) -> None:
        """Hold a session against where the store says that it is."""
        if not session.joined:
            return
        if Place(answer.epoch, answer.version, answer.lineage) == session.place:
            session.rest()
        else:
            self.mend(session)

    def resync(self, connection: Connection, seen: int) -> None:
        """A slow reader has drained: one difference since `seen`, the version it has."""
        session = connection.session
        if session is None:
            return
        if connection.resets != session.resets:
            self._send_whole(connection, session)
            return
        delta = session.since_version(seen)
        if delta is not None:
            self._send_delta(connection, session, seen, *delta)
            return
        self._ask_resync(connection, session, Place(session.epoch, seen, session.lineage_of(seen)))

    def _ask_resync(self, connection: Connection, session: LocalSession, since: Place) -> None:
        request = Resume(session.id, since)
        self._courier.ask(request, self._resynced, connection, since)

    def _send_whole(self, connection: Connection, session: LocalSession) -> None:
        """What the reader has not seen began in a history that is gone."""
        connection.resets = session.resets
        if session.doc is None:
            self._ask_resync(connection, session, Place())
            return
        payload = whole_state(session, encode.reset_part(RESYNC))
        self._post.send(connection, MessageType.SNAPSHOT_RESPONSE, payload, None)

    def _found_hole(self, session_id: str) -> None:
        self.holes.add(session_id)
        self.wanted.set()

    def _mended(self, answer: Resumed | StoreError, session: LocalSession) -> None:
        out: list[Change] = []
        if isinstance(answer, StoreError):
            self.doubts.add(session.id)
            log.warning("Mend Failed", detail=answer.detail)
        else:
            self._take(session, answer, out)
        verdict = session.release(out)
        self.publish(session, out)
        if verdict is Verdict.FOREIGN:
            self.mend(session)
        elif session.has_hole():
            self._found_hole(session.id)

    def _take(self, session: LocalSession, answer: Resumed, out: list[Change]) -> None:
        """One difference from what the devices have, or a state that replaces it."""
        place, full = place_read(answer), answer.full
        if place == session.place:
            session.fill(place, full or [])
        elif full is None and answer.status is Status.OK:
            session.catch_up(place, answer.sets, answer.deletes, out)
        elif not session.version:
            session.catch_up(place, full or [], [], out)
        else:
            self._restart(session, place, full or [], answer.reason)

    def _restart(
        self, session: LocalSession, place: Place, flat: Sequence[bytes], reason: str
    ) -> None:
        """Every device is told; what is acknowledged of the history before, ahead of that."""
        if not reason:
            reason = RESYNC if place.epoch == session.epoch else EPOCH
        session.replace(place, flat)
        self.publish(session, [])
        session.prefix = prefix(session)
        payload = whole_state(session, encode.reset_part(reason))
        for connection in session.devices.values():
            self._post.send(connection, MessageType.SNAPSHOT_RESPONSE, payload, None)

    def _resynced(self, answer: Resumed | StoreError, connection: Connection, since: Place) -> None:
        session = connection.session
        if session is None:
            return
        if isinstance(answer, StoreError):
            self._post.error(connection, answer, None)
            return
        place = place_read(answer)
        if place != session.place:  # what the device was sent meanwhile must not be undone
            if not session.knows(place):
                self.mend(session)
            self._ask_resync(connection, session, since)
            return
        if answer.full is None:
            change = Change(
                place.version, since.version, place.epoch, "", "", answer.sets, answer.deletes
            )
            change.lineage, change.prev_lineage = place.lineage, since.lineage
            self._post.update_one(connection, change)
            return
        part = encode.state_part(render_pairs(answer.full))
        payload = encode.snapshot_payload(place, part + encode.reset_part(answer.reason or RESYNC))
        self._post.send(connection, MessageType.SNAPSHOT_RESPONSE, payload, None)

    def _send_delta(
        self,
        connection: Connection,
        session: LocalSession,
        seen: int,
        changes: bytes,
        deleted: bytes,
    ) -> None:
        payload = (
            b'{%b,"prev_version":%d,"prev_lineage":"%b","changes":%b,"deleted_keys":%b,'
            b'"device_id":""}'
            % (
                encode.position(session.place),
                seen,
                session.lineage_of(seen).encode(),
                changes,
                deleted,
            )
        )
        self._post.send(connection, MessageType.STATE_UPDATE, payload, None)


def acknowledgement(change: Change) -> Change:
    """The same commit without news, for a sender that has its content already."""
    return msgspec.structs.replace(
        change, prev_version=change.version, prev_lineage=change.lineage, sets=[], deletes=[]
    )


RESYNC, EPOCH = "resync", "epoch"


def place_read(answer: Resumed) -> Place:
    """Where a session was when it was read."""
    return Place(answer.epoch, answer.version, answer.lineage)


def whole_state(session: LocalSession, more: bytes = b"") -> bytes:
    """SNAPSHOT_RESPONSE payload from a session's replica, which must be there.

    `more`: further members, as JSON text that begins with a comma.
    """
    assert session.doc is not None
    part = encode.state_part(session.doc.render()) + more
    return encode.snapshot_payload(session.place, part)
