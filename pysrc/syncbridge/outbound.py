"""The messages that the server sends, as types: the counterpart of `syncbridge.messages`.

Messages are built as bytes (`syncbridge.encode`), not from these classes. The published JSON Schema
is generated from them, and tests validate real traffic with that schema, so bytes and types cannot
drift apart.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from syncbridge.limits import Limits

Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Version = Annotated[int, Meta(ge=0)]
Reason = Literal["rolled_back", "epoch", "resync"]
State = Annotated[dict[str, Any], Meta(description="Key to value.")]
Me = Annotated[dict[str, Any], Meta(description="What is true of a device while it is there.")]


class VoiceParticipant(Struct, rename="camel"):
    """Somebody in a call. `joined_at`: Unix ms. `device_id`: only for the user's own devices."""

    user_id: str
    state: Literal["connected", "moving"]
    joined_at: int
    muted: bool
    video: bool
    speaking: bool
    device_id: str | UnsetType = UNSET


class VoiceCall(Struct, rename="camel"):
    """A call, as AUTH_SUCCESS and SNAPSHOT_RESPONSE list those that the user is in."""

    channel_id: str
    waddle_id: str
    session_id: str
    phase: Literal["waiting", "active", "empty", "migrating", "ended"]
    participants: list[VoiceParticipant]


class HeartbeatAck(Struct):
    """HEARTBEAT_ACK: `client_time` as it came, `server_time` in Unix ms."""

    client_time: int | float | None
    server_time: int
    version: Version
    epoch: str
    lineage: str


class DevicePayload(Struct):
    """A device of the session. `connected_at`: Unix seconds.

    `in_call`: the channel of its call, of `waddle_id`.
    """

    device_id: str
    device_type: str
    device_name: str
    os_version: str
    status: Literal["online", "offline"]
    connected_at: int
    last_seen: int | UnsetType | None = UNSET
    in_call: str | UnsetType = UNSET
    waddle_id: str | UnsetType = UNSET
    me: Me | UnsetType = UNSET


class DeviceLeftPayload(Struct):
    """DEVICE_LEFT: who went, and why. The last two members come with `handoff` only."""

    device_id: str
    status: Literal["offline"]
    reason: Literal["closed", "timeout", "replaced", "disconnected", "handoff"]
    target_device: str | UnsetType = UNSET
    version: Version | UnsetType = UNSET


class DeviceGone(Struct):
    """A device that left, in a summary."""

    device_id: str
    reason: Literal["closed", "timeout", "replaced", "disconnected", "handoff"]


class DeviceListPayload(Struct):
    """DEVICE_LIST: every device that is remembered; or of a large session a window or a summary.

    `partial`: `devices` are some of those that are online. `delta`: only what has changed: who came
    and went, or `me` by device, whole. With `partial`, `joined` or `left` `total` counts the
    devices that are online.
    """

    devices: list[DevicePayload] | UnsetType = UNSET
    total: int | UnsetType = UNSET
    delta: bool | UnsetType = UNSET
    partial: bool | UnsetType = UNSET
    joined: list[DevicePayload] | UnsetType = UNSET
    left: list[DeviceGone] | UnsetType = UNSET
    me: dict[str, Me] | UnsetType = UNSET


class SnapshotResponse(Struct):
    """SNAPSHOT_RESPONSE: `state_data`, or `changes` and `deleted_keys` when `resumed`.

    `reset`: the state is not the continuation of what the device had. `applied`: what the store has
    of the device's stream; acknowledged updates above that are lost, `lost` names those known.
    """

    version: Version
    epoch: str
    lineage: str
    resumed: bool
    reset: bool | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    applied: Version | UnsetType = UNSET
    lost: list[str] | UnsetType = UNSET
    state_data: State | UnsetType = UNSET
    changes: State | UnsetType = UNSET
    deleted_keys: list[str] | UnsetType = UNSET
    voice: list[VoiceCall] | UnsetType = UNSET


class UpdateBroadcast(Struct):
    """STATE_UPDATE: results of one commit, or of several when a reader was slow.

    `duplicate`: the update had been done before; `seq` is the last number of its stream.
    """

    version: Version
    prev_version: Version
    epoch: str
    lineage: str
    prev_lineage: str
    changes: State
    deleted_keys: list[str]
    device_id: str
    duplicate: bool | UnsetType = UNSET
    seq: Version | UnsetType = UNSET
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
    lineage: str
    heartbeat_interval_ms: int
    token_expires_at: int
    limits: Limits
    devices: list[DevicePayload]
    resumed: bool
    devices_total: int | UnsetType = UNSET
    devices_partial: bool | UnsetType = UNSET
    reset: bool | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    applied: Version | UnsetType = UNSET
    lost: list[str] | UnsetType = UNSET
    state_data: State | UnsetType = UNSET
    changes: State | UnsetType = UNSET
    deleted_keys: list[str] | UnsetType = UNSET
    voice: list[VoiceCall] | UnsetType = UNSET


class Audience(StrEnum):
    """Whom a BROADCAST is for: sockets of role admin, the devices of one session, or all."""

    ADMINS = "admins"
    SESSION = "session"
    ALL = "all"


class BroadcastPayload(Struct):
    """BROADCAST: what an operator said."""

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


class VoiceState(VoiceCall, rename="camel"):
    """voice_state: a whole call, to a device that joins, watches, or is told of its user's call.

    With phase `ended` there is no call, and `session_id` is empty. `report_interval_ms`: how often
    a device in the media is to repeat its voice_join.
    """

    report_interval_ms: int
    correlation_id: str | None = field(name="correlation_id")


class VoiceStateUpdate(Struct, rename="camel"):
    """voice_state_update: one participant. With a `device_id` it is for the user's own devices."""

    user_id: str
    channel_id: str
    waddle_id: str
    state: Literal["connected", "disconnected", "muted", "unmuted", "held", "moving", "released"]
    device_id: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class SpeakingChange(Struct, rename="camel"):
    """Users who began or stopped speaking."""

    user_id: str
    is_speaking: bool


class SpeakingUpdate(Struct, rename="camel"):
    """speaking_update: one change, or several that came together in `updates`."""

    channel_id: str
    waddle_id: str
    user_id: str | UnsetType = UNSET
    is_speaking: bool | UnsetType = UNSET
    updates: list[SpeakingChange] | UnsetType = UNSET


class SessionMigration(Struct, rename="camel"):
    """session_migration: ask for a token and join the new session before the deadline."""

    channel_id: str
    waddle_id: str
    old_session_id: str
    new_session_id: str
    reason: Literal["session_migration"]
    cause: str
    action: Literal["rejoin_required"]
    deadline_ms: int


class SessionEnded(Struct, rename="camel"):
    """session_ended: the call of a channel is over."""

    channel_id: str
    waddle_id: str
    session_id: str
    reason: str


class RecordingReady(Struct, rename="camel"):
    """recording_ready: who may have it asks for its address over HTTP."""

    channel_id: str
    waddle_id: str
    recording_id: str
    duration: float | UnsetType = UNSET


class TranscriptReady(Struct, rename="camel"):
    """transcript_ready: who may have it asks for its address over HTTP."""

    channel_id: str
    waddle_id: str
    recording_id: str


class SummaryReady(Struct, rename="camel"):
    """summary_ready: likewise."""

    channel_id: str
    waddle_id: str
    recording_id: str


class RecordingFailed(Struct, rename="camel"):
    """recording_failed: there will be none. Without an id it was not even begun."""

    channel_id: str
    waddle_id: str
    recording_id: str
