"""DEVICE_LIST: the devices of the session, as the store has them at that moment."""

from syncbridge import encode
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.messages import Envelope, MessageType
from syncbridge.records.devices import DeviceList, ListDevices
from syncbridge.records.sessions import Device, Status
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.departures import decode_info, device_payload
from syncbridge_server.gateway.post import Post
from syncbridge_server.gateway.voice import VoiceLink


class DeviceLists:
    """Answers DEVICE_LIST."""

    def __init__(self, post: Post, courier: Courier, voice: VoiceLink) -> None:
        self._voice = voice
        self._post = post
        self._courier = courier

    def request(self, connection: Connection, envelope: Envelope) -> None:
        """DEVICE_LIST in; the answer comes with the store's."""
        session = connection.session
        assert session is not None
        request = ListDevices(session.id)
        self._courier.ask(request, self._listed, connection, envelope.correlation_id)

    def _listed(
        self, answer: DeviceList | StoreError, connection: Connection, correlation_id: str | None
    ) -> None:
        if isinstance(answer, StoreError):
            self._post.error(connection, answer, correlation_id)
            return
        if answer.status is not Status.OK:
            error = SyncBridgeError(ErrorCode.SESSION_NOT_FOUND, "there is no such session")
            self._post.error(connection, error, correlation_id)
            return
        session = connection.session
        sid = session.id if session is not None else ""
        devices = encode.join_objects(
            device_payload(
                device.device_id,
                decode_info(device.info),
                is_online(device),
                device.seen // 1000,
                self._voice.held_by(sid, device.device_id),
            )
            for device in answer.devices
        )
        payload = b'{"devices":%b,"total":%d}' % (devices, len(answer.devices))
        self._post.send(connection, MessageType.DEVICE_LIST, payload, correlation_id)


def is_online(device: Device) -> bool:
    """A lease that runs, and a connection that holds it."""
    return device.online and device.fence > 0
