"""HTTP/1.1 heads taken apart and answers made into bytes. See http1.pyx."""

from collections.abc import Mapping
from typing import Any, final

def split_head(head: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and minor version of a whole head, or None when it is not well-formed."""

@final
class Fields:
    """Collects the fields of one head from a parser, one by one."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def deciding(self) -> list[tuple[bytes, bytes]]: ...
    def reset(self) -> None:
        """Begin another head."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field."""

@final
class Response:
    """The answer to one request.

    Attributes:
        started: the application has named status and headers; nothing need have left yet.
        sent: bytes have left. complete: all of them. keep_alive: the connection goes on after it.
        status: the status, 0 before `started`.
    """

    keep_alive: bool
    def __init__(self, method: str, version: str, keep_alive: bool) -> None: ...
    @property
    def started(self) -> bool: ...
    @property
    def sent(self) -> bool: ...
    @property
    def complete(self) -> bool: ...
    @property
    def status(self) -> int: ...
    def start(self, message: Mapping[str, Any], opening: bytes) -> None:
        """Take `http.response.start`. `opening`: the lines before the application's."""

    def body(self, data: bytes | bytearray | memoryview, more: bool) -> bytes:
        """Take `http.response.body`; returns the bytes to send, which may be none."""
