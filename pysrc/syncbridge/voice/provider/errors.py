"""What a voice provider can refuse, as types.

ProviderError             carries a ProviderCode, a detail and, where told, a retry time
├── SessionNotFound       SESSION_NOT_FOUND: the room is not there (any more)
├── ProviderTokenExpired  TOKEN_EXPIRED: the participant's token is to be issued again
├── RateLimited           RATE_LIMITED: by the provider, or by our own budget before sending
├── ProviderUnavailable   SERVICE_UNAVAILABLE: it answered 5xx, or with nonsense
├── PermissionDenied      PERMISSION_DENIED: our key, or the participant, may not do that
├── SessionFull           session_full: no place left
├── NetworkFailed         network_error: no answer; `outcome_unknown` when it may have acted
├── DeviceFailed          device_error: a client's microphone; providers only pass it on
└── InvalidRequest        invalid_request: what we sent is not acceptable; repeating is useless
    └── Unsupported       the same: this provider does not offer it
"""

from enum import Enum
from typing import ClassVar


class ProviderCode(Enum):
    """The provider's error codes, by the names that go over the wire."""

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
    """A call to the provider did not do what was asked.

    Args:
        detail: one sentence without secrets and without the provider's body.
        retry_after: seconds after which repeating makes sense, or None when unknown.
        outcome_unknown: True when the provider may have carried the request out all the same.
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
    """The provider knows no such session."""

    code = ProviderCode.SESSION_NOT_FOUND


class ProviderTokenExpired(ProviderError):
    """A participant's token is over; issue another one."""

    code = ProviderCode.TOKEN_EXPIRED


class RateLimited(ProviderError):
    """Too many requests; nothing was done. `retry_after` is always set."""

    code = ProviderCode.RATE_LIMITED
    retryable = True


class ProviderUnavailable(ProviderError):
    """The provider answered that it is in trouble, or did not make sense."""

    code = ProviderCode.SERVICE_UNAVAILABLE
    retryable = True


class PermissionDenied(ProviderError):
    """Our credentials or the participant's rights do not allow it."""

    code = ProviderCode.PERMISSION_DENIED


class SessionFull(ProviderError):
    """Nobody else can join."""

    code = ProviderCode.SESSION_FULL


class NetworkFailed(ProviderError):
    """No connection, or no whole answer within the deadline."""

    code = ProviderCode.NETWORK_ERROR
    retryable = True


class DeviceFailed(ProviderError):
    """A client's device failed."""

    code = ProviderCode.DEVICE_ERROR


class InvalidRequest(ProviderError):
    """The provider does not accept what was sent."""

    code = ProviderCode.INVALID_REQUEST


class Unsupported(InvalidRequest):
    """This provider does not offer it: its `Capabilities` say so, or it is not set up for it."""


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
"""Kinds by lower-case code: the two descriptions of the provider differ in case."""
