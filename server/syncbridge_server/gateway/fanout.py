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
from syncbridge.records.sessions import Commit, Place, Resume, Resumed, Touched
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
        elif verdict is Verdict.NEW_LINEAGE:
            self.mend(session)
        self.publish(session, out)

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
        session.reading = True
        self.mended += 1
        self._courier.ask(
            Resume(session.id, Place(session.epoch, session.version)), self._mended, session
        )

    def compare(self, session: LocalSession, answer: Touched) -> None:
        """Hold a session against where the store says that it is."""
        if session.joined and (answer.version, answer.epoch) != (session.version, session.epoch):
            self.mend(session)

    def resync(self, connection: Connection, seen: int) -> None:
        """A slow reader has drained: one difference since `seen`, the version it has."""
        session = connection.session
        if session is None:
            return
        delta = session.since(seen)
        if delta is not None:
            self._send_delta(connection, session, seen, *delta)
            return
        request = Resume(session.id, Place(session.epoch, seen))
        self._courier.ask(request, self._resynced, connection, seen)

    def _found_hole(self, session_id: str) -> None:
        self.holes.add(session_id)
        self.wanted.set()

    def _mended(self, answer: Resumed | StoreError, session: LocalSession) -> None:
        session.reading = False
        if isinstance(answer, StoreError):
            self.doubts.add(session.id)
            log.warning("Mend Failed", detail=answer.detail)
            return
        out: list[Change] = []
        if answer.full is None:
            change = Change(
                answer.version, session.version, answer.epoch, "", "", answer.sets, answer.deletes
            )
            if answer.version > session.version:
                session.catch_up(change, out)
            self.publish(session, out)
            return
        if session.absorb(answer.full, answer.version, answer.epoch, out) in RESTART:
            self._restart(session, answer)
        self.publish(session, out)

    def _restart(self, session: LocalSession, answer: Resumed) -> None:
        session.restart(answer.full or [], answer.version, answer.epoch)
        session.prefix = prefix(session)
        for connection in session.devices.values():
            self._post.send(connection, MessageType.SNAPSHOT_RESPONSE, whole_state(session), None)

    def _resynced(self, answer: Resumed | StoreError, connection: Connection, seen: int) -> None:
        session = connection.session
        if session is None:
            return
        if isinstance(answer, StoreError):
            self._post.error(connection, answer, None)
            return
        session.told(answer.version)
        if answer.full is None:
            change = Change(answer.version, seen, answer.epoch, "", "", answer.sets, answer.deletes)
            self._post.update_one(connection, change)
            return
        part = encode.state_part(render_pairs(answer.full))
        payload = encode.snapshot_payload(answer.version, answer.epoch, part)
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
            b'{"version":%d,"prev_version":%d,"epoch":"%b","changes":%b,"deleted_keys":%b,'
            b'"device_id":""}' % (session.version, seen, session.epoch.encode(), changes, deleted)
        )
        self._post.send(connection, MessageType.STATE_UPDATE, payload, None)


def acknowledgement(change: Change) -> Change:
    """The same commit without news, for a sender that has its content already."""
    return msgspec.structs.replace(change, prev_version=change.version, sets=[], deletes=[])


RESTART = frozenset({Verdict.NEW_LINEAGE, Verdict.HELD})
"""After these a whole state is the only truth that can be told."""


def whole_state(session: LocalSession, more: bytes = b"") -> bytes:
    """SNAPSHOT_RESPONSE payload from a session's replica, which must be there.

    `more`: further members, as JSON text that begins with a comma.
    """
    assert session.doc is not None
    part = encode.state_part(session.doc.render()) + more
    return encode.snapshot_payload(session.version, session.epoch, part)
