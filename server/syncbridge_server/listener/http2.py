"""HTTP/2: Hypercorn's protocol class, held to deadlines, and with our WebSockets in it.

Hypercorn keeps frames, streams and flow control. `Http2` overrides the methods that decide what
serves a request, and where it waits without an end: for a window that a client never opens, for
the buffer of a stream that was reset, for what a leaving client did not take. `Connection` is one
connection over a transport. It ends when the peer leaves, when nothing was asked for
`keep_alive_timeout`, or when a write makes no progress for `write_timeout`; what still runs then is
cancelled after GONE_SECONDS.
"""

from typing import Any, TypeAlias, cast

import h2.errors
import h2.events
import h2.exceptions
import trio
from h2.connection import ConnectionState as H2State
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Request
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import TrioSingleTask
from hypercorn.typing import ConnectionState
from hypercorn.utils import filter_pseudo_headers, parse_socket_addr

from syncbridge_server.listener.capacity import STALL_SECONDS
from syncbridge_server.listener.fast.limits import GONE_SECONDS, LAST_REQUEST_SECONDS
from syncbridge_server.listener.fast.transport import Gone, Transport
from syncbridge_server.listener.http2_request import RequestTasks
from syncbridge_server.listener.hypercorn import Site
from syncbridge_server.listener.tunnel import TunnelStream

Piece: TypeAlias = Body | Data | EndBody | EndData


class Http2(H2Protocol):
    """HTTP/2 whose extended CONNECT requests at our path become tunnels (RFC 8441)."""

    site: Site

    def __init__(self, site: Site, tasks: RequestTasks, *arguments: Any) -> None:
        shared: tuple[Any, ...] = (site.app, site.hypercorn, site.context, tasks)
        super().__init__(*shared, *arguments)
        self.site = site
        self._tasks = tasks
        self._waits: dict[int, trio.CancelScope] = {}

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()  # whoever waits for one to be sent goes on
        await super().handle(event)

    async def say_goodbye(self) -> None:
        """Send GOAWAY: what the client has asked since is not served (RFC 9113 section 6.8)."""
        if self.connection.state_machine.state is not H2State.CLOSED:
            self.connection.close_connection()
            await self._flush()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Body | Data | EndBody | EndData):
            await self._send_in_time(event)
        else:
            await super().stream_send(event)

    async def _send_in_time(self, event: Piece) -> None:
        """Wait until the client takes what a stream has, as long as it takes some of it."""
        stream_id = event.stream_id
        with trio.CancelScope(deadline=self._patience_ends()) as scope:
            self._waits[stream_id] = scope
            self._stall(stream_id)
            try:
                await super().stream_send(event)
                buffer = self.stream_buffers.get(stream_id)
                if buffer is not None and len(buffer.buffer) >= BUFFER_HIGH_WATER:
                    await buffer.drain()  # Hypercorn does not wait while the window is closed
            finally:
                self._waits.pop(stream_id, None)
                if stream_id in self._tasks.occupants:
                    self._tasks.occupants[stream_id].flow()
        if scope.cancelled_caught:
            await self._close_stream(stream_id)
            await self._idle_again()

    async def _send_data(self, stream_id: int) -> None:
        before = self._held(stream_id)
        await super()._send_data(stream_id)
        scope = self._waits.get(stream_id)
        if scope is not None and self._held(stream_id) < before:
            scope.deadline = self._patience_ends()
            self._stall(stream_id)

    def _stall(self, stream_id: int) -> None:
        """The answer of a stream goes on once the client takes more of it."""
        occupant = self._tasks.occupants.get(stream_id)
        if occupant is not None and not occupant.evicted:
            occupant.stall(self._waits[stream_id])

    def _held(self, stream_id: int) -> int:
        buffer = self.stream_buffers.get(stream_id)
        return 0 if buffer is None else len(buffer.buffer)

    def _patience_ends(self) -> float:
        return trio.current_time() + self.site.config.write_timeout

    async def _close_stream(self, stream_id: int) -> None:
        """Forget a stream; an answer that is not whole is cut off so that the client can tell."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and not buffer.complete:
            self._reset(stream_id)
            await buffer.close()
            await self._window_updated(stream_id)  # has the sending task drop it
            await self._flush()
        await super()._close_stream(stream_id)

    def _reset(
        self, stream_id: int, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.CANCEL
    ) -> None:
        try:
            self.connection.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            pass  # the client was faster

    async def _idle_again(self) -> None:
        if self.idle:
            await self.send(Updated(idle=True))

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        """Ignored (RFC 9113 section 5.3.2): streams take turns."""

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        pseudo = {name: value for name, value in request.headers if name[:1] == b":"}
        if not all(pseudo.get(name, b"").isascii() for name in (b":method", b":path")):
            self._reset(request.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        elif pseudo.get(b":method") != b"CONNECT":
            self._tasks.stream_id = request.stream_id
            await super()._create_stream(request)
        elif self._tasks.reserved:
            self.connection.reset_stream(request.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif pseudo.get(b":protocol") == b"websocket" and b":path" in pseudo:
            await self._create_tunnel(request, pseudo[b":path"])
        else:
            self.connection.reset_stream(request.stream_id)

    async def _create_tunnel(self, request: h2.events.RequestReceived, path: bytes) -> None:
        stream_id = request.stream_id
        tunnel = TunnelStream(
            self.site.config,
            self.site.sink,
            self.task_group,
            self.client[0] if self.client else "unix",
            self.stream_send,
            stream_id,
        )
        self.streams[stream_id] = cast(WSStream, tunnel)
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        await tunnel.handle(
            Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(request.headers),
                http_version="2",
                method="CONNECT",
                raw_path=path,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._discard(event)
            else:
                await super()._handle_events([event])
            if isinstance(event, h2.events.RequestReceived | h2.events.StreamReset):
                await self._idle_again()  # refused at once, or given up: the idle timer runs on
        await self._flush()

    def _discard(self, event: h2.events.DataReceived) -> None:
        """Data for a stream that we ended: give the window back to the other streams."""
        self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


async def serve_http2(site: Site, transport: Transport) -> None:
    """Serve a connection that speaks HTTP/2 until it ends."""
    await Connection(site, transport).run()


class Connection:
    """One HTTP/2 connection; `run` serves it until it ends, and closes it."""

    def __init__(self, site: Site, transport: Transport) -> None:
        self._site = site
        self._transport = transport
        self._reading = trio.CancelScope()
        self._sending = trio.Lock()
        self._idle = TrioSingleTask()
        self._occupant = transport.occupant
        self._tasks = RequestTasks(site, self._occupant.reserved)

    async def run(self) -> None:
        try:
            self._protocol = self._make_protocol()
        except OSError:
            return  # it was reset meanwhile, and has no address any more
        try:
            with trio.CancelScope() as scope:
                async with self._tasks:
                    await self._serve()
                    patience = STALL_SECONDS if self._occupant.evicted else GONE_SECONDS
                    scope.deadline = trio.current_time() + patience
                    await self._leave()
        finally:
            await self._transport.part()

    def _make_protocol(self) -> Http2:
        sock = self._transport.sock
        return Http2(
            self._site,
            self._tasks,
            ConnectionState(self._site.state.copy()),
            self._transport.secure,
            parse_socket_addr(sock.family, sock.getpeername()),
            parse_socket_addr(sock.family, sock.getsockname()),
            self._send,
        )

    async def _serve(self) -> None:
        """Give the protocol what the peer sends, until one side has enough."""
        data, self._transport.buffer = self._transport.buffer, b""
        with self._reading:
            self._occupant.wait(self._reading)
            await self._protocol.initiate()
            await self._idle.restart(self._tasks, self._idle_timeout)
            try:
                while data := data or await self._transport.read():
                    await self._protocol.handle(RawData(data=data))
                    data = b""
            except Gone:
                pass

    async def _leave(self) -> None:
        """Tell the applications, and the peer that nothing more comes."""
        await self._protocol.handle(Closed())
        await self._idle.stop()
        await self._protocol.say_goodbye()
        self._occupant.wait()
        async with self._sending:
            await self._transport.part()

    async def _idle_timeout(self) -> None:
        """Close after the keep-alive timeout; in a stop a request under way has a last chance."""
        with trio.move_on_after(self._site.config.keep_alive_timeout):
            await self._site.context.terminated.wait()
            await trio.sleep(LAST_REQUEST_SECONDS)
        self._reading.cancel()

    async def _send(self, event: Event) -> None:
        """Take what the protocol wants."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._reading.cancel()
        elif self._protocol.closed:
            pass  # a timer would keep a connection that is over
        elif isinstance(event, Updated) and event.idle:
            self._occupant.wait(self._reading)
            await self._idle.restart(self._tasks, self._idle_timeout)
        else:
            self._occupant.work()
            await self._idle.stop()

    async def _write(self, data: bytes) -> None:
        """A peer that takes nothing for so long as the transport waits is gone for us."""
        async with self._sending:
            try:
                await self._transport.write(data)
            except Gone:
                self._reading.cancel()
