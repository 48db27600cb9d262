"""Every WebSocket close code that a client of SyncBridge can see, and whether to reconnect.

RFC 6455 section 7.4 owns 1000 to 1015; 4000 to 4999 are ours. A test holds `docs/protocol.md` to
this catalogue.
"""

from enum import IntEnum

from syncbridge.errors import ErrorCode


class CloseCode(IntEnum):
    """A close code, its reason text, and whether a client should reconnect.

    Attributes:
        reason: short text sent in the close frame, at most 123 bytes (RFC 6455 section 5.5.1).
        should_reconnect: True when connecting again, with backoff, is expected to work.
    """

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


AUTH_ENDS = {
    ErrorCode.TOKEN_INVALID: CloseCode.AUTH_FAILED,
    ErrorCode.TOKEN_EXPIRED: CloseCode.TOKEN_EXPIRED,
    ErrorCode.TOKEN_REVOKED: CloseCode.TOKEN_REVOKED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorCode.INSUFFICIENT_ROLE: CloseCode.FORBIDDEN,
    ErrorCode.WRONG_SESSION: CloseCode.FORBIDDEN,
    ErrorCode.WRONG_DEVICE: CloseCode.FORBIDDEN,
    ErrorCode.TOO_MANY_DEVICES: CloseCode.SESSION_FULL,
    ErrorCode.STORE_UNAVAILABLE: CloseCode.STORE_UNAVAILABLE,
    ErrorCode.OVERLOADED: CloseCode.STORE_UNAVAILABLE,
    ErrorCode.QUOTA_EXCEEDED: CloseCode.FORBIDDEN,
    ErrorCode.RATE_LIMITED: CloseCode.FLOOD,
    ErrorCode.STATE_DAMAGED: CloseCode.INTERNAL_ERROR,
    ErrorCode.INTERNAL: CloseCode.INTERNAL_ERROR,
}
"""How a refused AUTH ends; with anything else (a bad field) as AUTH_FAILED."""
