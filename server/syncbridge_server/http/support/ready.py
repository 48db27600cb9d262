"""Answers of the routes that are asked most, made without taking a head apart and together again.

Starlette's `Response` reads its headers out of a mapping of text, encodes each, and looks whether
length and type are among them. For a JSON body with an entity tag all of that is known before.
"""

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from syncbridge_server.http.support.compression import LEAST, Compressing

NOT_MODIFIED = 304
_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")
_NO_CACHE = (b"cache-control", b"no-cache")


class Ready(Response):
    """A response with its headers as they are sent; names in lower case.

    Attributes:
        short: there is nothing to compress, nor to say about it.
    """

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body: bytes = body
        self.short = len(body) < LEAST and status != NOT_MODIFIED
        self.background = None

    def adapt(self, compressing: Compressing) -> bool:
        """Have it compressed, if that is worth it; False where that takes a thread."""
        if self.short:
            return True
        start: Message = {"status": self.status_code, "headers": self.raw_headers}
        body = compressing.whole(start, self.body)
        if body is None:
            return False
        self.raw_headers, self.body = start["headers"], body
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI, for requests over HTTP."""
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def tagged_json(body: bytes, tag: str, *, status: int = 200, revalidate: bool = False) -> Ready:
    """JSON and its entity tag. `revalidate`: a cache must ask before it uses it again."""
    headers = [(b"etag", tag.encode("latin-1")), (b"content-length", b"%d" % len(body)), _JSON]
    if revalidate:
        headers.append(_NO_CACHE)
    return Ready(status, headers, body)


def json_of_now(body: bytes, status: int, *headers: tuple[bytes, bytes]) -> Ready:
    """JSON that must not be cached."""
    length = (b"content-length", b"%d" % len(body))
    return Ready(status, [_NO_STORE, length, _JSON, *headers], body)


def unchanged(tag: str) -> Ready:
    """304: the caller's copy, of that tag, is current."""
    return Ready(NOT_MODIFIED, [(b"etag", tag.encode("latin-1")), _NO_CACHE], b"")
