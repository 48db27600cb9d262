"""DEVICE_JOINED and DEVICE_LEFT: announces joins and departures on all nodes to the devices of this
one.

The store decides: each script that takes a connection online or offline answers, and tells the
other nodes, which connection that was. `syncbridge.roster.Roster` makes one history of what arrives
from both sides, and this file turns it into frames and into what happens to a socket here: closed
with 4009 when its device has connected elsewhere, with 4010 when it was signed out, and left open
for reading when it has handed the session over.

In a large session, changes are sent together; see `Summaries`. A newcomer's list may already
contain what other nodes announce later; then only the other devices are told. See `Roster.unaware`.
"""

from collections.abc import Callable, Iterable

import structlog

from syncbridge import encode
from syncbridge.close_codes import CloseCode
from syncbridge.errors import StoreError
from syncbridge.messages import MessageType
from syncbridge.protocol import State
from syncbridge.records.devices import DeviceList, ListDevices
from syncbridge.records.sessions import Compared, Device, Leave, Left, PresenceChange, Status
from syncbridge.roster import News
from syncbridge_core.hub import Hub
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.devices import Summaries, decode_info, device_payload
from syncbridge_server.gateway.ephemeral import EphemeralState
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.voice import VoiceLink
from syncbridge_server.isolation import of_record

log = structlog.get_logger("gateway")

JOINED = "joined"
REMOVED = "removed"
HANDOFF = "handoff"
TIMEOUT = "timeout"


class Departures:
    """Announces devices; see the module's text.

    Attributes:
        unsure: ids of sessions whose devices must be compared with the store.
        stale_devices: the store may still list devices of this node that have left, in sessions
            that are not here any more.
        early: session -> device -> its sign-out, received while a device was joining.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        sender: MessageSender,
        store_queue: StoreQueue,
        voice: VoiceLink,
        ephemeral: EphemeralState,
        summaries: Summaries,
        *,
        node: str,
        clock: Callable[[], float],
    ) -> None:
        self._voice = voice
        self._ephemeral = ephemeral
        self._hub = hub
        self._registry = registry
        self._sender = sender
        self._store_queue = store_queue
        self._summaries = summaries
        self._node = node
        self._clock = clock
        self.unsure: set[str] = set()
        self.stale_devices = False
        self.early: dict[str, dict[str, PresenceChange]] = {}

    def closed(self, connection: Connection) -> None:
        """The socket of a connection is gone."""
        was_ready = connection.state is State.READY
        if was_ready:
            self._voice.left(connection)
        connection.state = State.CLOSED
        current = self._registry.remove(connection)
        session = connection.session
        if session is None or not was_ready:
            return
        if current:
            self.leave(connection, session)
        self._registry.release(session)

    def leave(self, connection: Connection, session: LocalSession) -> None:
        """Tell the store that a connection has ended."""
        request = Leave(
            session.id,
            connection.device_id,
            connection.id,
            self._node,
            last=session.empty,
            reason=connection.leave_reason,
        )
        self._store_queue.ask(request, self._left, connection, session)
        self._registry.release(session)

    def heard(self, change: PresenceChange) -> None:
        """Handle a presence change from another node or from a sweep."""
        session = self._registry.sessions.get(change.sid)
        if session is not None:
            self.observe(session, change)

    def observe(self, session: LocalSession, change: PresenceChange, exclude: int = 0) -> None:
        """Apply a presence change: to the roster, to the socket here that it concerns, and to the
        devices."""
        session.roster.heard_of(change.newest)
        if change.event == JOINED:
            news = session.roster.joined(change.device_id, change.fence, change.detail)
            self._close_older(session, change)
        else:
            removed = change.event == REMOVED
            news = session.roster.left(change.device_id, change.fence, removed=removed)
            exclude = self._end(session, change) or exclude
        if news is not News.NOTHING and session.joined:
            self._tell(session, change, news, exclude)
        if news in (News.JOINED, News.REPLACED):
            self._ephemeral.joined(session, change.device_id, change.fence)
        elif not session.roster.is_online(change.device_id):
            self._ephemeral.left(session, change.device_id)

    def _tell(
        self, session: LocalSession, change: PresenceChange, news: News, exclude: int
    ) -> None:
        unaware = set()
        if news in (News.LEFT, News.REPLACED):
            unaware = session.roster.unaware(change.device_id)
        if self._summaries.took(session, change.device_id, news, reason_of(change)):
            self._tell_source(session, change, news)
            return
        frames = self._frames(session, change, news)
        if unaware:
            self._tell_aware(session, frames.pop(0), unaware | {exclude})
        for frame in frames:
            self._sender.notice(session, frame, exclude)

    def close_replaced(self, previous: Connection) -> None:
        """Close a connection whose device has connected again."""
        previous.leave_reason = "replaced"
        self._hub.close(previous.cid, CloseCode.REPLACED, CloseCode.REPLACED.reason)

    def verify(self, session: LocalSession) -> None:
        """Compare what the devices here know with the store: a message may have been lost."""
        self._store_queue.ask(ListDevices(session.id), self.listed, session)

    def agrees(self, session: LocalSession, answer: Compared) -> bool:
        """Whether the devices here know what the store has of the session's devices."""
        return session.roster.fits(answer.online, answer.newest) and all(
            connection.released or session.roster.is_online(device_id)
            for device_id, connection in session.devices.items()
        )

    def _left(
        self, answer: Left | StoreError, connection: Connection, session: LocalSession
    ) -> None:
        if isinstance(answer, StoreError):
            log.warning("leave_failed", detail=answer.detail)
            if not of_record(answer):
                self.doubt(session)
            return
        if answer.changed:
            change = PresenceChange(
                session.id, connection.leave_reason, answer.fence, 0, connection.device_id, b""
            )
            self.observe(session, change)

    def doubt(self, session: LocalSession) -> None:
        """The store may list devices of this node that have left."""
        if self._registry.sessions.get(session.id) is session and session.devices:
            self.unsure.add(session.id)
        else:
            self.stale_devices = True

    def listed(self, answer: DeviceList | StoreError, session: LocalSession) -> None:
        """Update the roster to the store's list, and announce the differences."""
        if isinstance(answer, StoreError):
            if not of_record(answer):
                self.doubt(session)
            return
        if answer.status is not Status.OK:
            return
        self._remove_stale_devices(session, answer.devices)
        self.observe_all(session, answer.devices)
        for device_id, fence in session.roster.missing(answer.devices, answer.fence):
            self.observe(
                session, PresenceChange(session.id, "disconnected", fence, 0, device_id, b"")
            )
        session.roster.listed_at(answer.fence)

    def observe_all(self, session: LocalSession, devices: Iterable[Device]) -> None:
        """Announce the devices of the store's list that the devices here do not know yet."""
        for device in devices:
            if device.online and device.fence:
                change = PresenceChange(
                    session.id, JOINED, device.fence, 0, device.device_id, device.info
                )
                self.observe(session, change)
            else:
                session.roster.remember(device)

    def _remove_stale_devices(self, session: LocalSession, devices: list[Device]) -> None:
        """Take devices offline that the store lists at this node and that are not here."""
        for device in devices:
            node, _, _ = device.conn.partition(":")
            here = session.devices.get(device.device_id)
            if node == self._node and (here is None or here.id != device.conn):
                request = Leave(session.id, device.device_id, device.conn, self._node)
                self._store_queue.ask(request, self._stale_device_left, session, device)

    def _stale_device_left(
        self, answer: Left | StoreError, session: LocalSession, device: Device
    ) -> None:
        if isinstance(answer, StoreError):
            self.doubt(session)
        elif answer.changed:
            change = PresenceChange(
                session.id, "disconnected", answer.fence, 0, device.device_id, b""
            )
            self.observe(session, change)

    def entered(self, session: LocalSession, connection: Connection) -> None:
        """Close a newcomer that was replaced or signed out while its answer was on the way."""
        early = self.early.get(session.id)
        if early is not None and connection.device_id in early:
            self._end(session, early[connection.device_id])
        if session.roster.fence(connection.device_id) > connection.fence:
            self._take_out(session, connection)
            self.close_replaced(connection)

    def all_arrived(self, session: LocalSession) -> None:
        """No join of this session is in progress any more."""
        self.early.pop(session.id, None)

    def _close_older(self, session: LocalSession, change: PresenceChange) -> None:
        """Close the socket here of a device that has connected on another node."""
        connection = session.devices.get(change.device_id)
        if connection is not None and 0 < connection.fence < change.fence:
            self._take_out(session, connection)
            self.close_replaced(connection)

    def _end(self, session: LocalSession, change: PresenceChange) -> int:
        """Apply a departure to the socket here; returns the cid that is not told of it, or 0."""
        connection = session.devices.get(change.device_id)
        if change.event == REMOVED and session.joining:
            self.early.setdefault(session.id, {})[change.device_id] = change
        if connection is None:
            return 0
        late = connection.released and change.event == REMOVED and change.fence > connection.fence
        if connection.fence != change.fence and not late:
            return 0
        if change.event == HANDOFF:
            connection.released = True
            return 0
        if change.event == REMOVED:
            connection.leave_reason = "disconnected"
            self._take_out(session, connection)
            code = CloseCode.DEVICE_REMOVED
            self._hub.close(connection.cid, code, code.reason)
        elif change.event == TIMEOUT:
            self.unsure.add(session.id)  # the node was considered dead
        elif connection.released:
            return (
                0  # the notice of the handoff was lost; it still reads, and is told at least this
            )
        return connection.cid

    def _take_out(self, session: LocalSession, connection: Connection) -> None:
        """Remove a connection that the store has removed already; tell the store only of an empty
        session."""
        self._registry.expel(session, connection)
        if session.empty:
            self.leave(connection, session)

    def _tell_aware(self, session: LocalSession, frame: bytes, unaware: set[int]) -> None:
        for connection in session.devices.values():
            if connection.cid not in unaware:
                self._sender.raw(connection, frame)

    def _tell_source(self, session: LocalSession, change: PresenceChange, news: News) -> None:
        """Tell the source of a handoff at once, in a large session too."""
        source = session.devices.get(change.device_id)
        if change.event == HANDOFF and source is not None:
            for frame in self._frames(session, change, news):
                self._sender.raw(source, frame)

    def _frames(self, session: LocalSession, change: PresenceChange, news: News) -> list[bytes]:
        frames = []
        if news is News.REPLACED:
            payload = left_payload(change.device_id, "replaced")
            frames.append(self._frame(session, MessageType.DEVICE_LEFT, change, payload))
        if news is News.LEFT:
            payload = departure_payload(change)
            frames.append(self._frame(session, MessageType.DEVICE_LEFT, change, payload))
        else:
            payload = device_payload(change.device_id, decode_info(change.detail), True)
            frames.append(self._frame(session, MessageType.DEVICE_JOINED, change, payload))
        return frames

    def _frame(
        self, session: LocalSession, kind: MessageType, change: PresenceChange, payload: bytes
    ) -> bytes:
        address = encode.EnvelopeAddress(session.id, session.owner, change.device_id)
        return encode.envelope(kind, address, int(self._clock()), payload)


def departure_payload(change: PresenceChange) -> bytes:
    """DEVICE_LEFT payload of a change."""
    if change.event == HANDOFF:
        return left_payload(
            change.device_id,
            HANDOFF,
            b',"target_device":%b,"version":%d'
            % (encode.quote(change.detail.decode(errors="replace")), change.version),
        )
    return left_payload(change.device_id, reason_of(change))


def reason_of(change: PresenceChange) -> str:
    """The `reason` of DEVICE_LEFT."""
    return "disconnected" if change.event == REMOVED else change.event


def left_payload(device_id: str, reason: str, more: bytes = b"") -> bytes:
    """DEVICE_LEFT payload."""
    return b'{"device_id":%b,"status":"offline","reason":"%b"%b}' % (
        encode.quote(device_id),
        reason.encode(),
        more,
    )
