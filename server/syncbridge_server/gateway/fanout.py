"""Sends commits to the devices of this node, in version order and without gaps.

Commits come from three sides: answers to our own writes (`commit`), other nodes (`receive`), and
reads of a difference (`mend`). `syncbridge.session.Session` puts them in order; this file asks the
store for what is missing and turns changes into frames.

A hole usually closes by itself within a millisecond, when an answer of our own is overtaken by
another node's message. So holes are noted, and a read is made only for those that are still there
when `mend_holes` runs.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog

from syncbridge import encode
from syncbridge.errors import StoreError
from syncbridge.kernels import render_pairs
from syncbridge.messages import MessageType
from syncbridge.records.sessions import Commit, Compared, Place, Resume, Resumed, Status
from syncbridge.records.streams import last_number
from syncbridge.session import Change, OfferResult
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.message_sender import MessageSender, prefix
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.rollbacks import Rollbacks
from syncbridge_server.gateway.store_queue import HandlingFailed, StoreQueue
from syncbridge_server.isolation import of_record
from syncbridge_server.telemetry.tracing import TRACING

log = structlog.get_logger("gateway")

RESYNC, EPOCH, ROLLED_BACK = "resync", "epoch", "rolled_back"
"""`reason` of a reset: why a device gets a whole state."""


class Fanout:
    """Commits in, frames out.

    Attributes:
        wanted: set when there is a hole to look after.
        holes: ids of sessions in which a commit waits behind a missing one.
        rollbacks: counts what the store has lost.
        reads: of differences, that have no answer yet. mended: all that were asked for.
        doubts: ids of sessions whose place in the store is not known: a write whose fate is
            unknown, or a read that failed.
    """

    def __init__(self, registry: Registry, sender: MessageSender, store_queue: StoreQueue) -> None:
        self._registry = registry
        self._sender = sender
        self._store_queue = store_queue
        self.holes: set[str] = set()
        self.doubts: set[str] = set()
        self.wanted = AutoResetEvent()
        self.mended = self.reads = 0
        self.rollbacks = Rollbacks()

    def commit(self, session_id: str, change: Change) -> None:
        """Take a commit of the store; does nothing when the session is not here."""
        session = self._registry.sessions.get(session_id)
        if session is None:
            return
        out: list[Change] = []
        verdict = session.offer(change, out)
        if verdict is OfferResult.HELD:
            self._found_hole(session_id)
        self.publish(session, out)
        if verdict is OfferResult.FOREIGN:
            self.mend(session)

    def receive(self, commits: Sequence[Commit]) -> None:
        """Take commits of other nodes. If one cannot be delivered, its session is read again."""
        for c in commits:
            try:
                if c.trace and TRACING.on:
                    with TRACING.child("frames", c.trace):
                        self.commit(c.sid, self._news(c))
                else:
                    self.commit(c.sid, self._news(c))
            except Exception:
                log.exception("commit_failed", session_id=c.sid)
                self.doubts.add(c.sid)

    def _news(self, commit: Commit) -> Change:
        """A commit of another node, published before replicas have it.

        Where they must have it, it acknowledges nothing to its device, which may have moved here.
        """
        change = change_of(commit)
        session = self._registry.sessions.get(commit.sid)
        if self._store_queue.apart and session is not None and commit.device_id in session.devices:
            change.correlation_id = ""
        return change

    def publish(self, session: LocalSession, changes: Iterable[Change]) -> None:
        """Send changes to every device of the session here.

        A commit that is part of a wider change is acknowledged to its sender.
        """
        for change in changes:
            self._sender.update(session, change)
        for change in session.take_covered():
            connection = session.devices.get(change.device_id)
            if connection is not None and (change.correlation_id or change.seq):
                self._sender.update_one(connection, acknowledgement(change))

    def mend_holes(self) -> None:
        """Read the delta of every session that still has a gap."""
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
        """Read the delta of every session in doubt."""
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
        self.reads += 1
        devices = numbering(session)
        request = Resume(session.id, session.read(), devices=devices)
        self._store_queue.ask(request, self._mended, session, devices)

    def compare(self, session: LocalSession, place: Place) -> None:
        """Compare a session with its version in the store."""
        if not session.joined:
            return
        if place == session.place:
            session.rest()
        else:
            self.mend(session)

    def compared(self, session: LocalSession, devices: Sequence[str], answer: Compared) -> None:
        """As `compare`, after messages or data may have been lost: with the devices' streams."""
        self.compare(session, answer.place)
        if not session.reading:
            self._check(session, dict(zip(devices, answer.streams, strict=True)))

    def resync(self, connection: Connection, seen: int) -> None:
        """Send a slow reader that has drained one delta since `seen`, its version."""
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
        self._store_queue.ask(request, self._resynced, connection, since)

    def _send_whole(
        self, connection: Connection, session: LocalSession, reason: str = RESYNC
    ) -> None:
        """The reader waits at a version of a history that no longer exists."""
        connection.resets = session.resets
        if session.doc is None:
            self._ask_resync(connection, session, Place())
            return
        payload = whole_state(session, encode.reset_part(reason) + stream_part(connection))
        self._sender.send(connection, MessageType.SNAPSHOT_RESPONSE, payload, None)

    def _found_hole(self, session_id: str) -> None:
        self.holes.add(session_id)
        self.wanted.set()

    def _mended(
        self, answer: Resumed | StoreError, session: LocalSession, devices: Sequence[str]
    ) -> None:
        self.reads -= 1
        out: list[Change] = []
        records: dict[str, bytes] = {}
        damaged = None
        if isinstance(answer, StoreError):
            # A damaged session stays so: the next comparison reads it again.
            if of_record(answer) or isinstance(answer, HandlingFailed):
                damaged = answer
            else:
                self.doubts.add(session.id)
            log.warning("resync_failed", session_id=session.id, detail=answer.detail)
        else:
            records = dict(zip(devices, answer.streams, strict=bool(answer.streams)))
            self._take(session, answer, out, records)
        verdict = session.release(out)
        self.publish(session, out)
        self._check(session, records)
        if damaged is not None:
            self._give_up(session, damaged)
        elif verdict is OfferResult.FOREIGN:
            self.mend(session)
        elif session.has_hole():
            self._found_hole(session.id)

    def _give_up(self, session: LocalSession, error: StoreError) -> None:
        """The session cannot be read: tell the senders of the commits that wait for it."""
        for change in session.give_up():
            connection = session.devices.get(change.device_id)
            if connection is not None and (change.correlation_id or change.seq):
                self._sender.error(connection, error, change.correlation_id or None)

    def _check(self, session: LocalSession, records: Mapping[str, bytes]) -> None:
        """Tell each device which acknowledged updates the store has lost."""
        for device_id, record in records.items():
            connection = session.devices.get(device_id)
            stream = connection.stream if connection is not None else None
            if connection is None or stream is None:
                continue
            last = last_number(record, stream.text)
            if 0 <= last < stream.acked:
                self.rollbacks.updates += stream.found(last, gone=True)
                self._send_whole(connection, session, ROLLED_BACK)

    def _take(
        self,
        session: LocalSession,
        answer: Resumed,
        out: list[Change],
        records: Mapping[str, bytes],
    ) -> None:
        """Apply one delta, or a state that replaces what the devices have."""
        place, full = place_read(answer), answer.full
        if place == session.place:
            # An empty delta is not a state: devices that resumed have brought none to this node.
            if full is not None or not place.version:
                session.fill(place, full or [])
        elif full is None and answer.status is Status.OK:
            session.catch_up(place, answer.sets, answer.deletes, out)
        elif not session.version and not session.resets:
            session.catch_up(place, full or [], [], out)
        else:  # also what was lost and is there again: with it the devices' numbers
            self._restart(session, place, full or [], answer.reason, records)

    def _restart(
        self,
        session: LocalSession,
        place: Place,
        flat: Sequence[bytes],
        reason: str,
        records: Mapping[str, bytes],
    ) -> None:
        """Tell every device; acknowledgements of the old history come first."""
        if not reason:
            reason = RESYNC if place.epoch == session.epoch else EPOCH
        gone = reason != RESYNC
        if gone:
            self.rollbacks.session(session.id, session.owner, place, reason)
        session.replace(place, flat)
        self.publish(session, [])
        session.prefix = prefix(session)
        assert session.doc is not None
        part = encode.state_part(session.doc.render()) + encode.reset_part(reason)
        for device_id, connection in session.devices.items():
            stream = connection.stream
            if stream is not None:
                last = last_number(records.get(device_id, b""), stream.text)
                self.rollbacks.updates += stream.found(last, gone=gone)
            payload = encode.snapshot_payload(place, part + stream_part(connection))
            self._sender.send(connection, MessageType.SNAPSHOT_RESPONSE, payload, None)

    def _resynced(self, answer: Resumed | StoreError, connection: Connection, since: Place) -> None:
        session = connection.session
        if session is None:
            return
        if isinstance(answer, StoreError):
            self._sender.error(connection, answer, None)
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
            self._sender.update_one(connection, change)
            return
        part = encode.state_part(render_pairs(answer.full))
        part += encode.reset_part(answer.reason or RESYNC) + stream_part(connection)
        payload = encode.snapshot_payload(place, part)
        self._sender.send(connection, MessageType.SNAPSHOT_RESPONSE, payload, None)

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
        self._sender.send(connection, MessageType.STATE_UPDATE, payload, None)


def change_of(commit: Commit) -> Change:
    """A commit of another node as a `Change`."""
    return Change(
        commit.version,
        commit.prev_version,
        commit.epoch,
        commit.device_id,
        commit.correlation_id,
        commit.sets,
        commit.deletes,
        commit.lineage,
        commit.prev_lineage,
    )


def numbering(session: LocalSession) -> list[str]:
    """The devices here that number their updates."""
    return [name for name, each in session.devices.items() if each.stream is not None]


def stream_part(connection: Connection) -> bytes:
    """The last number of a device's stream in the store, and the updates that it has lost."""
    stream = connection.stream
    if stream is None or not stream.known:
        return b""
    return encode.applied_part(stream.acked, stream.take_lost())


def acknowledgement(change: Change) -> Change:
    """A commit without changes, for a sender that has them already."""
    return msgspec.structs.replace(
        change, prev_version=change.version, prev_lineage=change.lineage, sets=[], deletes=[]
    )


def place_read(answer: Resumed) -> Place:
    """The version at which a session was read."""
    return Place(answer.epoch, answer.version, answer.lineage)


def whole_state(session: LocalSession, more: bytes = b"") -> bytes:
    """SNAPSHOT_RESPONSE payload from a session's replica, which must be there.

    `more`: further members, as JSON text that begins with a comma.
    """
    assert session.doc is not None
    part = encode.state_part(session.doc.render()) + more
    return encode.snapshot_payload(session.place, part)
