"""A WebSocket inside an HTTP/2 connection (RFC 8441), served by the sink like any other.

Theory of operation. Hypercorn gives each WebSocket to a stream object: `Request` first, then the
peer's raw bytes as `Data`, at last `StreamClosed`; the stream answers with events of the same
kinds. Hypercorn's own stream parses the frames itself, buffers without a bound once a message was
too large, and drops the connection without a close code when a frame is wrong. This stream parses
nothing. It answers the handshake with the listener's policy and copies bytes between the peer and
one end of a socketpair; the sink has the other end. So a stream of HTTP/2 behaves byte for
byte like plain TCP: same limits, close codes, pings.

Back-pressure is the socketpair's: when it is full, `handle` waits, and Hypercorn stops reading;
when the peer is slow, the pump waits, and the sink's bounded outbox decides. Per connection this
costs two descriptors and one task, which is why plain TCP does not go this way.
"""

import logging
import socket
from collections.abc import Awaitable, Callable

import trio
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    EndData,
    Event,
    Request,
    Response,
    StreamClosed,
)
from hypercorn.typing import TaskGroup

from syncbridge_server.listener.contract import ListenerConfig, Refusal, SocketSink
from syncbridge_server.listener.response import (
    agreement_headers,
    refusal_response,
)
from syncbridge_server.listener.upgrade import (
    Agreement,
    HandshakeError,
    Headers,
    UpgradeRequest,
    collect,
    negotiate,
)

READ_BYTES = 65_536
FULL = Refusal(503, "overloaded", "too many connections; try again", 1)

logger = logging.getLogger("syncbridge.listener")


class TunnelStream:
    """One WebSocket of a Hypercorn connection. Fulfils Hypercorn's stream interface.

    Args:
        client: address of the peer. send: takes stream events back to the protocol.
        on_known: called once the peer has authenticated.
    """

    def __init__(
        self,
        config: ListenerConfig,
        sink: SocketSink,
        task_group: TaskGroup,
        client: str,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        on_known: "Callable[[TunnelStream], None]",
    ) -> None:
        self._on_known = on_known
        self._config = config
        self._sink = sink
        self._task_group = task_group
        self._client = client
        self._send = send
        self._id = stream_id
        self._near: trio.SocketStream | None = None
        self._over = False

    @property
    def idle(self) -> bool:
        """True once nothing more will be sent: the connection may be closed."""
        return self._over

    async def handle(self, event: Event) -> None:
        """Handle one event of the peer; waits while the sink does not read."""
        if self._over:
            return
        if isinstance(event, Request):
            await self._open(event)
        elif isinstance(event, (Body, Data)):
            await self._forward(event.data)
        elif isinstance(event, EndBody):
            await self._half_close()
        elif isinstance(event, StreamClosed):
            await self._end()

    async def _open(self, event: Request) -> None:
        headers = dict(event.headers)
        verdict = self._judge(event)
        if isinstance(verdict, Agreement):
            far = self._connect()
            if far is not None:
                with far:  # closed unless the sink detaches it
                    given_id = headers.get(b"x-request-id", b"")
                    agreed = agreement_headers(verdict, given_id)
                    await self._send(Response(self._id, agreed, 200))
                    self._adopt(far, verdict)
                return
            verdict = FULL
        self._over = True
        self._task_group.spawn(self._refuse, verdict, headers)  # the window may be closed

    def _judge(self, event: Request) -> Agreement | Refusal:
        path, _, query = event.raw_path.partition(b"?")
        try:
            request = UpgradeRequest(path, query, collect(event.headers), http2=True)
        except HandshakeError as error:
            return error.refusal
        verdict = negotiate(request, self._config)
        if isinstance(verdict, Agreement):
            return self._sink.admit(self._client) or verdict
        return verdict

    def _connect(self) -> socket.socket | None:
        """Make the socketpair; keep one end, return the other. None without descriptors."""
        try:
            near, far = socket.socketpair()
        except OSError:
            return None
        near.setblocking(False)
        far.setblocking(False)
        self._near = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        return far

    def _adopt(self, far: socket.socket, agreement: Agreement) -> None:
        try:
            self._sink.adopt(
                far,
                encoding=agreement.encoding,
                client=self._client,
                initial=b"",
                bridged=False,
                deflate=agreement.compression is not None,
                on_known=self._known,
            )
        except OSError as error:
            logger.warning("the sink took no socket: %s", error)
        self._task_group.spawn(self._pump)

    def _known(self) -> None:
        if not self._over:
            self._on_known(self)

    async def _refuse(self, refusal: Refusal, request: Headers) -> None:
        self._config.on_refused(refusal, self._client, "handshake")
        status, headers, body = refusal_response(refusal, request, self._config.origins)
        await self._send(Response(self._id, headers, status))
        await self._send(Body(self._id, body))
        await self._send(EndBody(self._id))
        await self._send(StreamClosed(self._id))

    async def _forward(self, data: bytes) -> None:
        if self._near is None:
            return
        try:
            await self._near.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the sink is done with it, and the pump tells the peer

    async def _half_close(self) -> None:
        if self._near is None:
            return
        try:
            await self._near.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _pump(self) -> None:
        """Copy what the sink writes to the peer until the sink closes or the peer is gone."""
        assert self._near is not None
        async with self._near:
            try:
                while data := await self._near.receive_some(READ_BYTES):
                    await self._send(Data(self._id, bytes(data)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        if not self._over:
            await self._end()
            with trio.move_on_after(self._config.write_timeout):
                await self._send(EndData(self._id))
            await self._send(StreamClosed(self._id))

    async def _end(self) -> None:
        self._over = True
        if self._near is not None:
            await trio.aclose_forcefully(self._near)
