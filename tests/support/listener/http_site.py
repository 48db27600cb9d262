"""An ASGI application over plain TCP or TLS, and a client that sends any bytes."""

import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import trio

from support.listener.listener_site import EchoSink, certificate, lifespan, port_of
from support.listener.tls_client import TlsStream, Truncated, open_tls_stream
from support.listener.ws_raw import DEADLINE
from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.serve import serve

WAYS = ("plain", "tls")
Route = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass
class Reply:
    """One response; `whole` is False when the connection ended within it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Peer:
    """A client's connection, which reads with h11 and writes whatever it is given."""

    def __init__(self, stream: trio.SocketStream | TlsStream) -> None:
        self.stream = stream
        self.left = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def half_close(self) -> None:
        await self.stream.send_eof()

    async def hang_up(self) -> None:
        await trio.aclose_forcefully(self.stream)

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        method = data.partition(b" ")[0].decode("latin-1")
        return await self.reply(method if method.isalpha() else "GET")

    async def reply(self, method: str = "GET") -> Reply:
        """The next response; interim ones count too."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        if self.left:
            parser.receive_data(self.left)
        reply: Reply | None = None
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError:
                assert reply is not None, "the connection ended without an answer"
                reply.whole = False
                return reply
            if event is h11.NEED_DATA:
                try:
                    parser.receive_data(await self._more())
                except Truncated:
                    parser.receive_data(b"")
            elif isinstance(event, h11.InformationalResponse | h11.Response):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                reply = Reply(event.status_code, headers)
                if isinstance(event, h11.InformationalResponse):
                    self.left = parser.trailing_data[0]
                    return reply
            elif isinstance(event, h11.Data):
                assert reply is not None
                reply.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert reply is not None
                self.left = parser.trailing_data[0]
                return reply
            else:
                raise AssertionError(f"the connection ended without an answer: {event!r}")

    async def _more(self) -> bytes:
        with trio.fail_after(DEADLINE):
            try:
                return bytes(await self.stream.receive_some(65_536))
            except trio.BrokenResourceError:
                return b""

    async def ended(self) -> bool:
        """Whether the server closes, and nothing else comes before; over TLS, with close_notify."""
        return self.left == b"" and await self._more() == b""


@dataclass
class HttpSite:
    """A running server. `log`: reports of the application to the test."""

    way: str
    bounds: Bounds
    port: int = 0
    log: list[Any] = field(default_factory=list)
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)
    sink: EchoSink = field(default_factory=EchoSink)
    peers: list[Peer] = field(default_factory=list)

    async def connect(self) -> Peer:
        if self.way == "tls":
            peer = Peer(await open_tls_stream(self.port, "http/1.1"))
        else:
            peer = Peer(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def ask(self, data: bytes) -> Reply:
        """The answer to bytes on a connection of their own."""
        return await (await self.connect()).ask(data)


@asynccontextmanager
async def http_site(
    way: str, routes: dict[str, Route], state: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[HttpSite]:
    """Serve `routes`, by path, on plain TCP or TLS."""
    values: dict[str, Any] = {"binds": ("127.0.0.1:0",), "drain_timeout": 5.0}
    if way == "tls":
        with tempfile.TemporaryDirectory() as folder:
            values["certfile"], values["keyfile"] = certificate(Path(folder))
            async with _serving(way, routes, state, ListenerConfig(**(values | settings))) as site:
                yield site
    else:
        async with _serving(way, routes, state, ListenerConfig(**(values | settings))) as site:
            yield site


@asynccontextmanager
async def _serving(
    way: str, routes: dict[str, Route], state: dict[str, Any] | None, config: ListenerConfig
) -> AsyncIterator[HttpSite]:
    site = HttpSite(way, bounds=Bounds(config))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"].update(state or {})
            await lifespan(receive, send)
        else:
            await routes[scope["path"]](scope, receive, send)

    async def run(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        server = partial(
            serve, app, config, site.sink, shutdown_trigger=site.stop.wait, bounds=site.bounds
        )
        await server(task_status=task_status)
        site.stopped.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.sink.run)
        site.port = port_of(await nursery.start(run))
        try:
            yield site
        finally:
            for peer in site.peers:
                await peer.hang_up()
            nursery.cancel_scope.cancel()


async def answer(send: Any, body: bytes = b"ok", status: int = 200, length: bool = True) -> None:
    """A whole response."""
    headers = [(b"content-length", b"%d" % len(body))] if length else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Any) -> bytes:
    """The whole body of a request."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        if not message["more_body"]:
            return body


def get(path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: a", *headers, "", ""]).encode()


def post(body: bytes, *headers: str, path: str = "/") -> bytes:
    """A request with a body of announced length."""
    return get(path, f"Content-Length: {len(body)}", *headers, method="POST") + body
