"""DEVICE_JOINED and DEVICE_LEFT: telling the other devices, on this node and elsewhere.

The store decides who has left: a `Leave` counts only while the device's connection is still the
one that ends. So the late close of a socket that was replaced says nothing, and a device that left
is told exactly once.
"""

from collections.abc import Callable

import msgspec
import structlog

from syncbridge import encode
from syncbridge.close_codes import CloseCode
from syncbridge.errors import StoreError
from syncbridge.messages import MessageType
from syncbridge.ports import Bus, DeviceInfo, Leave, Left, Notice
from syncbridge.protocol import State
from syncbridge_core.hub import Hub
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.post import Post
from syncbridge_server.gateway.registry import Registry

log = structlog.get_logger("gateway")

NOTICE_FRAME = "frame"
NOTICE_REPLACED = "replaced"


class ReplacedNotice(msgspec.Struct):
    """To the node of a connection whose device has connected elsewhere."""

    device_id: str
    conn: str


class Departures:
    """Announces devices; see the module's text."""

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        post: Post,
        courier: Courier,
        bus: Bus,
        *,
        node: str,
        clock: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._post = post
        self._courier = courier
        self._bus = bus
        self._node = node
        self._clock = clock
        bus.on_notice(NOTICE_FRAME, self._on_frame)
        bus.on_notice(NOTICE_REPLACED, self._on_replaced)

    def closed(self, connection: Connection) -> None:
        """The socket of a connection is gone."""
        was_ready = connection.state is State.READY
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
            session.id, connection.device_id, connection.id, self._node, last=session.empty
        )
        self._courier.ask(request, self._left, connection, session)
        self._registry.release(session)

    def replace(
        self,
        session: LocalSession,
        connection: Connection,
        previous: Connection | None,
        elsewhere: tuple[str, str] | None,
    ) -> None:
        """The device of `connection` had another one; close that."""
        if previous is not None:
            self._close_replaced(session, previous)
        if elsewhere is None or elsewhere[0] == self._node:
            return
        data = encode.to_json(ReplacedNotice(connection.device_id, elsewhere[1]))
        self._bus.tell(elsewhere[0], Notice(NOTICE_REPLACED, session.id, data))

    def announce(
        self,
        session: LocalSession,
        connection: Connection,
        kind: MessageType,
        payload: bytes,
        peers: int,
    ) -> None:
        """DEVICE_JOINED or DEVICE_LEFT to all other devices of the session."""
        if len(session.devices) == 0 and not peers:
            return
        frame = encode.envelope(kind, connection.address, int(self._clock()), payload)
        self._post.notice(session, frame, exclude=connection.cid)
        if peers:
            self._bus.tell_session(Notice(NOTICE_FRAME, session.id, frame))

    def _left(
        self, answer: Left | StoreError, connection: Connection, session: LocalSession
    ) -> None:
        if isinstance(answer, StoreError):
            log.warning("Leave Failed", detail=answer.detail)
            return
        if answer.changed:
            payload = left_payload(connection.device_id, connection.leave_reason)
            self.announce(session, connection, MessageType.DEVICE_LEFT, payload, answer.peers)

    def _close_replaced(self, session: LocalSession, previous: Connection) -> None:
        previous.leave_reason = "replaced"
        payload = left_payload(previous.device_id, "replaced")
        frame = encode.envelope(
            MessageType.DEVICE_LEFT, previous.address, int(self._clock()), payload
        )
        current = session.devices.get(previous.device_id)
        self._post.notice(session, frame, exclude=current.cid if current else 0)
        self._hub.close(previous.cid, CloseCode.REPLACED, CloseCode.REPLACED.reason)

    def _on_frame(self, notice: Notice) -> None:
        session = self._registry.sessions.get(notice.sid)
        if session is not None:
            self._post.notice(session, notice.data)

    def _on_replaced(self, notice: Notice) -> None:
        message = msgspec.json.decode(notice.data, type=ReplacedNotice)
        session = self._registry.sessions.get(notice.sid)
        connection = session.devices.get(message.device_id) if session is not None else None
        if session is None or connection is None or connection.id != message.conn:
            return
        self._registry.expel(session, connection)
        self._close_replaced(session, connection)
        self._registry.release(session)


def left_payload(device_id: str, reason: str) -> bytes:
    """DEVICE_LEFT payload."""
    return b'{"device_id":%b,"status":"offline","reason":"%b"}' % (
        encode.quote(device_id),
        reason.encode(),
    )


def device_payload(device_id: str, info: DeviceInfo, online: bool) -> bytes:
    """A device as clients see it, as JSON."""
    return encode.to_json(
        {
            "device_id": device_id,
            "device_type": info.device_type,
            "device_name": info.device_name,
            "os_version": info.os_version,
            "status": "online" if online else "offline",
            "connected_at": info.connected_at // 1000,
        }
    )
