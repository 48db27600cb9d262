"""A receiver of webhooks on a real socket, whose answers a test chooses."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import h11
import msgspec
import trio


class Got(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


class Receiver:
    """Attributes: answer: gives the status of a request, 0 to say nothing. got: all requests."""

    def __init__(self) -> None:
        self.answer: Callable[[Got], int] = lambda got: 204
        self.headers: list[tuple[str, str]] = []
        self.got: list[Got] = []
        self.port = 0
        self._more = trio.Event()

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def until(self, count: int, seconds: float = 20.0) -> list[Got]:
        """The requests, once there are so many."""
        with trio.fail_after(seconds):
            while len(self.got) < count:
                self._more = trio.Event()
                await self._more.wait()
        return self.got

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        async with stream:
            while True:
                try:
                    event = connection.next_event()
                    if event is h11.NEED_DATA:
                        connection.receive_data(await stream.receive_some(65_536))
                        continue
                except (trio.BrokenResourceError, h11.RemoteProtocolError):
                    return  # who sends was killed
                if isinstance(event, h11.Request):
                    head, body = event, b""
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage) and head is not None:
                    if not await self._respond(stream, connection, head, body):
                        return
                    connection.start_next_cycle()
                else:
                    return

    async def _respond(
        self, stream: trio.SocketStream, connection: h11.Connection, head: h11.Request, body: bytes
    ) -> bool:
        headers = {name.decode(): value.decode() for name, value in head.headers}
        got = Got(head.target.decode(), headers, body)
        status = self.answer(got)
        self.got.append(got)
        self._more.set()
        if not status:
            return False
        fields = [*self.headers, ("content-length", "0")]
        data = connection.send(h11.Response(status_code=status, headers=fields))
        data = (data or b"") + (connection.send(h11.EndOfMessage()) or b"")
        await stream.send_all(data)
        return True


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, receiver.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        receiver.port = listeners[0].socket.getsockname()[1]
        yield receiver
        nursery.cancel_scope.cancel()
