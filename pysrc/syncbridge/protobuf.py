"""The subprotocol syncbridge.proto.v1: the same messages as in JSON, as protobuf.

Inbound, a message becomes the Envelope that JSON decoding would have given, with its payload as
JSON text: handlers, checks and errors are the same for both encodings. Outbound, STATE_UPDATE,
which is sent most, is made from a Change directly; everything else is transcoded from its JSON.
"""

import msgspec
from google.protobuf.message import DecodeError

from syncbridge import messages, protobuf_json
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import Envelope, MessageType
from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb
from syncbridge.session import Change
from syncbridge.updates import document_limits

EVENT = "event"
MAX_CORRELATION = 64
IN = {kind.value: kind.name.lower() for kind in MessageType if kind}
"""Message type -> the field of its payload, as clients send it."""
OUT = IN | {MessageType.STATE_UPDATE.value: "state_updated"}
"""The same, as the server sends it."""


class TranscodeError(ValueError):
    """A JSON message that syncbridge.proto does not have."""


class Decoder:
    """Decodes what clients send, under one set of limits."""

    def __init__(self, limits: Limits) -> None:
        self._bounds = protobuf_json.Bounds(document_limits(limits), limits.changes)

    def decode(self, data: bytes) -> Envelope:
        """One binary message as an envelope whose payload is JSON text.

        Raises:
            SyncBridgeError: INVALID_PROTOBUF when it is not an Envelope, INVALID_MESSAGE when type
                and payload do not belong together, or what is wrong with a value.
        """
        message = parse(data)
        field = message.WhichOneof("payload")
        if field == EVENT:
            return _event(message.event.json)
        expected = IN.get(message.type)
        if field is not None and expected is not None and field != expected:
            raise SyncBridgeError(
                ErrorCode.INVALID_MESSAGE,
                f"payload: {expected} is expected with type {message.type}, not {field}",
            )
        payload = messages.EMPTY
        if field is not None:
            payload = msgspec.Raw(protobuf_json.read(getattr(message, field), self._bounds))
        return Envelope(
            message.type,
            payload,
            correlation(message),
            message.session_id or None,
            message.user_id or None,
            message.device_id or None,
            message.timestamp,
        )


def _event(text: bytes) -> Envelope:
    envelope = messages.decode_envelope(text)
    if isinstance(envelope.type, int):
        raise SyncBridgeError(ErrorCode.INVALID_MESSAGE, "event: expected a string as type")
    return envelope


def parse(data: bytes) -> pb.Envelope:
    """Protobuf bytes as a message; nesting is bounded by the parser.

    Raises:
        SyncBridgeError: INVALID_PROTOBUF.
    """
    try:
        return pb.Envelope.FromString(data)
    except DecodeError:
        raise SyncBridgeError(
            ErrorCode.INVALID_PROTOBUF, "a syncbridge.v1.Envelope is expected"
        ) from None


def correlation(message: pb.Envelope) -> str | None:
    """The correlation id of a message, None when it has none."""
    return message.correlation_id if message.HasField("correlation_id") else None


def correlation_of(data: bytes) -> str | None:
    """The `correlation_id` of a message that is going to be refused, if it can be read."""
    try:
        found = correlation(parse(data))
    except SyncBridgeError:
        return None
    return found if found is None or len(found) <= MAX_CORRELATION else None


def from_json(frame: bytes) -> bytes:
    """One of our own JSON messages as protobuf; raises TranscodeError."""
    try:
        return _from_json(frame)
    except (msgspec.MsgspecError, SyncBridgeError, ValueError, TypeError, KeyError) as error:
        raise TranscodeError(str(error)) from error


def _from_json(frame: bytes) -> bytes:
    envelope = messages.decode_envelope(frame)
    if isinstance(envelope.type, str):
        return pb.Envelope(event=pb.Event(json=frame)).SerializeToString()
    message = pb.Envelope(
        type=envelope.type,  # type: ignore[arg-type]
        session_id=envelope.session_id or "",
        user_id=envelope.user_id or "",
        device_id=envelope.device_id or "",
        timestamp=int(envelope.timestamp or 0),
        correlation_id=envelope.correlation_id,
    )
    payload = getattr(message, OUT[envelope.type])
    payload.SetInParent()
    protobuf_json.write(payload, envelope.payload)
    return message.SerializeToString()


def state_update(session_id: str, owner: str, change: Change, now: int) -> bytes:
    """STATE_UPDATE for the devices of a session. `now`: Unix seconds."""
    message = pb.Envelope(
        type=pb.MESSAGE_TYPE_STATE_UPDATE,
        session_id=session_id,
        user_id=owner,
        device_id=change.device_id,
        timestamp=now,
        correlation_id=change.correlation_id or None,
    )
    update = message.state_updated
    update.version = change.version
    update.prev_version = change.prev_version
    update.epoch = change.epoch
    update.lineage = change.lineage
    update.prev_lineage = change.prev_lineage
    update.device_id = change.device_id
    if change.duplicate:
        update.duplicate = True
        if change.seq:
            update.seq = change.seq
    update.deleted_keys.extend([key.decode() for key in change.deletes])
    protobuf_json.entries(update.changes, change.sets)
    return message.SerializeToString()
