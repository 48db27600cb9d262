"""Every error that a client can receive, in one catalogue.

    SyncBridgeError            carries an ErrorCode, a detail and extra fields
    └── StoreError             Redis did not do it, or it is not known whether it did
        ├── StoreUnavailable   not sent, or refused: nothing was done
        │   └── StoreRejected  refused for what is stored under the keys: repeating does not help
        ├── StoreTimeout       sent, and no answer in time: outcome unknown, repeat with the same id
        └── StoreOverloaded    our own queue is full: nothing was sent

An `ErrorCode` knows its HTTP status (RFC 9457 problem documents) and whether repeating the same
request may succeed. WebSocket ERROR payloads carry the same codes.
"""

from enum import Enum
from typing import Any


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


class SyncBridgeError(Exception):
    """An error that is reported to the client.

    Args:
        code: the catalogue entry.
        detail: one sentence: what, where, and what would be accepted. Never a secret.
        retry_after: seconds after which repeating makes sense, or None.
        fields: extra members of the problem document or ERROR details.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str = "",
        *,
        retry_after: float | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(detail or code.title)
        self.code = code
        self.detail = detail or code.title
        self.retry_after = retry_after
        self.fields = fields


class StoreError(SyncBridgeError):
    """Redis did not do it, or it is not known whether it did."""

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(ErrorCode.STORE_UNAVAILABLE, detail, retry_after=retry_after)


class StoreUnavailable(StoreError):
    """The command was not sent, or Redis refused it; nothing was done."""


class StoreRejected(StoreUnavailable):
    """Redis refused the command because of what is stored under its keys; nothing was done.

    The client gets STATE_DAMAGED: the store is available, and repeating does not help.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.code = ErrorCode.STATE_DAMAGED
        self.retry_after = None


class StoreTimeout(StoreError):
    """No answer within the deadline; repeat with the same idempotency id to learn the outcome."""


class StoreOverloaded(StoreError):
    """The queue to Redis is full; nothing was sent."""

    def __init__(self, detail: str, retry_after: float = 0.2) -> None:
        super().__init__(detail, retry_after)
        self.code = ErrorCode.OVERLOADED
