"""HTTP/2: Hypercorn's protocol class with deadlines, and with our WebSockets.

Hypercorn keeps frames, streams and flow control. `Http2` overrides the methods that decide what
serves a request, and those that may wait for ever: for a window that a client never opens, for the
buffer of a stream that was reset, for bytes that a leaving client did not read. `Http2Connection`
is one connection over a transport. It ends when the peer leaves, after `keep_alive_timeout` without
a request, or when a write makes no progress for `write_timeout`; applications that still run are
cancelled after GONE_SECONDS.

A complete answer waits for its client without its request's place, because the application is done.
Each connection may have one such answer, or several of UNTAKEN_BYTES in all. Above that, answers
keep their places, and are the first to give way.
"""

from typing import Any, TypeAlias, cast

import h2.errors
import h2.events
import h2.exceptions
import trio
from h2.connection import ConnectionState as H2State
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    EndData,
    InformationalResponse,
    Response,
)
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request as StreamRequest
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import TrioSingleTask
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from syncbridge_server.listener.capacity import STALL_SECONDS
from syncbridge_server.listener.contract import Refusal
from syncbridge_server.listener.fast.limits import (
    FLOOD,
    GONE_SECONDS,
    LAST_REQUEST_SECONDS,
    Refused,
)
from syncbridge_server.listener.fast.request import HeaderList, Request
from syncbridge_server.listener.fast.transport import Gone, Transport
from syncbridge_server.listener.http2_head import Http2HeadParser, is_well_formed
from syncbridge_server.listener.http2_places import ConnectionPlaces
from syncbridge_server.listener.http2_request import RequestTasks
from syncbridge_server.listener.http2_restless import Restlessness
from syncbridge_server.listener.hypercorn import Site
from syncbridge_server.listener.tunnel import TunnelStream

UNTAKEN_BYTES = 65_536
"""Bytes of several complete answers of a connection that may wait without a place."""

Piece: TypeAlias = Body | Data | EndBody | EndData
Head: TypeAlias = Response | InformationalResponse


class Http2(H2Protocol):
    """HTTP/2 whose extended CONNECT requests at our path become tunnels (RFC 8441)."""

    site: Site

    def __init__(self, site: Site, tasks: RequestTasks, *arguments: Any) -> None:
        shared: tuple[Any, ...] = (site.app, site.hypercorn, site.context, tasks)
        super().__init__(*shared, *arguments)
        self.site = site
        self.connection.config.validate_inbound_headers = False  # done by `http2_head`
        self._tasks = tasks
        self._places = tasks.places
        self._heads = Http2HeadParser(site.config)
        self._waits: dict[int, trio.CancelScope] = {}
        self._restless = Restlessness(trio.current_time())

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            for buffer in list(self.stream_buffers.values()):
                await buffer.close()  # whoever waits for one to be sent goes on
        await super().handle(event)

    async def say_goodbye(self) -> None:
        """Send GOAWAY: requests that cross it are not served (RFC 9113 section 6.8)."""
        if self.connection.state_machine.state is not H2State.CLOSED:
            self.connection.close_connection()
            await self._flush()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Head | Piece):
            await self._send_in_time(event)
            if isinstance(event, EndBody):
                self._restless.answered()
        else:
            await super().stream_send(event)

    async def _send_in_time(self, event: Head | Piece) -> None:
        """Wait until the client reads what a stream has, as long as it makes progress."""
        stream_id = event.stream_id
        with trio.CancelScope(deadline=self._patience_ends()) as scope:
            self._waits[stream_id] = scope
            self._places.uptake.begin()
            self._stall(stream_id, event)
            try:
                await super().stream_send(event)
                buffer = self.stream_buffers.get(stream_id)
                if buffer is None or buffer.complete:
                    await trio.lowlevel.checkpoint()  # an application that goes on can be cancelled
                elif len(buffer.buffer) >= BUFFER_HIGH_WATER:
                    await buffer.drain()  # Hypercorn does not wait while the window is closed
            finally:
                self._places.uptake.end()
                self._waits.pop(stream_id, None)
                self._flow(stream_id)
        if scope.cancelled_caught:
            await self._close_stream(stream_id)
            await self.send(RawData(data=b""))  # what it had no time to send is a part of the rest
            await self._idle_again()

    async def _send_data(self, stream_id: int) -> None:
        before = self._held(stream_id)
        await super()._send_data(stream_id)
        scope, taken = self._waits.get(stream_id), before - self._held(stream_id)
        if scope is not None and taken > 0:
            self._places.uptake.take(taken)
            scope.deadline = self._patience_ends()
            self._stall(stream_id)

    def _stall(self, stream_id: int, event: Head | Piece | None = None) -> None:
        """A stream's answer waits until the client reads more."""
        occupant = self._tasks.occupants.get(stream_id)
        if occupant is None:
            stream = self.streams.get(stream_id)
            if stream is not None and stream.idle:
                self._places.stall(stream)  # a WebSocket that is closed, or was refused
        elif occupant.evicted and occupant.refused:
            self._places.stall(occupant)  # it is told why
        else:
            if occupant.answered and self._may_wait(stream_id, len(getattr(event, "data", b""))):
                self.site.bounds.release(occupant)
            spent = occupant.answered or self._places.uptake.spent
            occupant.stall(self._waits[stream_id], spent and not isinstance(event, Head))

    def _flow(self, stream_id: int) -> None:
        """The client has read all bytes of a stream so far."""
        occupant = self._tasks.occupants.get(stream_id)
        if occupant is not None:
            occupant.flow()

    def _may_wait(self, stream_id: int, size: int) -> bool:
        """Whether a complete answer, with `size` further bytes, may wait without a place."""
        own = size + self._held(stream_id)
        total = size + sum(len(buffer.buffer) for buffer in self.stream_buffers.values())
        return total == own or total <= UNTAKEN_BYTES

    def _held(self, stream_id: int) -> int:
        buffer = self.stream_buffers.get(stream_id)
        return 0 if buffer is None else len(buffer.buffer)

    def _patience_ends(self) -> float:
        return trio.current_time() + self.site.config.write_timeout

    async def _close_stream(self, stream_id: int) -> None:
        """Forget a stream; an incomplete answer is cut off visibly."""
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and not buffer.complete:
            self._reset(stream_id)
            await buffer.close()
            await self._window_updated(stream_id)  # has the sending task drop it
            await self._flush()
        self._places.wait(self.streams.get(stream_id))
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
        fields = request.headers
        tunnel = (b":method", b"CONNECT") in fields
        error = self._error_of(fields, tunnel)
        if error is not None:
            self._restless.refuse(trio.current_time())
            self._reset(request.stream_id, error)
            return
        try:
            asked = self._heads.parse(fields)
        except Refused as refused:
            head = (b":method", b"HEAD") in fields
            asked = Request("HEAD" if head else "GET", b"/", "2", _ordinary(fields))
            await self._create_request(request.stream_id, asked, refused.refusal)
            return
        if tunnel:
            await self._create_tunnel(request.stream_id, asked)
        else:
            await self._create_request(request.stream_id, asked)

    def _error_of(self, fields: HeaderList, tunnel: bool) -> h2.errors.ErrorCodes | None:
        """Why a request is reset at once, or None."""
        if not is_well_formed(fields):
            return h2.errors.ErrorCodes.PROTOCOL_ERROR
        if self.context.terminated.is_set() or self._is_full() or (tunnel and self._tasks.reserved):
            return h2.errors.ErrorCodes.REFUSED_STREAM
        return None

    def _is_full(self) -> bool:
        """Whether too many applications of reset streams still run."""
        return len(self._tasks.occupants) >= 2 * self.config.h2_max_concurrent_streams

    async def _create_request(
        self, stream_id: int, asked: Request, refusal: Refusal | None = None
    ) -> None:
        self._tasks.stream_id = stream_id
        self._tasks.refusal = refusal
        pseudo = [(b":method", asked.method.encode()), (b":path", asked.target)]
        fields = [*pseudo, *asked.headers]
        await super()._create_stream(h2.events.RequestReceived(stream_id=stream_id, headers=fields))

    async def _create_tunnel(self, stream_id: int, asked: Request) -> None:
        tunnel = TunnelStream(
            self.site.config,
            self.site.sink,
            self.task_group,
            self.client[0] if self.client else "unix",
            self.stream_send,
            stream_id,
            self._known,
        )
        self.streams[stream_id] = cast(WSStream, tunnel)
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        await tunnel.handle(
            StreamRequest(
                stream_id=stream_id,
                headers=asked.headers,
                http_version="2",
                method="CONNECT",
                raw_path=asked.target,
                state=self.connection_state,
            )
        )
        self._places.review()  # until its client is known, the tunnel only waits for it
        self.keep_alive_requests += 1

    def _known(self, tunnel: TunnelStream) -> None:
        """The client of a WebSocket has authenticated: its address no longer counts."""
        self._places.belong("")
        self._places.work(tunnel)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            self._restless.take(event, trio.current_time())
            if self._restless.spent:
                await self._send_away()
                return
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._discard(event)
            elif isinstance(event, h2.events.RequestReceived):
                await self._create_stream(event)
                await self.send(Updated(idle=False))
            elif isinstance(event, h2.events.TrailersReceived):
                await self._take_trailers(event)
            else:
                await super()._handle_events([event])
            if isinstance(event, h2.events.RequestReceived | h2.events.StreamReset):
                await self._idle_again()  # refused at once, or given up: the idle timer runs on
        await self._flush()

    async def _send_away(self) -> None:
        """End the connection of a flooding client."""
        client = self.client[0] if self.client else "unix"
        self.site.config.on_refused(FLOOD, client, "connection")
        self.connection.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        await self._flush()
        await self.send(Closed())

    async def _take_trailers(self, event: h2.events.TrailersReceived) -> None:
        """Read and drop trailers, as in HTTP/1.1; malformed ones end their stream."""
        if not is_well_formed(event.headers, trailer=True):
            self._restless.refuse(trio.current_time())
            self._reset(event.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            await self._close_stream(event.stream_id)

    def _discard(self, event: h2.events.DataReceived) -> None:
        """Drop data of an ended stream, and give its window back to the other streams."""
        self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


def _ordinary(fields: HeaderList) -> HeaderList:
    """The fields without pseudo-header fields."""
    return [field for field in fields if field[0][:1] != b":"]


async def serve_http2(site: Site, transport: Transport) -> None:
    """Serve a connection that speaks HTTP/2 until it ends."""
    await Http2Connection(site, transport).run()


class Http2Connection:
    """One HTTP/2 connection; `run` serves it until it ends, and closes it."""

    def __init__(self, site: Site, transport: Transport) -> None:
        self._site = site
        self._transport = transport
        self._reading = trio.CancelScope()
        self._sending = trio.Lock()
        self._idle = TrioSingleTask()
        self._unsent = b""
        self._occupant = transport.occupant
        self._places = ConnectionPlaces(self._occupant, self._reading)
        self._tasks = RequestTasks(site, self._places, self._occupant.reserved)

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
        """Pass the peer's bytes to the protocol until one side ends."""
        data, self._transport.buffer = self._transport.buffer, b""
        with self._reading:
            self._places.review()
            await self._protocol.initiate()
            await self._idle.restart(self._tasks, self._idle_timeout)
            try:
                while data := data or await self._transport.read():
                    await self._protocol.handle(RawData(data=data))
                    data = b""
            except Gone:
                pass

    async def _leave(self) -> None:
        """Tell the applications and the peer that the connection ends."""
        await self._protocol.handle(Closed())
        await self._idle.stop()
        await self._protocol.say_goodbye()
        self._places.close()
        async with self._sending:
            await self._transport.part()

    async def _idle_timeout(self) -> None:
        """Close after the keep-alive timeout; in a stop, wait shortly for a request under way."""
        with trio.move_on_after(self._site.config.keep_alive_timeout):
            await self._site.context.terminated.wait()
            await trio.sleep(LAST_REQUEST_SECONDS)
        self._reading.cancel()

    async def _send(self, event: Event) -> None:
        """Handle an event of the protocol."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._reading.cancel()
        elif self._protocol.closed:
            pass  # a timer would keep a connection that is over
        elif isinstance(event, Updated) and event.idle:
            await self._idle.restart(self._tasks, self._idle_timeout)
        else:
            await self._idle.stop()

    async def _write(self, data: bytes) -> None:
        """Write; a peer that reads nothing for the transport's timeout counts as gone.

        A task that waits for its turn may be cancelled: the next one sends its bytes, too.
        """
        self._unsent += data
        try:
            async with self._sending:
                while self._unsent:
                    data, self._unsent = self._unsent, b""
                    await self._transport.write(data)
        except Gone:
            self._reading.cancel()
        finally:
            self._places.review(anew=False)
            if self._transport.broken:
                self._reading.cancel()
