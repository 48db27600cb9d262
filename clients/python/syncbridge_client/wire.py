"""The messages of the protocol as the client reads and writes them."""

from types import MappingProxyType
from typing import Any

import msgspec

from syncbridge_client.backoff import asked_for
from syncbridge_client.catalogue import Limits
from syncbridge_client.events import Device
from syncbridge_client.values import to_text


class ProtocolViolation(Exception):
    """The server sent something that is not a message of the protocol."""


class Message(msgspec.Struct):
    """The envelope; `payload` stays raw until its type is known.

    That of a message whose type is a name is the whole message.
    """

    type: int | str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    correlation_id: str | None = None
    timestamp: float | None = None


class Position(msgspec.Struct):
    """Members of every payload that carries state."""

    version: int
    epoch: str = ""
    lineage: str = ""


class Update(Position):
    """STATE_UPDATE payload. `device_id` is empty for a difference over several commits."""

    prev_version: int = 0
    prev_lineage: str = ""
    changes: dict[str, Any] = {}
    deleted_keys: list[str] = []
    device_id: str = ""


class Snapshot(Position):
    """SNAPSHOT_RESPONSE payload: whole, or with `resumed` a difference."""

    resumed: bool = False
    reset: bool = False
    reason: str = ""
    applied: int | None = None
    lost: list[str] = []
    state_data: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    deleted_keys: list[str] = []


class DeviceEntry(msgspec.Struct):
    """A device as the server lists it."""

    device_id: str
    device_type: str = ""
    device_name: str = ""
    os_version: str = ""
    status: str = "online"
    connected_at: float = 0
    me: dict[str, Any] = {}
    in_call: str = ""
    waddle_id: str = ""

    def device(self) -> Device:
        """The public form."""
        return Device(
            self.device_id,
            self.device_type,
            self.device_name,
            self.os_version,
            self.status,
            int(self.connected_at),
            MappingProxyType(self.me),
            self.in_call,
            self.waddle_id,
        )


class Welcome(Snapshot):
    """AUTH_SUCCESS payload."""

    session_id: str = ""
    user_id: str = ""
    device_id: str = ""
    role: str = ""
    heartbeat_interval_ms: int = 25_000
    token_expires_at: float = 0
    limits: Limits = Limits()
    devices: list[DeviceEntry] = []
    devices_total: int | None = None
    devices_partial: bool = False
    voice: list[dict[str, Any]] | None = None


class Left(msgspec.Struct):
    """DEVICE_LEFT payload."""

    device_id: str
    reason: str = ""


class DeviceList(msgspec.Struct):
    """DEVICE_LIST payload: the devices, some of a large session, or with `delta` what has changed.

    `me`: by device, whole.
    """

    devices: list[DeviceEntry] = []
    total: int | None = None
    partial: bool = False
    delta: bool = False
    joined: list[DeviceEntry] = []
    left: list[Left] = []
    me: dict[str, dict[str, Any]] = {}


class HeartbeatAck(msgspec.Struct):
    """HEARTBEAT_ACK payload."""

    version: int = 0
    lineage: str = ""


class Failure(msgspec.Struct):
    """ERROR and AUTH_FAILURE payload."""

    code: str
    message: str = ""
    retryable: bool = False
    retry_after_ms: float | None = None
    details: dict[str, Any] = {}

    @property
    def retry_after(self) -> float:
        """Seconds, 0 when the server named none."""
        return asked_for((self.retry_after_ms or 0) / 1000)


_message = msgspec.json.Decoder(Message)
update = msgspec.json.Decoder(Update)
snapshot = msgspec.json.Decoder(Snapshot)
welcome = msgspec.json.Decoder(Welcome)
joined = msgspec.json.Decoder(DeviceEntry)
device_list = msgspec.json.Decoder(DeviceList)
left = msgspec.json.Decoder(Left)
heartbeat_ack = msgspec.json.Decoder(HeartbeatAck)
failure = msgspec.json.Decoder(Failure)
anything = msgspec.json.Decoder(dict[str, Any])


def read(data: bytes) -> Message:
    """One message; raises ProtocolViolation."""
    message: Message = _decode(_message, data)
    if isinstance(message.type, str):
        message.payload = msgspec.Raw(data)
    return message


def payload(decoder: "msgspec.json.Decoder[Any]", message: Message) -> Any:
    """A message's payload; raises ProtocolViolation."""
    return _decode(decoder, message.payload)


def _decode(decoder: "msgspec.json.Decoder[Any]", data: bytes | msgspec.Raw) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolViolation(str(error)) from None


def write(kind: int | str, body: dict[str, Any], correlation_id: str | None = None) -> bytes:
    """One message as JSON text; one whose type is a name is flat."""
    message: dict[str, Any] = {"type": kind, "payload": body}
    if isinstance(kind, str):
        message = {"type": kind, **body}
    if correlation_id is not None:
        message["correlation_id"] = correlation_id
    return to_text(message)
