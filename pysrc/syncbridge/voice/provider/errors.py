"""Errors of voice providers.

ProviderError             has a ProviderCode, a detail and an optional retry time
├── SessionNotFound       SESSION_NOT_FOUND: the room does not exist (any more)
├── ProviderTokenExpired  TOKEN_EXPIRED: the participant needs a new token
├── RateLimited           RATE_LIMITED: by the provider, or by our own budget before sending
├── ProviderUnavailable   SERVICE_UNAVAILABLE: a 5xx or invalid answer
├── PermissionDenied      PERMISSION_DENIED: to our key or the participant
├── SessionFull           session_full: no seat is left
├── NetworkFailed         network_error: no answer; `outcome_unknown` if the request may have acted
├── DeviceFailed          device_error: a client's microphone failed; providers only forward it
└── InvalidRequest        invalid_request: the request was not accepted; a retry is useless
    └── Unsupported       the same: this provider does not offer it
"""

from enum import Enum
from typing import ClassVar


class ProviderCode(Enum):
    """The provider's error codes by their names on the wire."""

    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105
    RATE_LIMITED = "RATE_LIMITED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    SESSION_FULL = "session_full"
    NETWORK_ERROR = "network_error"
    DEVICE_ERROR = "device_error"
    INVALID_REQUEST = "invalid_request"


class ProviderError(Exception):
    """A request to the provider failed.

    Args:
        detail: one sentence without secrets and without the provider's body.
        retry_after: seconds until a retry makes sense, or None if unknown.
        outcome_unknown: True if the provider may have carried out the request.
    """

    code: ClassVar[ProviderCode] = ProviderCode.SERVICE_UNAVAILABLE
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(detail or self.code.value)
        self.detail = detail or self.code.value
        self.retry_after = retry_after
        self.outcome_unknown = outcome_unknown


class SessionNotFound(ProviderError):
    """The provider does not know the session."""

    code = ProviderCode.SESSION_NOT_FOUND


class ProviderTokenExpired(ProviderError):
    """A participant's token has expired; issue another one."""

    code = ProviderCode.TOKEN_EXPIRED


class RateLimited(ProviderError):
    """Too many requests; nothing was done. `retry_after` is always set."""

    code = ProviderCode.RATE_LIMITED
    retryable = True


class ProviderUnavailable(ProviderError):
    """The provider reported a failure or sent an invalid answer."""

    code = ProviderCode.SERVICE_UNAVAILABLE
    retryable = True


class PermissionDenied(ProviderError):
    """Our credentials or the participant's permissions do not allow it."""

    code = ProviderCode.PERMISSION_DENIED


class SessionFull(ProviderError):
    """No seat is left in the session."""

    code = ProviderCode.SESSION_FULL


class NetworkFailed(ProviderError):
    """No connection, or no complete answer within the deadline."""

    code = ProviderCode.NETWORK_ERROR
    retryable = True


class DeviceFailed(ProviderError):
    """A client's device failed."""

    code = ProviderCode.DEVICE_ERROR


class InvalidRequest(ProviderError):
    """The provider did not accept the request."""

    code = ProviderCode.INVALID_REQUEST


class Unsupported(InvalidRequest):
    """The provider does not offer it, by its `Capabilities` or its setup."""


_KINDS: tuple[type[ProviderError], ...] = (
    SessionNotFound,
    ProviderTokenExpired,
    RateLimited,
    ProviderUnavailable,
    PermissionDenied,
    SessionFull,
    NetworkFailed,
    DeviceFailed,
    InvalidRequest,
)
BY_CODE: dict[str, type[ProviderError]] = {kind.code.value.lower(): kind for kind in _KINDS}
"""Error types by lower-case code, because the two documents differ in case."""
