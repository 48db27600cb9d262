"""JSON Schema of every WebSocket message, from the types that decode and describe them.

    python -m syncbridge_server.message_schemas > docs/messages.schema.json

`$defs` holds one schema a message and direction, named after its type (`AUTH`, `STATE_UPDATE`,
and `STATE_UPDATE_in` where both sides send it; those of voice by their own names), and
`ClientMessage` and `ServerMessage`, any of those. Unknown members are allowed everywhere, because
both sides ignore them.
"""

import sys
from typing import Any

import msgspec

from syncbridge import messages, operations, outbound
from syncbridge.messages import MessageType as M

Json = dict[str, Any]
IDENTIFIER = "urn:syncbridge:messages:v1"

INBOUND: dict[M, Any] = {
    M.AUTH: messages.AuthPayload,
    M.HEARTBEAT: messages.HeartbeatPayload,
    M.SNAPSHOT_REQUEST: messages.SnapshotPayload,
    M.STATE_UPDATE: messages.UpdatePayload,
    M.DEVICE_LIST: messages.DevicesPayload,
}
"""What a client may send."""

VOICE_IN: dict[str, Any] = {
    messages.VOICE_JOIN: messages.VoiceJoin,
    messages.VOICE_LEAVE: messages.VoiceLeave,
    messages.VOICE_WATCH: messages.VoiceWatch,
    messages.VOICE_UNWATCH: messages.VoiceWatch,
    messages.SPEAKING: messages.SpeakingReport,
}
"""The same, of the messages whose type is a name: they are flat."""

OUTBOUND: dict[M, Any] = {
    M.HEARTBEAT_ACK: outbound.HeartbeatAck,
    M.SNAPSHOT_RESPONSE: outbound.SnapshotResponse,
    M.STATE_UPDATE: outbound.UpdateBroadcast,
    M.ERROR: outbound.ErrorPayload,
    M.AUTH_SUCCESS: outbound.AuthSuccess,
    M.AUTH_FAILURE: outbound.ErrorPayload,
    M.DEVICE_JOINED: outbound.DevicePayload,
    M.DEVICE_LEFT: outbound.DeviceLeftPayload,
    M.DEVICE_LIST: outbound.DeviceListPayload,
    M.BROADCAST: outbound.BroadcastPayload,
    M.ADMIN_UPDATE: outbound.AdminUpdate,
}
"""What the server sends."""

VOICE_OUT: dict[str, Any] = {
    "voice_state": outbound.VoiceState,
    "voice_state_update": outbound.VoiceStateUpdate,
    "speaking_update": outbound.SpeakingUpdate,
    "session_migration": outbound.SessionMigration,
    "session_ended": outbound.SessionEnded,
    "recording_ready": outbound.RecordingReady,
    "recording_failed": outbound.RecordingFailed,
    "transcript_ready": outbound.TranscriptReady,
    "summary_ready": outbound.SummaryReady,
}
"""The same, of the messages whose type is a name."""


def message_schemas() -> Json:
    """The whole document."""
    flat = VOICE_IN | VOICE_OUT
    kinds = [*INBOUND.values(), *OUTBOUND.values(), *flat.values()]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    _complete(components)
    inbound = dict(zip(INBOUND, schemas, strict=False))
    outgoing = dict(zip(OUTBOUND, schemas[len(INBOUND) :], strict=False))
    sent = {_name(kind, kind in OUTBOUND): _inbound(kind, s) for kind, s in inbound.items()}
    received = {kind.name: _outbound(kind, s) for kind, s in outgoing.items()}
    sent |= {kind: _flat(kind, components[t.__name__]) for kind, t in VOICE_IN.items()}
    received |= {kind: _flat(kind, components[t.__name__]) for kind, t in VOICE_OUT.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": IDENTIFIER,
        "title": "SyncBridge WebSocket messages (syncbridge.json.v1)",
        "anyOf": [_reference("ClientMessage"), _reference("ServerMessage")],
        "$defs": {
            "ClientMessage": {"anyOf": [_reference(name) for name in sent]},
            "ServerMessage": {"anyOf": [_reference(name) for name in received]},
            **sent,
            **received,
            **components,
        },
    }


def _complete(components: Json) -> None:
    """Add what raw and plain types leave open, and the kernel and `operations` check."""
    update = components["UpdatePayload"]["properties"]
    update["operation"]["enum"] = list(operations.NAMES)
    update["changes"]["type"] = "object"


def _flat(kind: str, members: Json) -> Json:
    """A message whose members stand beside its type."""
    incoming = {} if kind in VOICE_OUT else {"correlation_id": {"type": ["string", "null"]}}
    return {
        "title": members["title"],
        "description": members["description"],
        "type": "object",
        "properties": {"type": {"const": kind}} | members["properties"] | incoming,
        "required": ["type", *members["required"]],
    }


def _name(kind: M, both_ways: bool) -> str:
    return f"{kind.name}_in" if both_ways else kind.name


def _reference(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _inbound(kind: M, payload: Json) -> Json:
    """The envelope as clients send it: only `type` must be there."""
    text = {"type": ["string", "null"]}
    return {
        "title": f"{kind.name}, to the server",
        "type": "object",
        "properties": {
            "type": {"const": int(kind)},
            "payload": payload,
            "correlation_id": text | {"maxLength": 64},
            "session_id": text,
            "user_id": text,
            "device_id": text,
            "timestamp": {"type": ["number", "null"]},
        },
        "required": ["type", "payload"] if kind in (M.AUTH, M.STATE_UPDATE) else ["type"],
    }


def _outbound(kind: M, payload: Json) -> Json:
    """The envelope as the server sends it: always whole."""
    properties = {
        "type": {"const": int(kind)},
        "session_id": {"type": "string"},
        "user_id": {"type": "string"},
        "device_id": {"type": "string"},
        "timestamp": {"type": "integer"},
        "payload": payload,
        "correlation_id": {"type": ["string", "null"]},
    }
    return {
        "title": f"{kind.name}, from the server",
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


if __name__ == "__main__":
    document = msgspec.json.format(msgspec.json.encode(message_schemas()), indent=2)
    sys.stdout.write(document.decode() + "\n")
