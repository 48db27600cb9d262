"""Hypercorn's protocol classes, composed so that our WebSocket path goes into a tunnel.

Hypercorn keeps all of HTTP/1.1 and HTTP/2. Each subclass here overrides the one method where
Hypercorn decides what serves a request, or closes a gap: a connection is never left without a
write deadline, and a frame for a stream that is gone does not end its neighbours.
"""

import logging
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, TypeVar, cast

import h2.events
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Request
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import (
    STREAM_ID,
    H2CProtocolRequiredError,
    H2ProtocolAssumedError,
    H11Protocol,
    H11WSConnection,
)
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import filter_pseudo_headers, parse_socket_addr
from priority.priority import DuplicateStreamError

from syncbridge_server.listener.contract import ListenerConfig, Refusal, SocketSink
from syncbridge_server.listener.response import NO_HEADERS, refusal_response
from syncbridge_server.listener.tunnel import TunnelStream

CLOSE_SECONDS = 2.0
LAST_REQUEST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Site:
    """What every Hypercorn connection of a process shares."""

    app: AppWrapper
    config: ListenerConfig
    hypercorn: Config
    context: WorkerContext
    state: ConnectionState
    sink: SocketSink
    ssl_context: SSLContext | None


def hypercorn_config(config: ListenerConfig) -> Config:
    """The listener's settings in Hypercorn's words."""
    target = Config()
    target.certfile = config.certfile
    target.keyfile = config.keyfile
    target.keep_alive_timeout = config.keep_alive_timeout
    target.graceful_timeout = config.drain_timeout
    target.ssl_handshake_timeout = config.header_timeout
    target.h11_max_incomplete_size = config.max_header_bytes
    target.h2_max_header_list_size = config.max_header_bytes
    target.include_server_header = False
    target.root_path = config.root_path
    target.errorlog = logging.getLogger("syncbridge.http")
    return target


def _peer(client: tuple[str, int] | None) -> str:
    return client[0] if client else "unix"


class Http1(H11Protocol):
    """HTTP/1.1 whose upgrades at our path become tunnels."""

    site: Site
    asked: h11.Request | None = None

    async def _create_stream(self, request: h11.Request) -> None:
        self.asked = request
        if not _asks_for_websocket(request, self.site.config.path):
            await super()._create_stream(request)
            return
        tunnel = TunnelStream(
            self.site.config,
            self.site.sink,
            self.task_group,
            _peer(self.client),
            self.stream_send,
            STREAM_ID,
        )
        self.stream = cast(WSStream, tunnel)
        self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        await tunnel.handle(_request_event(request, self.connection_state))

    async def _send_error_response(self, status_code: int) -> None:
        """Say what h11 refused, in the form of every other error."""
        refusal = Refusal(status_code, "bad_request", "the request is not well-formed HTTP/1.1")
        answering = self.asked is not None and self.connection.our_state is h11.SEND_RESPONSE
        asked = dict(self.asked.headers) if self.asked is not None and answering else NO_HEADERS
        _, headers, body = refusal_response(refusal, asked, self.site.config.origins)
        headers += [(b"connection", b"close"), *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


def _asks_for_websocket(request: h11.Request, path: str) -> bool:
    if request.method != b"GET" or request.target.partition(b"?")[0] != path.encode():
        return False
    return any(
        name == b"upgrade" and b"websocket" in value.lower() for name, value in request.headers
    )


def _request_event(request: h11.Request, state: ConnectionState) -> Request:
    return Request(
        stream_id=STREAM_ID,
        headers=list(request.headers),
        http_version=request.http_version.decode(),
        method="GET",
        raw_path=request.target,
        state=state,
    )


class Http2(H2Protocol):
    """HTTP/2 whose extended CONNECT requests at our path become tunnels (RFC 8441)."""

    site: Site

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        pseudo = {name: value for name, value in request.headers if name[:1] == b":"}
        if pseudo.get(b":method") != b"CONNECT":
            await super()._create_stream(request)
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
            _peer(self.client),
            self.stream_send,
            stream_id,
        )
        self.streams[stream_id] = cast(WSStream, tunnel)
        self.stream_buffers[stream_id] = StreamBuffer(self.context.event_class)
        self._schedule(stream_id)
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

    def _schedule(self, stream_id: int) -> None:
        """Enter the stream in the send order, unless a PRIORITY frame came before and did."""
        try:
            self.priority.insert_stream(stream_id)
        except DuplicateStreamError:
            return
        self.priority.block(stream_id)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self._discard(event)
            else:
                await super()._handle_events([event])
            if isinstance(event, h2.events.RequestReceived) and self.idle:
                await self.send(Updated(idle=True))  # refused at once: the idle timer runs on
        await self._flush()

    def _discard(self, event: h2.events.DataReceived) -> None:
        """Data for a stream that we ended: give the window back to the other streams."""
        self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


Kind = TypeVar("Kind", Http1, Http2)


class Protocols(ProtocolWrapper):
    """Chooses between `Http1` and `Http2`, by ALPN, prior knowledge or an h2c upgrade."""

    def __init__(self, site: Site, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.site = site
        if isinstance(self.protocol, H2Protocol):
            self.protocol = self._make(Http2)
        else:
            self.protocol = self._make(Http1)

    def _make(self, kind: type[Kind]) -> Kind:
        protocol = kind(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.state,
            self.ssl,
            self.client,
            self.server,
            self.send,
        )
        protocol.site = self.site
        return protocol

    async def handle(self, event: Event) -> None:
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as error:
            self.protocol = self._make(Http2)
            await self.protocol.initiate()
            await self._replay(error.data)
        except H2CProtocolRequiredError as error:
            self.protocol = protocol = self._make(Http2)
            await protocol.initiate(error.headers, error.settings)
            await self._replay(error.data)

    async def _replay(self, data: bytes) -> None:
        if data:
            await self.protocol.handle(RawData(data=data))


class Connection(TCPServer):
    """One connection served by Hypercorn, over a stream whose TLS is already up."""

    def __init__(self, site: Site, stream: Any, sock: Any, alpn: str, secure: bool) -> None:
        super().__init__(site.app, site.hypercorn, site.context, site.state, stream)
        self._site = site
        self._sock = sock
        self._alpn = alpn
        self._secure = secure

    async def run(self) -> None:
        try:
            client = parse_socket_addr(self._sock.family, self._sock.getpeername())
            server = parse_socket_addr(self._sock.family, self._sock.getsockname())
            async with TaskGroup() as self._task_group:
                self.protocol = Protocols(
                    self._site,
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState(self.state.copy()),
                    self._secure,
                    client,
                    server,
                    self.protocol_send,
                    self._alpn,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                await self.idle_task.stop()  # else a closed connection lives on until its timeout
        except OSError:
            pass
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._close()

    async def _idle_timeout(self) -> None:
        """Close after the keep-alive timeout; in a stop a request under way has a last chance."""
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
            await trio.sleep(LAST_REQUEST_SECONDS)
        await self._initiate_server_close()

    async def protocol_send(self, event: Event) -> None:
        """Write with a deadline; the peer that takes nothing for so long is gone for us."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if not await self._write(event.data):
            await self.protocol.handle(Closed())

    async def _write(self, data: bytes) -> bool:
        async with self.send_lock:
            try:
                with trio.fail_after(self._site.config.write_timeout):
                    await self.stream.send_all(data)
            except trio.TooSlowError:
                await trio.aclose_forcefully(self.stream)
                return False
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
        return True
