"""The client's half of syncbridge.proto.v1 for tests: messages as the dicts that JSON gives.

Written out by hand for each message and not by the rules that the server uses, so that the two
check each other.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb

SUBPROTOCOL = "syncbridge.proto.v1"
Dict = dict[str, Any]


def text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def encode(message: Dict) -> bytes:
    """A client's message as protobuf."""
    if isinstance(message["type"], str):
        return pb.Envelope(event=pb.Event(json=text(message))).SerializeToString()
    envelope = pb.Envelope()
    for name in ("type", "session_id", "user_id", "device_id", "timestamp", "correlation_id"):
        if message.get(name) is not None:
            setattr(envelope, name, message[name])
    fill = INBOUND.get(message["type"])
    if fill is not None:
        fill(envelope, message.get("payload") or {})
    return envelope.SerializeToString()


def fill_auth(envelope: pb.Envelope, payload: Dict) -> None:
    auth = pb.Auth(**{k: v for k, v in payload.items() if k != "resume"})
    if payload.get("resume") is not None:
        auth.resume.CopyFrom(pb.Position(**payload["resume"]))
    envelope.auth.CopyFrom(auth)


def fill_heartbeat(envelope: pb.Envelope, payload: Dict) -> None:
    envelope.heartbeat.CopyFrom(pb.Heartbeat(**payload))


def fill_snapshot_request(envelope: pb.Envelope, payload: Dict) -> None:
    envelope.snapshot_request.SetInParent()
    if payload.get("since") is not None:
        envelope.snapshot_request.since.CopyFrom(pb.Position(**payload["since"]))


def fill_update(envelope: pb.Envelope, payload: Dict) -> None:
    update = envelope.state_update
    update.SetInParent()
    for name in ("key", "base_version", "base_lineage", "stream", "seq"):
        if name in payload:
            setattr(update, name, payload[name])
    if "value" in payload:
        update.value_json = text(payload["value"])
    if "expected" in payload:
        update.expected_json = text(payload["expected"])
    if "operation" in payload:
        update.operation = pb.Operation.Value("OPERATION_" + payload["operation"])
    for key, value in payload.get("changes", {}).items():
        update.changes.add(key=key, value_json=text(value))
    update.deleted_keys.extend(payload.get("deleted_keys", []))


def fill_device_list(envelope: pb.Envelope, payload: Dict) -> None:
    envelope.device_list.SetInParent()
    if "me" in payload:
        envelope.device_list.me_json = text(payload["me"])


INBOUND: dict[int, Callable[[pb.Envelope, Dict], None]] = {
    1: fill_heartbeat,
    3: fill_snapshot_request,
    5: fill_update,
    7: fill_auth,
    12: fill_device_list,
}


def decode(data: bytes) -> Dict:
    """A server's message as the dict that its JSON form is."""
    envelope = pb.Envelope.FromString(data)
    field = envelope.WhichOneof("payload")
    assert field is not None, envelope
    payload = getattr(envelope, field)
    if field == "event":
        event: Dict = json.loads(payload.json)
        return event
    return {
        "type": int(envelope.type),
        "session_id": envelope.session_id,
        "user_id": envelope.user_id,
        "device_id": envelope.device_id,
        "timestamp": envelope.timestamp,
        "payload": OUTBOUND[field](payload),
        "correlation_id": optional(envelope, "correlation_id"),
    }


def optional(message: Message, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def present(message: Message, *names: str) -> Dict:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def plain(message: Message, *names: str) -> Dict:
    return {name: getattr(message, name) for name in names}


def state(entries: Iterable[pb.Entry]) -> Dict:
    return {entry.key: json.loads(entry.value_json) for entry in entries}


def position(message: Any) -> Dict:
    """The members of a message that carries the state or a difference."""
    common = plain(message, "version", "epoch", "lineage", "resumed")
    extra = ("reset", "reason", "applied")
    common |= {n: optional(message, n) for n in extra if message.HasField(n)}
    if message.lost:
        common["lost"] = list(message.lost)
    if message.HasField("voice_json"):
        common["voice"] = json.loads(message.voice_json)
    if not message.resumed:
        return common | {"state_data": state(message.state_data)}
    changes = {"changes": state(message.changes), "deleted_keys": list(message.deleted_keys)}
    return common | changes


def device(message: pb.Device) -> Dict:
    names = ("device_id", "device_type", "device_name", "os_version", "status", "connected_at")
    last_seen = optional(message, "last_seen")
    call = present(message, "in_call", "waddle_id")
    me = json.loads(message.me_json) if message.HasField("me_json") else None
    more = {"last_seen": last_seen, "me": me}
    return plain(message, *names) | call | {k: v for k, v in more.items() if v is not None}


def auth_success(message: pb.AuthSuccess) -> Dict:
    names = (
        "session_id",
        "user_id",
        "device_id",
        "role",
        "heartbeat_interval_ms",
        "token_expires_at",
    )
    devices = [device(d) for d in message.devices]
    return (
        plain(message, *names)
        | position(message)
        | present(message, "devices_total", "devices_partial")
        | {
            "limits": dict(message.limits),
            "devices": devices,
        }
    )


def error(message: pb.Error) -> Dict:
    body = plain(message, "code", "message", "retryable")
    if message.HasField("retry_after_ms"):
        body["retry_after_ms"] = message.retry_after_ms
    if message.HasField("details_json"):
        body["details"] = json.loads(message.details_json)
    return body


def heartbeat_ack(message: pb.HeartbeatAck) -> Dict:
    client_time = optional(message, "client_time")
    return plain(message, "server_time", "version", "epoch", "lineage") | {
        "client_time": client_time
    }


def state_updated(message: pb.StateUpdated) -> Dict:
    """The JSON form names a single key once more."""
    body = plain(
        message, "version", "prev_version", "epoch", "lineage", "prev_lineage", "device_id"
    )
    body |= {n: optional(message, n) for n in ("duplicate", "seq") if message.HasField(n)}
    changes, deleted = state(message.changes), list(message.deleted_keys)
    body |= {"changes": changes, "deleted_keys": deleted}
    if len(changes) == 1 and not deleted:
        ((key, value),) = changes.items()
        body |= {"key": key, "value": value, "operation": "SET"}
    elif len(deleted) == 1 and not changes:
        body |= {"key": deleted[0], "operation": "DELETE"}
    return body


def device_left(message: pb.DeviceLeft) -> Dict:
    return plain(message, "device_id", "status", "reason") | present(
        message, "target_device", "version"
    )


def device_list(message: pb.DeviceList) -> Dict:
    if message.HasField("me_json"):
        return {"delta": message.delta, "me": json.loads(message.me_json)}
    common = plain(message, "total") | present(message, "session_id", "delta", "partial")
    if not message.delta:
        return common | {"devices": [device(d) for d in message.devices]}
    left = [plain(each, "device_id", "reason") for each in message.left]
    return common | {"joined": [device(d) for d in message.joined], "left": left}


def opaque(message: pb.Broadcast | pb.AdminUpdate) -> Any:
    return json.loads(message.json)


OUTBOUND: dict[str, Callable[[Any], Any]] = {
    "heartbeat_ack": heartbeat_ack,
    "snapshot_response": position,
    "state_updated": state_updated,
    "error": error,
    "auth_success": auth_success,
    "auth_failure": error,
    "device_joined": device,
    "device_left": device_left,
    "device_list": device_list,
    "broadcast": opaque,
    "admin_update": opaque,
}
