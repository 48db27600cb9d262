"""The body of a request that may be broken off while it is sent.

httpx's own body is an async generator, which is left suspended when the connection breaks within
it, and Trio then warns when it is collected. This one is a plain iterator: nothing is left behind.
"""

import httpx


class Payload(httpx.AsyncByteStream):
    """A body in one part, to be sent once."""

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
