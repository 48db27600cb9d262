"""What a caller of the client can be told.

ClientError
├── InvalidUpdate      an update that no server would take; nothing was queued
├── QueueFull          too much waits to be acknowledged; nothing was queued
├── StorageError       the queue on disk cannot be read or written
├── UpdateRefused      the server said no, for good
├── UnsentUpdates      the session ended while updates waited
├── ConnectFailed      no connection within the deadline
├── SessionClosed      the session is over and will not reconnect
├── RequestFailed      a request on the socket was answered with an error, or not in time
└── ApiError           an HTTP call was answered with a problem document
    ├── CallNotFound       no such call session
    ├── CallExists         a call session has this id
    └── CallStateRefused   the state does not follow the one that the call session has
"""

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """Base of everything that the client raises on its own."""


class InvalidUpdate(ClientError):
    """The update cannot be sent: not JSON, a bad key, or too large."""


class QueueFull(ClientError):
    """The queue of updates is at its bound; wait for `session.synced()` or drop some work."""


class StorageError(ClientError):
    """The queue on disk cannot be read or written, or another session has opened it."""


class UpdateRefused(ClientError):
    """The server refused an update for good; its optimistic effect has been taken back.

    Attributes:
        code: error code of the protocol. detail: the server's sentence. details: its fields.
    """

    def __init__(self, code: str, detail: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.details = dict(details or {})


class UnsentUpdates(ClientError):
    """Updates that were not acknowledged when the session ended. `keys`: of each, in order."""

    def __init__(self, keys: Sequence[tuple[str, ...]]) -> None:
        super().__init__(f"{len(keys)} updates were not acknowledged when the session ended")
        self.keys = list(keys)


class ConnectFailed(ClientError):
    """No connection within the deadline; `__cause__` is the last reason."""


class SessionClosed(ClientError):
    """The session has ended.

    Attributes:
        code: WebSocket close code, 1000 when it was left by its own program.
        reason: text.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class RequestFailed(ClientError):
    """A request over the socket failed. `code`: of the protocol, or `timeout`, `disconnected`."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class ApiError(ClientError):
    """An HTTP call failed (RFC 9457).

    Attributes:
        code: error code of the protocol, `http_<status>` when the answer named none.
        status: HTTP status. detail: the server's sentence.
        retry_after: seconds after which it makes sense to repeat the call, or None.
        fields: the other members of the problem document.
    """

    def __init__(
        self,
        code: str,
        status: int,
        detail: str = "",
        retry_after: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}" if detail else f"{status} {code}")
        self.code = code
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.fields = dict(fields or {})


class CallNotFound(ApiError):
    """There is no call session with this id."""


class CallExists(ApiError):
    """There is a call session with this id, made by another request."""


class CallStateRefused(ApiError):
    """The state does not follow. `fields["state"]`: the one that the call session has."""
