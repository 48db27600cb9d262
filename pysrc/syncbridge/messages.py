"""What travels on the WebSocket: the envelope, the integer types, the payloads that come in.

Shapes are those of the session state document ("Message Protocol"). Decoding is strict about
types and lenient about unknown fields. Values stay raw bytes here; the document kernel validates
them in `syncbridge.updates`. A message with a string type (voice) is flat: its members stand beside
`type`, in camelCase.
"""

from enum import IntEnum
from typing import Any

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError


class MessageType(IntEnum):
    """The integer `type` of an envelope."""

    UNKNOWN = 0
    HEARTBEAT = 1
    HEARTBEAT_ACK = 2
    SNAPSHOT_REQUEST = 3
    SNAPSHOT_RESPONSE = 4
    STATE_UPDATE = 5
    ERROR = 6
    AUTH = 7
    AUTH_SUCCESS = 8
    AUTH_FAILURE = 9
    DEVICE_JOINED = 10
    DEVICE_LEFT = 11
    DEVICE_LIST = 12
    BROADCAST = 13
    ADMIN_UPDATE = 14


VOICE_JOIN = "voice_join"
VOICE_LEAVE = "voice_leave"
VOICE_WATCH = "voice_watch"
VOICE_UNWATCH = "voice_unwatch"
SPEAKING = "speaking"

EMPTY = msgspec.Raw(b"{}")


class Envelope(msgspec.Struct, gc=False):
    """The outer object of every message. `payload` is raw JSON text of an object.

    That of a message with a string type is the whole message.
    """

    type: int | str
    payload: msgspec.Raw = EMPTY
    correlation_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    device_id: str | None = None
    timestamp: float | None = None


class Position(msgspec.Struct, gc=False):
    """A place in a session's history, as a client remembers it; see `records.sessions.Place`."""

    epoch: str
    version: int
    lineage: str = ""


class AuthPayload(msgspec.Struct, gc=False):
    """AUTH: the token, the device, and optionally where to resume.

    `stream`: the device's queue of updates. `acked`: its last number that was acknowledged.
    """

    token: str
    device_id: str | None = None
    device_type: str = ""
    device_name: str = ""
    os_version: str = ""
    app_version: str = ""
    session_id: str | None = None
    resume: Position | None = None
    stream: str = ""
    acked: int = 0


class HeartbeatPayload(msgspec.Struct, gc=False):
    """HEARTBEAT: `client_time` comes back as it was sent."""

    client_time: int | float | None = None


class UpdatePayload(msgspec.Struct, gc=False):
    """STATE_UPDATE: one key by `operation`, or several by `changes` and `deleted_keys`.

    `expected` belongs to CAS; without it the key must not exist. `stream` and `seq`: the queue of
    the device, and the number of this update in it.
    """

    key: str | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    operation: str = "SET"
    changes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    deleted_keys: list[str] = []
    base_version: int | None = None
    base_lineage: str = ""
    expected: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: str = ""
    seq: int = 0


class SnapshotPayload(msgspec.Struct, gc=False):
    """SNAPSHOT_REQUEST: everything, or what changed `since`."""

    since: Position | None = None


class DevicesPayload(msgspec.Struct, gc=False):
    """DEVICE_LIST: asks for the list, or with `me` sets the ephemeral values of this device."""

    me: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class VoiceJoin(msgspec.Struct, gc=False, rename="camel"):
    """voice_join: this device is in the media of a call; repeated, it still is.

    Attributes:
        connection_id: the provider's id of its connection, if it knows it.
        session_id: the provider's session that it is in; needed while a call migrates.
        muted, video: its switches; left out: as they were.
    """

    channel_id: str
    waddle_id: str | None = None
    connection_id: str | None = None
    session_id: str | None = None
    muted: bool | None = None
    video: bool | None = None


class VoiceLeave(msgspec.Struct, gc=False, rename="camel"):
    """voice_leave: this device has left the media of a call."""

    channel_id: str
    waddle_id: str | None = None
    connection_id: str | None = None
    session_id: str | None = None


class VoiceWatch(msgspec.Struct, gc=False, rename="camel"):
    """voice_watch, voice_unwatch: hear of a channel without taking part."""

    channel_id: str
    waddle_id: str | None = None


class SpeakingReport(msgspec.Struct, gc=False, rename="camel"):
    """speaking: the sender begins or ends to speak."""

    channel_id: str
    is_speaking: bool
    waddle_id: str | None = None


_envelope = msgspec.json.Decoder(Envelope)
auth_decoder = msgspec.json.Decoder(AuthPayload)
heartbeat_decoder = msgspec.json.Decoder(HeartbeatPayload)
update_decoder = msgspec.json.Decoder(UpdatePayload)
snapshot_decoder = msgspec.json.Decoder(SnapshotPayload)
devices_decoder = msgspec.json.Decoder(DevicesPayload)
voice_join_decoder = msgspec.json.Decoder(VoiceJoin)
voice_leave_decoder = msgspec.json.Decoder(VoiceLeave)
voice_watch_decoder = msgspec.json.Decoder(VoiceWatch)
speaking_decoder = msgspec.json.Decoder(SpeakingReport)


def decode_envelope(data: bytes) -> Envelope:
    """Decode one text message.

    Raises:
        SyncBridgeError: INVALID_JSON when it is not JSON, INVALID_MESSAGE when it is JSON of
            another shape; the detail names the place.
    """
    try:
        envelope: Envelope = _envelope.decode(data)
    except Exception as error:
        raise _refusal(error) from None
    if type(envelope.type) is str:
        envelope.payload = msgspec.Raw(data)
    return envelope


def decode_payload(decoder: Any, envelope: Envelope) -> Any:
    """Decode an envelope's payload with one of this module's decoders; raises as above."""
    try:
        return decoder.decode(envelope.payload)
    except Exception as error:
        raise _refusal(error) from None


def _refusal(error: Exception) -> Exception:
    """The client's error for an error of the decoder; other errors are bugs."""
    if isinstance(error, msgspec.ValidationError):
        return SyncBridgeError(ErrorCode.INVALID_MESSAGE, str(error))
    if isinstance(error, msgspec.DecodeError | RecursionError | UnicodeDecodeError):
        return SyncBridgeError(ErrorCode.INVALID_JSON, _reason(error))
    return error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


def correlation_of(data: bytes) -> str | None:
    """The `correlation_id` of a message that is going to be refused, if it can be read."""
    try:
        return decode_envelope(data).correlation_id
    except SyncBridgeError:
        return None
