from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESSAGE_TYPE_UNKNOWN: _ClassVar[MessageType]
    MESSAGE_TYPE_HEARTBEAT: _ClassVar[MessageType]
    MESSAGE_TYPE_HEARTBEAT_ACK: _ClassVar[MessageType]
    MESSAGE_TYPE_SNAPSHOT_REQUEST: _ClassVar[MessageType]
    MESSAGE_TYPE_SNAPSHOT_RESPONSE: _ClassVar[MessageType]
    MESSAGE_TYPE_STATE_UPDATE: _ClassVar[MessageType]
    MESSAGE_TYPE_ERROR: _ClassVar[MessageType]
    MESSAGE_TYPE_AUTH: _ClassVar[MessageType]
    MESSAGE_TYPE_AUTH_SUCCESS: _ClassVar[MessageType]
    MESSAGE_TYPE_AUTH_FAILURE: _ClassVar[MessageType]
    MESSAGE_TYPE_DEVICE_JOINED: _ClassVar[MessageType]
    MESSAGE_TYPE_DEVICE_LEFT: _ClassVar[MessageType]
    MESSAGE_TYPE_DEVICE_LIST: _ClassVar[MessageType]
    MESSAGE_TYPE_BROADCAST: _ClassVar[MessageType]
    MESSAGE_TYPE_ADMIN_UPDATE: _ClassVar[MessageType]

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    OPERATION_SET: _ClassVar[Operation]
    OPERATION_DELETE: _ClassVar[Operation]
    OPERATION_INCR: _ClassVar[Operation]
    OPERATION_MERGE: _ClassVar[Operation]
    OPERATION_APPEND: _ClassVar[Operation]
    OPERATION_MAX: _ClassVar[Operation]
    OPERATION_MIN: _ClassVar[Operation]
    OPERATION_SETNX: _ClassVar[Operation]
    OPERATION_CAS: _ClassVar[Operation]
MESSAGE_TYPE_UNKNOWN: MessageType
MESSAGE_TYPE_HEARTBEAT: MessageType
MESSAGE_TYPE_HEARTBEAT_ACK: MessageType
MESSAGE_TYPE_SNAPSHOT_REQUEST: MessageType
MESSAGE_TYPE_SNAPSHOT_RESPONSE: MessageType
MESSAGE_TYPE_STATE_UPDATE: MessageType
MESSAGE_TYPE_ERROR: MessageType
MESSAGE_TYPE_AUTH: MessageType
MESSAGE_TYPE_AUTH_SUCCESS: MessageType
MESSAGE_TYPE_AUTH_FAILURE: MessageType
MESSAGE_TYPE_DEVICE_JOINED: MessageType
MESSAGE_TYPE_DEVICE_LEFT: MessageType
MESSAGE_TYPE_DEVICE_LIST: MessageType
MESSAGE_TYPE_BROADCAST: MessageType
MESSAGE_TYPE_ADMIN_UPDATE: MessageType
OPERATION_UNSPECIFIED: Operation
OPERATION_SET: Operation
OPERATION_DELETE: Operation
OPERATION_INCR: Operation
OPERATION_MERGE: Operation
OPERATION_APPEND: Operation
OPERATION_MAX: Operation
OPERATION_MIN: Operation
OPERATION_SETNX: Operation
OPERATION_CAS: Operation

class Envelope(_message.Message):
    __slots__ = ("type", "session_id", "user_id", "device_id", "timestamp", "correlation_id", "heartbeat", "heartbeat_ack", "snapshot_request", "snapshot_response", "state_update", "error", "auth", "auth_success", "auth_failure", "device_joined", "device_left", "device_list", "broadcast", "admin_update", "state_updated", "event")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    STATE_UPDATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    AUTH_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    AUTH_FAILURE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_JOINED_FIELD_NUMBER: _ClassVar[int]
    DEVICE_LEFT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_LIST_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    ADMIN_UPDATE_FIELD_NUMBER: _ClassVar[int]
    STATE_UPDATED_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    type: MessageType
    session_id: str
    user_id: str
    device_id: str
    timestamp: int
    correlation_id: str
    heartbeat: Heartbeat
    heartbeat_ack: HeartbeatAck
    snapshot_request: SnapshotRequest
    snapshot_response: SnapshotResponse
    state_update: StateUpdate
    error: Error
    auth: Auth
    auth_success: AuthSuccess
    auth_failure: Error
    device_joined: Device
    device_left: DeviceLeft
    device_list: DeviceList
    broadcast: Broadcast
    admin_update: AdminUpdate
    state_updated: StateUpdated
    event: Event
    def __init__(self, type: _Optional[_Union[MessageType, str]] = ..., session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., device_id: _Optional[str] = ..., timestamp: _Optional[int] = ..., correlation_id: _Optional[str] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., snapshot_request: _Optional[_Union[SnapshotRequest, _Mapping]] = ..., snapshot_response: _Optional[_Union[SnapshotResponse, _Mapping]] = ..., state_update: _Optional[_Union[StateUpdate, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., auth: _Optional[_Union[Auth, _Mapping]] = ..., auth_success: _Optional[_Union[AuthSuccess, _Mapping]] = ..., auth_failure: _Optional[_Union[Error, _Mapping]] = ..., device_joined: _Optional[_Union[Device, _Mapping]] = ..., device_left: _Optional[_Union[DeviceLeft, _Mapping]] = ..., device_list: _Optional[_Union[DeviceList, _Mapping]] = ..., broadcast: _Optional[_Union[Broadcast, _Mapping]] = ..., admin_update: _Optional[_Union[AdminUpdate, _Mapping]] = ..., state_updated: _Optional[_Union[StateUpdated, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("key", "value_json")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    key: str
    value_json: bytes
    def __init__(self, key: _Optional[str] = ..., value_json: _Optional[bytes] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("epoch", "version", "lineage")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    version: int
    lineage: str
    def __init__(self, epoch: _Optional[str] = ..., version: _Optional[int] = ..., lineage: _Optional[str] = ...) -> None: ...

class Auth(_message.Message):
    __slots__ = ("token", "device_id", "device_type", "device_name", "os_version", "app_version", "session_id", "resume", "stream", "acked")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    OS_VERSION_FIELD_NUMBER: _ClassVar[int]
    APP_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    token: str
    device_id: str
    device_type: str
    device_name: str
    os_version: str
    app_version: str
    session_id: str
    resume: Position
    stream: str
    acked: int
    def __init__(self, token: _Optional[str] = ..., device_id: _Optional[str] = ..., device_type: _Optional[str] = ..., device_name: _Optional[str] = ..., os_version: _Optional[str] = ..., app_version: _Optional[str] = ..., session_id: _Optional[str] = ..., resume: _Optional[_Union[Position, _Mapping]] = ..., stream: _Optional[str] = ..., acked: _Optional[int] = ...) -> None: ...

class AuthSuccess(_message.Message):
    __slots__ = ("session_id", "user_id", "device_id", "role", "version", "epoch", "heartbeat_interval_ms", "token_expires_at", "limits", "devices", "resumed", "state_data", "changes", "deleted_keys", "voice_json", "lineage", "reset", "reason", "applied", "lost", "devices_total", "devices_partial")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    STATE_DATA_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DELETED_KEYS_FIELD_NUMBER: _ClassVar[int]
    VOICE_JSON_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    DEVICES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DEVICES_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user_id: str
    device_id: str
    role: str
    version: int
    epoch: str
    heartbeat_interval_ms: int
    token_expires_at: int
    limits: _containers.ScalarMap[str, int]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    resumed: bool
    state_data: _containers.RepeatedCompositeFieldContainer[Entry]
    changes: _containers.RepeatedCompositeFieldContainer[Entry]
    deleted_keys: _containers.RepeatedScalarFieldContainer[str]
    voice_json: bytes
    lineage: str
    reset: bool
    reason: str
    applied: int
    lost: _containers.RepeatedScalarFieldContainer[str]
    devices_total: int
    devices_partial: bool
    def __init__(self, session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., device_id: _Optional[str] = ..., role: _Optional[str] = ..., version: _Optional[int] = ..., epoch: _Optional[str] = ..., heartbeat_interval_ms: _Optional[int] = ..., token_expires_at: _Optional[int] = ..., limits: _Optional[_Mapping[str, int]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., resumed: bool = ..., state_data: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., deleted_keys: _Optional[_Iterable[str]] = ..., voice_json: _Optional[bytes] = ..., lineage: _Optional[str] = ..., reset: bool = ..., reason: _Optional[str] = ..., applied: _Optional[int] = ..., lost: _Optional[_Iterable[str]] = ..., devices_total: _Optional[int] = ..., devices_partial: bool = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "retryable", "retry_after_ms", "details_json")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retryable: bool
    retry_after_ms: int
    details_json: bytes
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ..., retry_after_ms: _Optional[int] = ..., details_json: _Optional[bytes] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("client_time",)
    CLIENT_TIME_FIELD_NUMBER: _ClassVar[int]
    client_time: float
    def __init__(self, client_time: _Optional[float] = ...) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("client_time", "server_time", "version", "epoch", "lineage")
    CLIENT_TIME_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    client_time: float
    server_time: int
    version: int
    epoch: str
    lineage: str
    def __init__(self, client_time: _Optional[float] = ..., server_time: _Optional[int] = ..., version: _Optional[int] = ..., epoch: _Optional[str] = ..., lineage: _Optional[str] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("since",)
    SINCE_FIELD_NUMBER: _ClassVar[int]
    since: Position
    def __init__(self, since: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ("version", "epoch", "resumed", "state_data", "changes", "deleted_keys", "voice_json", "lineage", "reset", "reason", "applied", "lost")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    STATE_DATA_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DELETED_KEYS_FIELD_NUMBER: _ClassVar[int]
    VOICE_JSON_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    version: int
    epoch: str
    resumed: bool
    state_data: _containers.RepeatedCompositeFieldContainer[Entry]
    changes: _containers.RepeatedCompositeFieldContainer[Entry]
    deleted_keys: _containers.RepeatedScalarFieldContainer[str]
    voice_json: bytes
    lineage: str
    reset: bool
    reason: str
    applied: int
    lost: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., epoch: _Optional[str] = ..., resumed: bool = ..., state_data: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., deleted_keys: _Optional[_Iterable[str]] = ..., voice_json: _Optional[bytes] = ..., lineage: _Optional[str] = ..., reset: bool = ..., reason: _Optional[str] = ..., applied: _Optional[int] = ..., lost: _Optional[_Iterable[str]] = ...) -> None: ...

class StateUpdate(_message.Message):
    __slots__ = ("key", "value_json", "operation", "changes", "deleted_keys", "base_version", "expected_json", "base_lineage", "stream", "seq")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DELETED_KEYS_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_JSON_FIELD_NUMBER: _ClassVar[int]
    BASE_LINEAGE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    key: str
    value_json: bytes
    operation: Operation
    changes: _containers.RepeatedCompositeFieldContainer[Entry]
    deleted_keys: _containers.RepeatedScalarFieldContainer[str]
    base_version: int
    expected_json: bytes
    base_lineage: str
    stream: str
    seq: int
    def __init__(self, key: _Optional[str] = ..., value_json: _Optional[bytes] = ..., operation: _Optional[_Union[Operation, str]] = ..., changes: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., deleted_keys: _Optional[_Iterable[str]] = ..., base_version: _Optional[int] = ..., expected_json: _Optional[bytes] = ..., base_lineage: _Optional[str] = ..., stream: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class StateUpdated(_message.Message):
    __slots__ = ("version", "prev_version", "epoch", "changes", "deleted_keys", "device_id", "lineage", "prev_lineage", "duplicate", "seq")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREV_VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    DELETED_KEYS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    PREV_LINEAGE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    version: int
    prev_version: int
    epoch: str
    changes: _containers.RepeatedCompositeFieldContainer[Entry]
    deleted_keys: _containers.RepeatedScalarFieldContainer[str]
    device_id: str
    lineage: str
    prev_lineage: str
    duplicate: bool
    seq: int
    def __init__(self, version: _Optional[int] = ..., prev_version: _Optional[int] = ..., epoch: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., deleted_keys: _Optional[_Iterable[str]] = ..., device_id: _Optional[str] = ..., lineage: _Optional[str] = ..., prev_lineage: _Optional[str] = ..., duplicate: bool = ..., seq: _Optional[int] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("device_id", "device_type", "device_name", "os_version", "status", "connected_at", "last_seen", "in_call", "waddle_id", "me_json")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    OS_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    IN_CALL_FIELD_NUMBER: _ClassVar[int]
    WADDLE_ID_FIELD_NUMBER: _ClassVar[int]
    ME_JSON_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    device_type: str
    device_name: str
    os_version: str
    status: str
    connected_at: int
    last_seen: int
    in_call: str
    waddle_id: str
    me_json: bytes
    def __init__(self, device_id: _Optional[str] = ..., device_type: _Optional[str] = ..., device_name: _Optional[str] = ..., os_version: _Optional[str] = ..., status: _Optional[str] = ..., connected_at: _Optional[int] = ..., last_seen: _Optional[int] = ..., in_call: _Optional[str] = ..., waddle_id: _Optional[str] = ..., me_json: _Optional[bytes] = ...) -> None: ...

class DeviceLeft(_message.Message):
    __slots__ = ("device_id", "status", "reason", "target_device", "version")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TARGET_DEVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    device_id: str
    status: str
    reason: str
    target_device: str
    version: int
    def __init__(self, device_id: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., target_device: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class DeviceList(_message.Message):
    __slots__ = ("devices", "total", "session_id", "delta", "partial", "joined", "left", "me_json")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    ME_JSON_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    total: int
    session_id: str
    delta: bool
    partial: bool
    joined: _containers.RepeatedCompositeFieldContainer[Device]
    left: _containers.RepeatedCompositeFieldContainer[DeviceLeft]
    me_json: bytes
    def __init__(self, devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., total: _Optional[int] = ..., session_id: _Optional[str] = ..., delta: bool = ..., partial: bool = ..., joined: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., left: _Optional[_Iterable[_Union[DeviceLeft, _Mapping]]] = ..., me_json: _Optional[bytes] = ...) -> None: ...

class Broadcast(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class AdminUpdate(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...
