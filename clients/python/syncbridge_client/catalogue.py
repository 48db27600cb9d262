"""Codes, message types and bounds of the protocol.

Those of the server for which this client was made; a server may know more. Generated, by
scripts/client_catalogue.py.
"""

from enum import Enum, IntEnum

import msgspec


class ErrorCode(Enum):
    """code = (wire name, HTTP status, retryable, title)."""

    INVALID_JSON = ("invalid_json", 400, False, "Not valid JSON")
    INVALID_PROTOBUF = ("invalid_protobuf", 400, False, "Not valid protobuf")
    INVALID_MESSAGE = ("invalid_message", 422, False, "Message not acceptable")
    UNKNOWN_TYPE = ("unknown_type", 422, False, "Unknown message type")
    UNKNOWN_OPERATION = ("unknown_operation", 422, False, "Unknown operation")
    INVALID_FIELD = ("invalid_field", 422, False, "Field not acceptable")
    INVALID_KEY = ("invalid_key", 422, False, "Key not acceptable")
    RESERVED_KEY = ("reserved_key", 422, False, "Key is reserved")
    DUPLICATE_KEY = ("duplicate_key", 422, False, "Key appears twice")
    NUMBER_RANGE = ("number_range", 422, False, "Number out of range")
    TOO_DEEP = ("too_deep", 400, False, "Nested too deeply")
    TOO_LARGE = ("too_large", 413, False, "Too large")
    TOO_MANY_KEYS = ("too_many_keys", 413, False, "Too many keys")
    TOO_MANY_CHANGES = ("too_many_changes", 413, False, "Too many changes in one update")
    KEY_OVERLAP = ("key_overlap", 422, False, "Key both changed and deleted")
    BASE_VERSION_AHEAD = ("base_version_ahead", 409, False, "Base version is ahead of the server")
    BASE_LOST = ("base_lost", 409, False, "Base version is not of this history")
    SEQUENCE_GAP = ("sequence_gap", 409, True, "Not the next number of the stream")
    UNKNOWN_STREAM = ("unknown_stream", 409, False, "Stream is not known")
    VERSION_CONFLICT = ("version_conflict", 409, False, "Changed by somebody else meanwhile")
    PRECONDITION_FAILED = ("precondition_failed", 409, False, "Value is not the expected one")
    TYPE_MISMATCH = ("type_mismatch", 422, False, "Operation does not fit the value's type")
    NOT_AN_INTEGER = ("not_an_integer", 422, False, "Not an integer")
    OUT_OF_RANGE = ("out_of_range", 422, False, "Result is out of range")
    UNSUPPORTED = ("unsupported", 422, False, "Not supported on this connection")
    AUTH_REQUIRED = ("auth_required", 401, False, "Authentication required")
    TOKEN_INVALID = ("token_invalid", 401, False, "Token not acceptable")
    TOKEN_EXPIRED = ("token_expired", 401, False, "Token has expired")
    TOKEN_EXPIRING = ("token_expiring", 401, True, "Token is about to expire")
    TOKEN_REVOKED = ("token_revoked", 401, False, "Token was revoked")
    TOKEN_REUSED = ("token_reused", 401, False, "Refresh token was used before")
    FORBIDDEN = ("forbidden", 403, False, "Not allowed")
    INSUFFICIENT_ROLE = ("insufficient_role", 403, False, "Role does not allow this")
    WRONG_SESSION = ("wrong_session", 403, False, "Token is for another session")
    SESSION_NOT_FOUND = ("session_not_found", 404, False, "No such session")
    DEVICE_NOT_FOUND = ("device_not_found", 404, False, "No such device")
    NOT_FOUND = ("not_found", 404, False, "Not found")
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405, False, "Method not allowed")
    UNSUPPORTED_MEDIA = ("unsupported_media_type", 415, False, "Media type not supported")
    UNSUPPORTED_ENCODING = ("unsupported_encoding", 415, False, "Content coding not supported")
    INVALID_ENCODING = ("invalid_encoding", 400, False, "Content coding is damaged")
    TOO_MANY_DEVICES = ("too_many_devices", 409, False, "Too many devices in the session")
    FENCED = ("fenced", 409, False, "Device has handed the session over")
    WRONG_DEVICE = ("wrong_device", 403, False, "Token is for another device")
    HANDOFF_NOT_FOUND = ("handoff_not_found", 404, False, "No such handoff")
    HANDOFF_USED = ("handoff_used", 410, False, "Handoff token was used")
    HANDOFF_EXPIRED = ("handoff_expired", 410, False, "Handoff token has expired")
    INVALID_CALL = ("invalid_call", 400, False, "Call session not acceptable")
    CALL_NOT_FOUND = ("call_not_found", 404, False, "No such call session")
    CALL_EXISTS = ("call_exists", 409, False, "Call session exists")
    CALL_TERMINATED = ("call_terminated", 409, False, "Call session has ended")
    CALL_TRANSITION = ("call_transition", 409, False, "State does not follow the current one")
    CALL_CHANGED = ("call_changed", 412, False, "Call session was changed meanwhile")
    EVENTS_GAP = ("events_gap", 410, False, "Events after the cursor are no longer kept")
    EVENTS_STARTING = ("events_starting", 503, True, "Not every node writes events yet")
    ENDPOINT_CONFIGURED = ("endpoint_configured", 409, False, "Endpoint is defined in a file")
    EXPORT_GAP = ("export_gap", 410, False, "Records after the cursor are no longer kept")
    CHANNEL_NOT_FOUND = ("channel_not_found", 404, False, "No such voice channel")
    AMBIGUOUS = ("ambiguous", 409, False, "Several waddles have this voice channel")
    NO_CALL = ("no_call", 409, False, "No call in the voice channel")
    CALL_ACTIVE = ("call_active", 409, False, "Call was opened in another way")
    CALL_MOVING = ("call_moving", 409, True, "Call is being moved already")
    VOICE_FULL = ("session_full", 409, True, "No place left in the call")
    DEVICE_ERROR = ("device_error", 422, False, "Microphone or camera failed")
    WEBHOOK_SIGNATURE = ("webhook_signature", 401, False, "Webhook signature not acceptable")
    PROVIDER_UNAVAILABLE = ("provider_unavailable", 503, True, "Voice provider is unavailable")
    RATE_LIMITED = ("rate_limited", 429, True, "Too many requests")
    QUOTA_EXCEEDED = ("quota_exceeded", 403, False, "Quota of the user is used up")
    STATE_DAMAGED = ("state_damaged", 500, False, "Stored state is damaged")
    STORE_UNAVAILABLE = ("store_unavailable", 503, True, "Store is unavailable")
    OVERLOADED = ("overloaded", 503, True, "Too busy")
    DRAINING = ("draining", 503, True, "Shutting down")
    INTERNAL = ("internal_error", 500, True, "Internal error")

    def __init__(self, wire: str, status: int, retryable: bool, title: str) -> None:
        self.wire = wire
        self.status = status
        self.retryable = retryable
        self.title = title


BY_WIRE: dict[str, ErrorCode] = {code.wire: code for code in ErrorCode}


class CloseCode(IntEnum):
    """code = (number, reason, whether connecting again is expected to work)."""

    reason: str
    should_reconnect: bool

    def __new__(cls, code: int, reason: str, should_reconnect: bool) -> "CloseCode":
        self = int.__new__(cls, code)
        self._value_ = code
        self.reason = reason
        self.should_reconnect = should_reconnect
        return self

    NORMAL = (1000, "bye", False)
    GOING_AWAY = (1001, "going away", True)
    PROTOCOL_ERROR = (1002, "protocol error", False)
    INVALID_DATA = (1007, "text is not UTF-8", False)
    TOO_BIG = (1009, "message too big", False)
    INTERNAL_ERROR = (1011, "internal error", True)
    SERVICE_RESTART = (1012, "server restarts", True)
    AUTH_TIMEOUT = (4001, "no AUTH in time", True)
    AUTH_FAILED = (4002, "authentication failed", False)
    FORBIDDEN = (4003, "not allowed", False)
    TOKEN_EXPIRED = (4004, "token expired", True)
    TOKEN_REVOKED = (4005, "token revoked", False)
    IDLE_TIMEOUT = (4006, "nothing heard for too long", True)
    FLOOD = (4007, "too many messages", True)
    SLOW_CONSUMER = (4008, "reads too slowly", True)
    REPLACED = (4009, "same device connected again", False)
    DEVICE_REMOVED = (4010, "device removed from the session", False)
    SESSION_FULL = (4011, "too many devices in the session", False)
    STORE_UNAVAILABLE = (4012, "store is away, try later", True)
    TOO_MANY_CONNECTIONS = (4013, "server is full", True)


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


class Limits(msgspec.Struct, frozen=True):
    """Bounds that a server reports in AUTH_SUCCESS, and their defaults.

    Sizes in bytes, times in seconds unless the name says otherwise; 0: no bound.
    """

    message_bytes: int = 65_536
    snapshot_bytes: int = 1_048_576
    state_bytes: int = 1_048_576
    state_keys: int = 2_000
    key_bytes: int = 256
    value_bytes: int = 262_144
    depth: int = 64
    number_bytes: int = 64
    changes: int = 256
    devices: int = 32
    presence_list: int = 64
    ephemeral_keys: int = 16
    ephemeral_bytes: int = 1_024
    ephemeral_per_second: int = 20
    id_bytes: int = 64
    messages_per_second: int = 50
    message_burst: int = 100
    flood_messages: int = 200
    user_messages_per_second: int = 200
    user_message_burst: int = 400
    user_joins_per_second: int = 5
    user_join_burst: int = 128
    device_joins_per_minute: int = 30
    device_join_burst: int = 10
    user_sockets: int = 256
    user_sessions: int = 1_024
    user_bytes: int = 67_108_864
    requests_per_second: int = 100
    request_burst: int = 200
    handshakes_per_second: int = 100
    handshake_burst: int = 500
    unauthenticated_per_address: int = 256
    connections: int = 65_536
    outbox_bytes: int = 1_048_576
    conflate_bytes: int = 262_144
    heartbeat_interval_ms: int = 25_000
    presence_timeout: int = 120
    auth_timeout: int = 10
    session_ttl: int = 604_800
    expiry_grace: int = 25
    expiry_warning: int = 60
    tombstones: int = 256
