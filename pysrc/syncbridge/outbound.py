"""Shapes of what the server sends, as types: the counterpart of `syncbridge.messages`.

Messages are built as bytes (`syncbridge.encode`), not from these classes. They are what the
published JSON Schema is generated from, and tests hold real traffic against that schema, so that
the bytes and the types cannot drift apart.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from syncbridge.limits import Limits

Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Version = Annotated[int, Meta(ge=0)]
State = Annotated[dict[str, Any], Meta(description="Key to value.")]


class HeartbeatAck(Struct):
    """HEARTBEAT_ACK: `client_time` as it came, `server_time` in Unix ms."""

    client_time: int | float | None
    server_time: int
    version: Version


class DevicePayload(Struct):
    """A device of the session. `connected_at`: Unix seconds."""

    device_id: str
    device_type: str
    device_name: str
    os_version: str
    status: Literal["online", "offline"]
    connected_at: int
    last_seen: int | UnsetType | None = UNSET


class DeviceLeftPayload(Struct):
    """DEVICE_LEFT: who went, and why. The last two members come with `handoff` only."""

    device_id: str
    status: Literal["offline"]
    reason: Literal["closed", "timeout", "replaced", "disconnected", "handoff"]
    target_device: str | UnsetType = UNSET
    version: Version | UnsetType = UNSET


class DeviceListPayload(Struct):
    """DEVICE_LIST: every device that is remembered."""

    devices: list[DevicePayload]
    total: int


class SnapshotResponse(Struct):
    """SNAPSHOT_RESPONSE: `state_data`, or `changes` and `deleted_keys` when `resumed`."""

    version: Version
    epoch: str
    resumed: bool
    state_data: State | UnsetType = UNSET
    changes: State | UnsetType = UNSET
    deleted_keys: list[str] | UnsetType = UNSET


class UpdateBroadcast(Struct):
    """STATE_UPDATE: results of one commit, or of several when a reader was slow."""

    version: Version
    prev_version: Version
    epoch: str
    changes: State
    deleted_keys: list[str]
    device_id: str
    key: str | UnsetType = UNSET
    value: Any | UnsetType = UNSET
    operation: Literal["SET", "DELETE"] | UnsetType = UNSET


class ErrorPayload(Struct):
    """ERROR and AUTH_FAILURE. `details`: what helps to go on, by `code`."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class AuthSuccess(Struct):
    """AUTH_SUCCESS: everything that a device needs, in one message."""

    session_id: Uuid
    user_id: str
    device_id: str
    role: Literal["user", "service", "admin"]
    version: Version
    epoch: str
    heartbeat_interval_ms: int
    token_expires_at: int
    limits: Limits
    devices: list[DevicePayload]
    resumed: bool
    state_data: State | UnsetType = UNSET
    changes: State | UnsetType = UNSET
    deleted_keys: list[str] | UnsetType = UNSET


class BroadcastPayload(Struct):
    """BROADCAST: what an operator said to everybody."""

    message: str
    type: str
    data: Any | UnsetType = UNSET


class AdminUpdate(Struct):
    """ADMIN_UPDATE, to sockets with role admin: `metrics` every few seconds, or a `notice`.

    `metrics` is the answer of `GET /admin/metrics/all`. `notice` names what happened, with `text`
    for people and `data` for programs.
    """

    kind: Literal["metrics", "notice"]
    metrics: dict[str, Any] | UnsetType = UNSET
    notice: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    data: dict[str, Any] | UnsetType = UNSET
