"""A request body that can be cancelled while it is sent.

httpx's own body is an async generator. It stays suspended when the connection breaks while sending,
and Trio then warns at garbage collection. This body is a plain iterator.
"""

import httpx


class Payload(httpx.AsyncByteStream):
    """A body in one chunk, sent once."""

    def __init__(self, data: bytes) -> None:
        self._parts = [data]

    def __aiter__(self) -> "Payload":
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


def unbroken(request: httpx.Request) -> httpx.Request:
    """The same request with a `Payload` as its body."""
    request.stream = Payload(request.content)
    return request
