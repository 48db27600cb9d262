"""Puts messages on connections and sessions. The only gateway file that queues frames."""

from collections.abc import Callable

from syncbridge import encode
from syncbridge.errors import SyncBridgeError
from syncbridge.messages import MessageType
from syncbridge.session import Change
from syncbridge_core.hub import KIND_NOTICE, KIND_REPLY, KIND_STATE, Hub
from syncbridge_server.gateway.connection import Connection, LocalSession


class Post:
    """Frames for one connection (`send`, `error`) or all of a session (`update`, `notice`).

    Args:
        hub: where they are queued.
        clock: wall clock, Unix seconds.
    """

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock

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
        self._hub.send(connection.cid, frame, KIND_REPLY)

    def raw(self, connection: Connection, frame: bytes) -> None:
        """A message that is ready."""
        self._hub.send(connection.cid, frame, KIND_REPLY)

    def error(
        self, connection: Connection, error: SyncBridgeError, correlation_id: str | None
    ) -> None:
        """ERROR or AUTH_FAILURE, by the error's code."""
        frame = encode.error_message(error, connection.address, int(self._clock()), correlation_id)
        self._hub.send(connection.cid, frame, KIND_REPLY)

    def update(self, session: LocalSession, change: Change) -> int:
        """STATE_UPDATE to all devices of a session; returns how many."""
        return self._hub.publish(
            session.topic, self._update_frame(session, change), KIND_STATE, change.prev_version
        )

    def update_one(self, connection: Connection, change: Change) -> None:
        """STATE_UPDATE to one device: an answer without news, or a coalesced difference."""
        if connection.session is not None:
            frame = self._update_frame(connection.session, change)
            self._hub.send(connection.cid, frame, KIND_STATE, change.prev_version)

    def notice(self, session: LocalSession, frame: bytes, exclude: int = 0) -> None:
        """A message that is ready, to all devices of a session."""
        self._hub.publish(session.topic, frame, KIND_NOTICE, 0, exclude)

    def everyone(self, topic: int, frame: bytes) -> int:
        """A message that is ready, to a topic; returns how many."""
        return self._hub.publish(topic, frame, KIND_NOTICE)

    def _update_frame(self, session: LocalSession, change: Change) -> bytes:
        device_q = encode.quote(change.device_id)
        return b'{"type":5%b%b,"timestamp":%d,"payload":%b,"correlation_id":%b}' % (
            session.prefix,
            device_q,
            int(self._clock()),
            encode.update_payload(
                change.version,
                change.prev_version,
                change.epoch,
                change.sets,
                change.deletes,
                device_q,
            ),
            encode.quote(change.correlation_id or None),
        )


def prefix(session: LocalSession) -> bytes:
    """The members of a session's messages that do not change: id and owner."""
    return b',"session_id":%b,"user_id":%b,"device_id":' % (
        encode.quote(session.id),
        encode.quote(session.owner),
    )
