"""One request and its answer: the `receive` and `send` of an ASGI application.

Theory of operation. The application runs in the connection's task, so `receive` reads the socket
when the application asks, and other bytes stay in the kernel: that is the back-pressure. An
application learns that the client is gone only by a `receive` after the body; that waits for the
socket, and keeps what a pipelining client sends meanwhile.

Once the client is gone, or was refused half-way, `receive` returns `http.disconnect` and `send`
does nothing. The application has GONE_SECONDS to notice; then it is cancelled with its connection.
"""

from collections.abc import Awaitable, MutableMapping
from typing import Any

import trio

from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.fast.body import Body, body_of
from syncbridge_server.listener.fast.limits import (
    DRAIN_BYTES,
    GONE_SECONDS,
    READ_BYTES,
    Refused,
)
from syncbridge_server.listener.fast.patience import Patience
from syncbridge_server.listener.fast.request import Request
from syncbridge_server.listener.fast.response import (
    CONTINUE,
    Response,
    opening,
    protected_opening,
)
from syncbridge_server.listener.fast.transport import Gone, Transport

Message = MutableMapping[str, Any]


class Exchange:
    """See the top of this file.

    Args:
        scope: cancels the connection.
        bounds: get the request's place back once the answer is complete, read or not.

    Attributes:
        refusal: why the request was refused while its body was read; the connection sends it.
        gone: the client is gone.
    """

    __slots__ = (
        "_body",
        "_bounds",
        "_config",
        "_over",
        "_patience",
        "_scope",
        "_told",
        "_transport",
        "_unasked",
        "_watch",
        "gone",
        "refusal",
        "response",
    )

    def __init__(
        self,
        transport: Transport,
        request: Request,
        config: ListenerConfig,
        scope: trio.CancelScope,
        bounds: Bounds,
    ) -> None:
        self._transport = transport
        self._bounds = bounds
        self._config = config
        self._scope = scope
        self._body = body_of(request.length, config.max_body_bytes) if request.length else None
        self._unasked = request.expects_continue
        self._patience: Patience | None = None
        self._over = self._told = False
        self._watch: trio.CancelScope | None = None
        self.gone = False
        self.refusal: Refusal | None = None
        self.response = Response(request.method, request.version, request.keep_alive)

    async def receive(self) -> Message:
        """The application's `receive`."""
        if self.gone or self._over or self.response.complete:
            await trio.lowlevel.checkpoint()
        elif self._body is not None and not self._body.complete:
            try:
                return await self._piece(self._body)
            except Refused as refused:
                self.refusal = refused.refusal
                self._lose()
            except Gone:
                self._lose()
        elif not self._body_told():
            return {"type": "http.request", "body": b"", "more_body": False}
        else:
            await self._until_gone()
        return {"type": "http.disconnect"}

    def arrived(self) -> bytes | None:
        """The request's `contract.ARRIVED`."""
        body, transport = self._body, self._transport
        if body is None or self._unasked or self._over or not body.holds(transport.buffer):
            return None
        piece = body.feed(transport.buffer)
        transport.buffer, body.rest = body.rest, b""
        self._told = True
        return piece

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if self.gone or self._over:
            await trio.lowlevel.checkpoint()
        elif message["type"] == "http.response.body":
            await self._take(message.get("body", b""), message.get("more_body", False))
        elif message["type"] == "http.response.start":
            self.response.start(message, opening(message["status"]))
        else:
            raise RuntimeError(f"{message['type']} cannot be sent in HTTP/1.1")

    def answer(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Awaitable[None] | None:
        """The request's `contract.Answerer`."""
        if self.gone or self._over:
            return None
        response, asked = self.response, self._body
        response.start({"status": status, "headers": headers}, protected_opening(status))
        if asked is not None and not asked.complete:
            return self._write(self._made(body, False))
        data = response.body(body, False)
        if not response.keep_alive or not self._transport.defer(data):
            return self._write(data)
        if self._watch is not None:
            self._watch.cancel()
        return None

    async def _take(self, body: bytes, more: bool) -> None:
        data = self._made(body, more)
        if more or not self._deferred(data):
            await self._write(data)

    def _made(self, body: bytes, more: bool) -> bytes:
        """The bytes of the next piece of the body, after the head if it is the first."""
        response = self.response
        if not response.sent and self._body is not None:
            response.keep_alive = response.keep_alive and self._rest_is_short(self._body)
        return response.body(body, more)

    def _deferred(self, data: bytes) -> bool:
        """Leave the end of the answer to the outbox, if possible."""
        if not self.response.keep_alive or self.unread or not self._transport.defer(data):
            return False
        if self._watch is not None:
            self._watch.cancel()
        return True

    async def _write(self, data: bytes) -> None:
        complete = self.response.complete
        if complete:
            self._bounds.release(self._transport.occupant)
        try:
            await self._transport.write(data)
        except Gone:
            self._lose()
        if complete and self._watch is not None:
            self._watch.cancel()

    async def finish(self) -> bool:
        """End the exchange after the application; True when another request may follow."""
        self._over = True
        while self._watch is not None:
            self._watch.cancel()
            await trio.lowlevel.checkpoint()
        if self.gone or not self.response.complete or not self.response.keep_alive:
            return False
        if self._body is None or self._body.complete:
            return True
        return await self._drained(self._body)

    @property
    def unread(self) -> bool:
        """Whether some of the request's body has not been read."""
        return self._body is not None and not self._body.complete

    def _body_told(self) -> bool:
        """Whether the end of the body was reported before; marks it as reported."""
        told, self._told = self._told, True
        return told

    def _lose(self) -> None:
        self.gone = True
        deadline = trio.current_time() + GONE_SECONDS
        self._scope.deadline = min(self._scope.deadline, deadline)

    async def _piece(self, body: Body) -> Message:
        """The next piece of the body. Raises Refused and Gone."""
        transport = self._transport
        if self._unasked:
            self._unasked = False
            if not transport.buffer:
                await transport.write(CONTINUE)
        data, transport.buffer = transport.buffer, b""
        piece = body.feed(data)
        while not piece and not body.complete:
            piece = body.feed(await self._read_in_time())
        if body.complete:
            transport.buffer, body.rest = body.rest, b""
            self._told = True
            if self._patience is not None:
                transport.occupant.work()
        return {"type": "http.request", "body": piece, "more_body": not body.complete}

    async def _read_in_time(self) -> bytes:
        """Read from the client; the wait is charged to its `Patience`."""
        patience = self._patience
        if patience is None:
            patience = self._patience = Patience(self._config, self._transport.occupant)
        data = await patience.wait(self._transport.read)
        if not data:
            raise Gone
        patience.earn(len(data))
        return data

    async def _until_gone(self) -> None:
        """Wait until the client closes or the answer is complete."""
        transport = self._transport
        if self._watch is not None:
            raise RuntimeError("two tasks receive at the same time")
        with trio.CancelScope() as self._watch:
            try:
                if transport.ended():
                    raise Gone
                while len(transport.buffer) < READ_BYTES:
                    data = await transport.read()
                    if not data:
                        raise Gone
                    transport.buffer += data
                await trio.sleep_forever()
            except Gone:
                self._lose()
            finally:
                self._watch = None

    def _rest_is_short(self, body: Body) -> bool:
        """Whether the rest of the body is short enough to be read and dropped after the answer."""
        return body.complete or not (self._unasked or body.left > DRAIN_BYTES)

    async def _drained(self, body: Body) -> bool:
        """Read and drop the rest of the body; False when it is too long, late or malformed."""
        transport, budget = self._transport, DRAIN_BYTES
        try:
            data, transport.buffer = transport.buffer, b""
            while True:
                budget -= len(body.feed(data))
                if body.complete or budget < 0:
                    break
                data = await self._read_in_time()
        except (Refused, Gone):
            return False
        transport.buffer, body.rest = body.rest, b""
        return body.complete
