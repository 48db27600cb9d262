"""From ASGI messages to the bytes of a response (RFC 9112 sections 6, 7.1, 9.3; ASGI 3 http). Pure.

The head waits for the first piece of the body, as ASGI asks, and leaves with it: a response in one
piece is one send. Its length is what the application says, else what that one piece has, else the
body is sent in chunks, or to an HTTP/1.0 client up to the end of the connection.

An application that breaks the protocol gets a RuntimeError, before a byte has left where that is
possible. Header values are held to one line each, so that a value that came from a client cannot
split the response.
"""

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_BREAK = re.compile(rb"[\r\n\0]")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Dates:
    """The Date header's line, made once a second (RFC 9110 section 6.6.1)."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


class _Lines:
    """Header lines that were checked and put together before: most are the same every time."""

    BOUND = 1_024
    LONGEST = 256

    def __init__(self) -> None:
        self.known: dict[tuple[bytes, bytes], bytes] = {}

    def make(self, name: bytes, value: bytes) -> bytes:
        """The line of a field. `name` is in lower case. Raises RuntimeError."""
        if _NAME.match(name) is None:
            raise RuntimeError(f"not a header name: {name!r}")
        if _BREAK.search(value) is not None:
            raise RuntimeError(f"the value of {name.decode()} has a line break in it")
        line = b"%b: %b\r\n" % (name, value)
        if len(line) <= self.LONGEST:
            if len(self.known) >= self.BOUND:
                self.known.clear()
            self.known[name, value] = line
        return line


_dates = _Dates()
_lines = _Lines()


class Response:
    """The answer to one request.

    Attributes:
        started: the application has named status and headers; nothing need have left yet.
        sent: bytes have left. complete: all of them. keep_alive: the connection goes on after it.
        status: the status, 0 before `started`.
    """

    __slots__ = (
        "_body_wanted",
        "_chunked",
        "_fields",
        "_http10",
        "_left",
        "complete",
        "keep_alive",
        "sent",
        "started",
        "status",
    )

    def __init__(self, method: str, version: str, keep_alive: bool) -> None:
        self.started = self.sent = self.complete = False
        self.keep_alive = keep_alive
        self.status = 0
        self._http10 = version == "1.0"
        self._body_wanted = method != "HEAD"
        self._chunked = False
        self._left: int | None = None
        self._fields: list[bytes] = []

    def start(self, message: Mapping[str, Any]) -> None:
        """Take `http.response.start`."""
        if self.started:
            raise RuntimeError("http.response.start was sent twice")
        status = int(message["status"])
        if not 200 <= status <= 999:
            raise RuntimeError(f"{status} is not the status of a final response")
        self.status = status
        fields = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        known = _lines.known.get
        for name, value in message.get("headers", ()):
            if name == b"content-length":
                self._left = int(value)
                continue
            fields.append(known((name, value)) or self._field(bytes(name).lower(), bytes(value)))
        fields.append(_dates.line())
        self._fields = fields
        self.started = True

    def _field(self, name: bytes, value: bytes) -> bytes:
        """The line of a field that is not known; none for what is not the
        application's to say: how the body is framed, and what time it is."""
        if name == b"content-length":
            self._left = int(value)
        elif name == b"connection":
            if b"close" in value.lower():
                self.keep_alive = False
        elif name != b"transfer-encoding" and name != b"date":
            return _lines.make(name, value)
        return b""

    def body(self, data: bytes, more: bool) -> bytes:
        """Take `http.response.body`; returns the bytes to send, which may be none."""
        if not self.started:
            raise RuntimeError("http.response.body came before http.response.start")
        if self.complete:
            raise RuntimeError("the response was complete already")
        if not more and not self.sent and self._ordinary and self._left in (None, len(data)):
            return self._whole(data)
        head = b"" if self.sent else self._head(len(data), more)
        if not self._body_wanted:
            data = b""
        elif self._chunked:
            data = _chunk(data, more)
        elif self._left is not None:
            self._count(len(data), more)
        self.sent = True
        self.complete = not more
        return head + data if head else data

    @property
    def _ordinary(self) -> bool:
        """Whether neither method nor status nor version asks for anything special."""
        return (
            self._body_wanted
            and self.keep_alive
            and not self._http10
            and self.status not in _BODILESS
        )

    def _whole(self, data: bytes) -> bytes:
        """An ordinary response in one piece, which most are: the short way to the same bytes."""
        self.sent = self.complete = True
        fields = self._fields
        fields.append(b"content-length: %d\r\n\r\n" % len(data))
        fields.append(data)
        return b"".join(fields)

    def _count(self, size: int, more: bool) -> None:
        assert self._left is not None
        self._left -= size
        if self._left < 0:
            raise RuntimeError("the body is longer than its content-length")
        if self._left and not more:
            raise RuntimeError("the body is shorter than its content-length")

    def _head(self, size: int, more: bool) -> bytes:
        """The head, now that it is known whether the first piece of the body is the last one."""
        fields = self._fields
        if self.status in _BODILESS:
            self._body_wanted = False
            if self.status == 304 and self._left is not None:
                fields.append(b"content-length: %d\r\n" % self._left)
        else:
            self._frame(size, more)
        if not self.keep_alive:
            fields.append(b"connection: close\r\n")
        elif self._http10:
            fields.append(b"connection: keep-alive\r\n")
        fields.append(b"\r\n")
        return b"".join(fields)

    def _frame(self, size: int, more: bool) -> None:
        if self._left is None and not more and (self._body_wanted or size):
            self._left = size
        if self._left is not None:
            self._fields.append(b"content-length: %d\r\n" % self._left)
        elif self._http10:
            self.keep_alive = False
        elif self._body_wanted:
            self._chunked = True
            self._fields.append(b"transfer-encoding: chunked\r\n")


def _chunk(data: bytes, more: bool) -> bytes:
    end = b"" if more else b"0\r\n\r\n"
    return b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end
