"""Compressed answers: a `send` of ASGI in front of the server's own.

An answer is compressed when the client accepts a coding that we speak, the body came in one piece
of `LEAST` bytes or more, its type is text of some kind, and that makes it shorter. Everything else
passes through, at the cost of one small object per request, and without a coroutine if
Content-Length decides. A large body is compressed on a worker thread, so that sockets do not wait.

Entity tags (RFC 9110 section 8.8.3): two codings of one state are different bytes, so they must not
share a strong tag. The tag of a compressed answer is the weak form of the same tag. If-None-Match
compares weakly, so a client may come back with either. A 304 carries the form that the client
named, because that is the answer which it has stored. Answers that would be compressed for some
client say `Vary: Accept-Encoding`, also when they were not.

Tokens: an answer with `Cache-Control: no-store` is left alone. Compressing a secret together with
something that an attacker chose would tell its length.
"""

import re
from collections.abc import Awaitable, Iterable
from functools import lru_cache

import trio
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from syncbridge_server.http.support.encoding import COMPRESS, choose_coding

LEAST = 1024
"""Bytes from which on an answer is compressed."""

THREAD_FROM = 65_536
"""Bytes from which on that is done on a thread."""

_SHORT_DIGITS = len(str(LEAST)) - 1
"""A Content-Length with at most this many digits is below `LEAST`."""

_TEXT = re.compile(rb"text/|application/(?:[\w.-]+\+)?(?:json|xml|yaml|javascript)\b|image/svg")
_VARY = (b"vary", b"Accept-Encoding")


class Compressing:
    """The `send` of one request. Holds the head back until the first part of the body is there,
    unless that is known to be short.

    Args:
        request: headers of the request, as ASGI has them.
    """

    __slots__ = ("_request", "_send", "_start")

    def __init__(self, request: Iterable[tuple[bytes, bytes]], send: Send) -> None:
        self._request = request
        self._send = send
        self._start: Message | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start" and not _is_short(message):
            return self._hold(message)
        if self._start is not None and message["type"] == "http.response.body":
            return self._send_both(self._start, message)
        return self._send(message)

    async def _hold(self, start: Message) -> None:
        self._start = start

    async def _send_both(self, start: Message, message: Message) -> None:
        self._start = None
        message = await self._prepare(start, message)
        await self._send(start)
        await self._send(message)

    async def _prepare(self, start: Message, message: Message) -> Message:
        """Adapt the head; returns the body to send."""
        body = message.get("body", b"")
        coding = self._coding(start, b"" if message.get("more_body") else body)
        if not coding:
            return message
        compress = COMPRESS[coding]
        if len(body) < THREAD_FROM:
            packed = compress(body)
        else:
            packed = await trio.to_thread.run_sync(compress, body)
        return {**message, "body": _packed(start, body, coding, packed)}

    def whole(self, start: Message, body: bytes) -> bytes | None:
        """Adapt the head of a whole answer; returns its body.

        None, and nothing was adapted, where compressing it may take a thread.
        """
        if len(body) >= THREAD_FROM:
            return None
        coding = self._coding(start, body)
        if not coding:
            return body
        return _packed(start, body, coding, COMPRESS[coding](body))

    def _coding(self, start: Message, body: bytes) -> str:
        """The coding of a whole answer, "" for none; its head says what that depends on."""
        if start["status"] == 304:
            self._revalidated(MutableHeaders(scope=start))
            return ""
        if len(body) < LEAST or start["status"] in (204, 206):
            return ""
        text, varies = _judge(start.get("headers", ()))
        if not text:
            return ""
        coding = choose_coding(self._header(b"accept-encoding"))
        if not coding and not varies:
            start["headers"] = [*start["headers"], _VARY]
        else:
            MutableHeaders(scope=start).add_vary_header("Accept-Encoding")
        return coding

    def _revalidated(self, headers: MutableHeaders) -> None:
        headers.add_vary_header("Accept-Encoding")
        tag = headers.get("etag", "")
        if tag.startswith('"') and "W/" + tag in self._header(b"if-none-match"):
            headers["ETag"] = "W/" + tag

    def _header(self, name: bytes) -> str:
        found = b""
        for key, value in self._request:
            if key == name:
                found = found + b"," + value if found else value
        return found.decode("latin-1")


def _packed(start: Message, body: bytes, coding: str, packed: bytes) -> bytes:
    """The body to send, of an answer that was compressed; its head says so if that is shorter."""
    if len(packed) >= len(body):
        return body
    headers = MutableHeaders(scope=start)
    headers["Content-Encoding"] = coding
    headers["Content-Length"] = str(len(packed))
    if headers.get("etag", "").startswith('"'):
        headers["ETag"] = "W/" + headers["etag"]
    return packed


def _is_short(start: Message) -> bool:
    """Whether an answer is not to be touched, by its head alone."""
    if start["status"] == 304:
        return False
    for name, value in start.get("headers", ()):
        if name == b"content-length":
            return len(value) <= _SHORT_DIGITS
    return False


def _judge(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bool, bool]:
    """Whether this kind of answer is compressed at all, and whether it has a Vary already.

    Names of fields are in lower case.
    """
    text = varies = False
    for name, value in headers:
        if name == b"content-type":
            text = _is_text(value)
        elif name == b"vary":
            varies = True
        elif name == b"content-encoding" or (name == b"cache-control" and b"no-store" in value):
            return False, varies
    return text, varies


@lru_cache(256)
def _is_text(content_type: bytes) -> bool:
    return _TEXT.match(content_type) is not None
