"""What every HTTP/1.1 request costs besides its application: the pure twin of `http1.pyx`. Pure.

Heads are matched with a grammar before a parser sees them. Request smuggling needs two parsers that
disagree about where a message ends, so that only what every parser reads in the same way passes:
lines end in CRLF, no line is folded, no space stands before a colon, no control characters, one
space between the parts of the request line (RFC 9112 sections 2.2, 3, 5.1, 5.2).

Answers become bytes (RFC 9112 sections 6, 7.1, 9.3; ASGI 3 http). The head waits for the first
piece of the body, as ASGI asks, and leaves with it: a response in one piece is one send. Its length
is what the application says, else what that one piece has, else the body is sent in chunks, or to
an HTTP/1.0 client up to the end of the connection. An application that breaks the protocol gets a
RuntimeError, before a byte has left where that is possible. A header value must be one line, so
that a value from a client cannot split the response.
"""

import re
from collections.abc import Mapping
from typing import Any

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# Its repetitions are possessive, so it is linear in the head.
_HEAD = re.compile(
    rb"(" + _TOKEN + rb"++) ([\x21\x22\x24-\x7e]++) HTTP/1\.([01])\r\n"
    rb"(?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)
_NAME = re.compile(_TOKEN + rb"+\Z")
_BREAK = re.compile(rb"[\r\n\0]")
_BODILESS = frozenset({204, 304})
_DECIDING = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"x-forwarded-for",
    }
)

Pair = tuple[bytes, bytes]


def split_head(head: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and minor version of a whole head, or None when it is not well-formed.

    A whole head ends with an empty line, and has no other.
    """
    match = _HEAD.fullmatch(head)
    return None if match is None else (match[1], match[2], match[3])


class Fields:
    """The fields of one head, told one by one by a parser.

    Attributes:
        headers: names in lower case, values without the spaces around them.
        deciding: of these, the ones that say where a message ends, whom it is for and from whom.
    """

    __slots__ = ("deciding", "headers")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin another head."""
        self.headers: list[Pair] = []
        self.deciding: list[Pair] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field."""
        pair = name.lower(), value.strip(b" \t")
        self.headers.append(pair)
        if pair[0] in _DECIDING:
            self.deciding.append(pair)


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

    def start(self, message: Mapping[str, Any], opening: bytes) -> None:
        """Take `http.response.start`. `opening`: the lines before the application's."""
        if self.started:
            raise RuntimeError("http.response.start was sent twice")
        fields = [opening]
        for name, value in message.get("headers", ()):
            fields.append(self._field(bytes(name).lower(), bytes(value)))
        self.status = message["status"]
        self._fields = fields
        self.started = True

    def _field(self, name: bytes, value: bytes) -> bytes:
        """The line of a field; none for what is not the application's to say: how the body is
        framed, and what time it is."""
        if name == b"content-length":
            self._left = _length(value)
        elif name == b"connection":
            if b"close" in value.lower():
                self.keep_alive = False
            if b"upgrade" in value.lower():
                return b"connection: upgrade\r\n"
        elif name != b"transfer-encoding" and name != b"date":
            return _line(name, value)
        return b""

    def body(self, data: bytes | bytearray | memoryview, more: bool) -> bytes:
        """Handle `http.response.body`; returns the bytes to send, possibly none."""
        if not self.started:
            raise RuntimeError("http.response.body came before http.response.start")
        if self.complete:
            raise RuntimeError("the response was complete already")
        data = bytes(data)
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


def _line(name: bytes, value: bytes) -> bytes:
    if _NAME.match(name) is None:
        raise RuntimeError(f"not a header name: {name!r}")
    if _BREAK.search(value) is not None:
        raise RuntimeError(f"the value of {name.decode()} has a line break in it")
    return b"%b: %b\r\n" % (name, value)


def _length(value: bytes) -> int:
    number = int(value)
    if not 0 <= number < 1 << 62:
        raise RuntimeError("content-length is no length")
    return number


def _chunk(data: bytes, more: bool) -> bytes:
    end = b"" if more else b"0\r\n\r\n"
    return b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end
