"""Puts messages on connections and sessions. The only gateway file that queues frames.

Messages come here as JSON, and are transcoded once for the receivers that take protobuf, if there
are any. Only STATE_UPDATE, which is sent most, is made from a Change directly in both encodings.
"""

from collections.abc import Callable

import structlog

from syncbridge import encode
from syncbridge.errors import SyncBridgeError
from syncbridge.messages import MessageType
from syncbridge.session import Change
from syncbridge_core.hub import KIND_NOTICE, KIND_REPLY, KIND_STATE, Hub
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.registry import Registry, takes_protobuf

log = structlog.get_logger("gateway")


OnError = Callable[[Connection, SyncBridgeError, str], None]
"""Called with each error that a connection is sent; `auth` for AUTH, else `message`."""


class MessageSender:
    """Frames for one connection (`send`, `error`) or all of a session (`update`, `notice`).

    Args:
        hub: where they are queued. registry: knows who takes protobuf.
        clock: wall clock, Unix seconds.

    Attributes:
        on_error: called with each ERROR and AUTH_FAILURE.
    """

    def __init__(self, hub: Hub, registry: Registry, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._registry = registry
        self._clock = clock
        self.on_error: OnError = nobody

    def send(
        self, connection: Connection, kind: MessageType, payload: bytes, correlation_id: str | None
    ) -> None:
        """One message to one connection."""
        frame = encode.envelope(
            kind,
            connection.address,
            int(self._clock()),
            payload,
            encode.quote(correlation_id),
        )
        self.raw(connection, frame)

    def raw(self, connection: Connection, frame: bytes) -> None:
        """Send an encoded JSON message to one connection."""
        ready = transcoded(frame) if takes_protobuf(connection) else frame
        if ready is not None:
            self._hub.send(connection.cid, ready, KIND_REPLY)

    def error(
        self, connection: Connection, error: SyncBridgeError, correlation_id: str | None
    ) -> None:
        """ERROR to one connection."""
        self.on_error(connection, error, "message")
        self.send(connection, MessageType.ERROR, encode.error_payload(error), correlation_id)

    def update(self, session: LocalSession, change: Change) -> int:
        """STATE_UPDATE to all devices of a session; returns how many."""
        if session.binary:
            return self._update_both(session, change)
        return self._hub.publish(
            session.topic, self._update_frame(session, change), KIND_STATE, change.prev_version
        )

    def update_one(self, connection: Connection, change: Change) -> None:
        """STATE_UPDATE to one device: an acknowledgement without changes, or a coalesced delta."""
        if connection.session is not None:
            encoded = self._update_binary if takes_protobuf(connection) else self._update_frame
            frame = encoded(connection.session, change)
            self._hub.send(connection.cid, frame, KIND_STATE, change.prev_version)

    def notice(
        self, session: LocalSession, frame: bytes, exclude: int = 0, kind: int = KIND_NOTICE
    ) -> None:
        """Send an encoded message to all devices of a session."""
        binary = transcoded(frame) if session.binary else None
        self._hub.publish(session.topic, frame, kind, 0, exclude, binary)

    def everyone(self, topic: int, frame: bytes, kind: int = KIND_NOTICE) -> int:
        """Send an encoded message to all members of a topic; returns their number."""
        binary = transcoded(frame) if self._registry.binary else None
        return self._hub.publish(topic, frame, kind, 0, 0, binary)

    def _update_both(self, session: LocalSession, change: Change) -> int:
        """STATE_UPDATE to a session in which some, or all, take protobuf."""
        everybody = session.binary == len(session.devices)
        frame = b"" if everybody else self._update_frame(session, change)
        binary = self._update_binary(session, change)
        return self._hub.publish(session.topic, frame, KIND_STATE, change.prev_version, 0, binary)

    def _update_binary(self, session: LocalSession, change: Change) -> bytes:
        from syncbridge import protobuf  # slow to import: the start does not wait for it

        return protobuf.state_update(session.id, session.owner, change, int(self._clock()))

    def _update_frame(self, session: LocalSession, change: Change) -> bytes:
        device_q = encode.quote(change.device_id)
        return b'{"type":5%b%b,"timestamp":%d,"payload":%b,"correlation_id":%b}' % (
            session.prefix,
            device_q,
            int(self._clock()),
            encode.update_payload(change, device_q),
            encode.quote(change.correlation_id or None),
        )


def nobody(connection: Connection, error: SyncBridgeError, door: str) -> None:
    """The default of `on_error`: does nothing."""


def prefix(session: LocalSession) -> bytes:
    """The members of a session's messages that do not change: id and owner."""
    return b',"session_id":%b,"user_id":%b,"device_id":' % (
        encode.quote(session.id),
        encode.quote(session.owner),
    )


def transcoded(frame: bytes) -> bytes | None:
    """A message as protobuf; None, with a log line, when it has no such form."""
    from syncbridge import protobuf

    try:
        return protobuf.from_json(frame)
    except protobuf.TranscodeError:
        log.exception("protobuf_encoding_failed")
        return None
