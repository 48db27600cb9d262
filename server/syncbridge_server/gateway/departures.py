"""DEVICE_JOINED and DEVICE_LEFT: telling the devices here who came and went, here and elsewhere.

The store decides: each script that takes a connection online or offline answers, and tells the
other nodes, which connection that was. `syncbridge.roster.Roster` makes one history of what arrives
from both sides, and this file turns it into frames and into what happens to a socket here: closed
with 4009 when its device has connected elsewhere, with 4010 when it was signed out, and left open
for reading when it has handed the session over.

A newcomer's list is as old as the script that made it. What other nodes told since then is kept in
`Session.recent` while somebody is joining, and sent after the list. What they tell only later, and
the list has already, is news to the others alone: see `Roster.unaware`.
"""

from collections.abc import Callable

import msgspec
import structlog

from syncbridge import encode
from syncbridge.close_codes import CloseCode
from syncbridge.errors import StoreError
from syncbridge.messages import MessageType
from syncbridge.protocol import State
from syncbridge.records.devices import DeviceList, ListDevices
from syncbridge.records.sessions import Device, DeviceInfo, Leave, Left, PresenceChange, Status
from syncbridge.roster import News, Roster
from syncbridge_core.hub import Hub
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.post import Post
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.voice import VoiceLink

log = structlog.get_logger("gateway")

JOINED = "joined"
REMOVED = "removed"
HANDOFF = "handoff"
MAX_RECENT = 256
_info_decoder = msgspec.json.Decoder(DeviceInfo)


class Departures:
    """Announces devices; see the module's text.

    Attributes:
        unsure: ids of sessions in which it is not known whether a device has left.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        post: Post,
        courier: Courier,
        voice: VoiceLink,
        *,
        node: str,
        clock: Callable[[], float],
    ) -> None:
        self._voice = voice
        self._hub = hub
        self._registry = registry
        self._post = post
        self._courier = courier
        self._node = node
        self._clock = clock
        self.unsure: set[str] = set()

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
        self._courier.ask(request, self._left, connection, session)
        self._registry.release(session)

    def heard(self, change: PresenceChange) -> None:
        """A script that another node ran, or a sweep, tells of a device."""
        session = self._registry.sessions.get(change.sid)
        if session is None:
            return
        if session.joining and len(session.recent) < MAX_RECENT:
            session.recent.append(change)
        self.observe(session, change)

    def observe(self, session: LocalSession, change: PresenceChange, exclude: int = 0) -> None:
        """Take a change, do to a socket here what it means, and tell the devices here."""
        if change.event == JOINED:
            news = session.roster.joined(change.device_id, change.fence)
            self._close_older(session, change)
        else:
            news = session.roster.left(change.device_id, change.fence)
            exclude = self._end(session, change) or exclude
        frames = self._frames(session, change, news)
        if news in (News.LEFT, News.REPLACED):
            unaware = session.roster.unaware(change.device_id)
            if unaware and frames:
                self._tell_aware(session, frames.pop(0), unaware | {exclude})
        for frame in frames:
            self._post.notice(session, frame, exclude)

    def welcome(self, session: LocalSession, connection: Connection, devices: list[Device]) -> None:
        """Tell a newcomer what has happened since its list was made."""
        if not session.recent:
            return
        own = Roster()
        own.begin(devices)
        for change in session.recent:
            if change.event == JOINED:
                newer = change.fence > connection.fence
                news = own.joined(change.device_id, change.fence) if newer else News.NOTHING
            else:
                news = own.left(change.device_id, change.fence)
            for frame in self._frames(session, change, news):
                self._post.raw(connection, frame)

    def close_replaced(self, previous: Connection) -> None:
        """The device of this connection has another one."""
        previous.leave_reason = "replaced"
        self._hub.close(previous.cid, CloseCode.REPLACED, CloseCode.REPLACED.reason)

    def verify(self, session: LocalSession) -> None:
        """Hold what the devices here were told against the store: a message may be lost."""
        self.unsure.discard(session.id)
        self._courier.ask(ListDevices(session.id), self._verified, session)

    def _left(
        self, answer: Left | StoreError, connection: Connection, session: LocalSession
    ) -> None:
        if isinstance(answer, StoreError):
            log.warning("Leave Failed", detail=answer.detail)
            if session.devices:
                self.unsure.add(session.id)
            return
        if answer.changed:
            change = PresenceChange(
                session.id, connection.leave_reason, answer.fence, 0, connection.device_id, b""
            )
            self.observe(session, change)

    def _verified(self, answer: DeviceList | StoreError, session: LocalSession) -> None:
        if isinstance(answer, StoreError):
            self.unsure.add(session.id)
            return
        if answer.status is not Status.OK:
            return
        for device in answer.devices:
            if device.online and device.fence:
                change = PresenceChange(
                    session.id, JOINED, device.fence, 0, device.device_id, device.info
                )
                self.observe(session, change)
        for device_id, fence in session.roster.missing(answer.devices, answer.fence):
            self.observe(
                session, PresenceChange(session.id, "disconnected", fence, 0, device_id, b"")
            )

    def _close_older(self, session: LocalSession, change: PresenceChange) -> None:
        """The device has connected on another node; its socket here is the old one."""
        connection = session.devices.get(change.device_id)
        if connection is not None and 0 < connection.fence < change.fence:
            self._take_out(session, connection)
            self.close_replaced(connection)

    def _end(self, session: LocalSession, change: PresenceChange) -> int:
        """The device left: what that means to its socket here; cid of whoever is not told."""
        connection = session.devices.get(change.device_id)
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
        elif connection.released:
            return 0  # the word of the handoff was lost; it still reads, and is told at least this
        return connection.cid

    def _take_out(self, session: LocalSession, connection: Connection) -> None:
        """The store knows already; it is told only when nobody is left here."""
        self._registry.expel(session, connection)
        if session.empty:
            self.leave(connection, session)

    def _tell_aware(self, session: LocalSession, frame: bytes, unaware: set[int]) -> None:
        for connection in session.devices.values():
            if connection.cid not in unaware:
                self._post.raw(connection, frame)

    def _frames(self, session: LocalSession, change: PresenceChange, news: News) -> list[bytes]:
        if news is News.NOTHING or not session.joined:
            return []
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
        address = encode.Address(session.id, session.owner, change.device_id)
        return encode.envelope(kind, address, int(self._clock()), payload)


def decode_info(info: bytes) -> DeviceInfo:
    """Stored metadata of a device; empty when it cannot be read."""
    try:
        return _info_decoder.decode(info)
    except msgspec.DecodeError:
        return DeviceInfo()


def departure_payload(change: PresenceChange) -> bytes:
    """DEVICE_LEFT payload of a change."""
    if change.event == HANDOFF:
        return left_payload(
            change.device_id,
            HANDOFF,
            b',"target_device":%b,"version":%d'
            % (encode.quote(change.detail.decode()), change.version),
        )
    return left_payload(
        change.device_id, "disconnected" if change.event == REMOVED else change.event
    )


def left_payload(device_id: str, reason: str, more: bytes = b"") -> bytes:
    """DEVICE_LEFT payload."""
    return b'{"device_id":%b,"status":"offline","reason":"%b"%b}' % (
        encode.quote(device_id),
        reason.encode(),
        more,
    )


def device_payload(
    device_id: str, info: DeviceInfo, online: bool, last_seen: int = -1, in_call: str = ""
) -> bytes:
    """A device as clients see it, as JSON.

    `last_seen`: Unix seconds, left out when negative. `in_call`: the channel whose call it holds,
    left out when empty.
    """
    members: dict[str, object] = {
        "device_id": device_id,
        "device_type": info.device_type,
        "device_name": info.device_name,
        "os_version": info.os_version,
        "status": "online" if online else "offline",
        "connected_at": info.connected_at // 1000,
    }
    if last_seen >= 0:
        members["last_seen"] = last_seen
    if in_call:
        members["in_call"] = in_call
    return encode.to_json(members)
