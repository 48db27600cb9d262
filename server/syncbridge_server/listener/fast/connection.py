"""The requests of one connection, one after the other, in one task (RFC 9112 section 9).

A WebSocket handshake is handed over to the sink with the bytes after it. The HTTP/2 preface is
handed over to its stack, if that is configured and the preface came first. The new owner keeps the
connection. Other upgrades are ignored: no other parser ever reads from a connection on which
HTTP/1.1 has begun.

While the connection waits for a request, the engine's clock enforces its `deadline`; while the
application works, that is infinite.
"""

import logging
import math
import socket
from collections.abc import Callable
from typing import Any, Protocol

import trio
from hypercorn.utils import parse_socket_addr

from syncbridge_server.listener.accept import BUSY, GAVE_WAY
from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import (
    ANSWER,
    ARRIVED,
    KNOWN,
    ASGIApplication,
    ListenerConfig,
    Refusal,
)
from syncbridge_server.listener.fast.exchange import Exchange
from syncbridge_server.listener.fast.guard import HEAD_END, judge_part
from syncbridge_server.listener.fast.limits import (
    DRAINING,
    FAILED,
    OVERLOADED,
    TIMED_OUT,
    TURN_REQUESTS,
    Refused,
)
from syncbridge_server.listener.fast.request import (
    HeadParser,
    Request,
    handshake_of,
    make_scope,
)
from syncbridge_server.listener.fast.transport import Gone, Transport
from syncbridge_server.listener.response import refusal_response, request_id, to_http1
from syncbridge_server.listener.upgrade import UpgradeRequest, glance

_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"

logger = logging.getLogger("syncbridge.http")


Known = Callable[[], None]
Upgrade = Callable[[socket.socket, str, UpgradeRequest, bytes, Known], None]


class Shared(Protocol):
    """What a connection needs from its engine.

    Attributes:
        bounds: what may be open at once. stopping: a stop has begun.
        upgrade: takes a WebSocket handshake with its socket and the bytes after it; reports when
            its client has authenticated.
        idle_until, head_until: deadlines of a wait that begins now for a first byte, and for a
            whole head.
    """

    app: ASGIApplication
    config: ListenerConfig
    state: dict[str, Any]
    bounds: Bounds
    stopping: bool
    upgrade: Upgrade
    idle_until: float
    head_until: float

    async def http2(self, transport: Transport) -> None:
        """Serve a connection that speaks HTTP/2 until it ends."""


class HttpConnection:
    """One connection. `run` ends with it, but need not have closed the socket.

    Raises:
        OSError: it was reset meanwhile and has no address.
    """

    __slots__ = (
        "_base",
        "_client",
        "_head",
        "_occupant",
        "_parser",
        "_shared",
        "_transport",
        "deadline",
        "overdue",
        "scope",
    )

    def __init__(self, shared: Shared, transport: Transport) -> None:
        self._shared = shared
        self._transport = transport
        self._occupant = transport.occupant
        sock = transport.sock
        client = parse_socket_addr(sock.family, sock.getpeername())
        self._parser = HeadParser(shared.config)
        self._head = b""
        self.scope = trio.CancelScope()
        self.deadline = math.inf
        self.overdue = False
        self._client = client[0] if client else "unix"
        self._base = {
            "type": "http",
            "asgi": {"spec_version": "2.3", "version": "3.0"},
            "scheme": "https" if transport.secure else "http",
            "root_path": shared.config.root_path,
            "client": client,
            "server": parse_socket_addr(sock.family, sock.getsockname()),
        }

    def expire(self) -> None:
        """End the wait for a request: its time is up."""
        self.overdue = True
        self.scope.cancel()

    async def run(self) -> None:
        """Serve requests until one side has enough."""
        try:
            with self.scope:
                await self._serve()
            evicted = self._occupant.evicted and self.scope.cancelled_caught
            if (self.overdue or evicted) and self._transport.buffer:
                await self._refuse(GAVE_WAY if evicted else TIMED_OUT)
        except Refused as refused:
            await self._refuse(refused.refusal)
        except Gone:
            pass
        finally:
            self._parser.close()
            self._occupant.wait()
            await self._transport.end()

    async def _serve(self) -> None:
        answered = 0
        paths = self._shared.config.paths
        while head := await self._next_head():
            self._head = head
            if head == _PREFACE and not answered and self._knows_http2():
                self._transport.buffer = head + self._transport.buffer
                await self._shared.http2(self._transport)
                return
            request = self._parser.parse(head)
            if self._occupant.reserved and not self._is_probe(request):
                raise Refused(BUSY)
            if answered and self._shared.stopping and not self._is_probe(request):
                raise Refused(DRAINING)
            if request.upgrade and (handshake := handshake_of(request, paths)) is not None:
                await self._hand_on(handshake)
                return
            if not await self._answer(request):
                return
            self._head = b""
            answered += 1
            if answered % TURN_REQUESTS == 0 and self._transport.buffer:
                await trio.lowlevel.checkpoint()

    async def _next_head(self) -> bytes | None:
        """Read up to the end of a head; None when the client closes instead. Raises Refused."""
        transport, shared = self._transport, self._shared
        data = transport.buffer
        self.deadline = math.inf
        begun = empty_line = False
        while True:
            if data.startswith(b"\r\n") and not empty_line:  # one: RFC 9112 section 2.2
                data = data[2:]
                empty_line = True
            end = data.find(HEAD_END) + 4
            if end > 3:
                transport.buffer = data[end:]
                self.deadline = math.inf
                self._occupant.work()
                return data[:end]
            if data and data != b"\r":
                refusal = judge_part(data, shared.config)
                if refusal is not None:
                    raise Refused(refusal)
                if not begun:
                    begun = True
                    self.deadline = shared.head_until
                    self._occupant.wait(self.scope)
            elif self.deadline == math.inf:
                self.deadline = shared.idle_until
                self._occupant.wait(self.scope)
            transport.buffer = data
            more = await transport.read()
            if not more:
                return None
            data += more

    def _is_probe(self, request: Request) -> bool:
        return request.length == 0 and self._shared.bounds.is_probe(request.method, request.target)

    def _knows_http2(self) -> bool:
        """Whether the HTTP/2 preface is accepted; with TLS, ALPN has decided (RFC 9113 3.3)."""
        return self._shared.config.http2_prior_knowledge and not self._transport.secure

    async def _hand_on(self, handshake: UpgradeRequest) -> None:
        """Hand the connection to the sink, with the bytes after the handshake.

        If its bytes still pass through here, it may have to give way until its client has
        authenticated.
        """
        transport = self._transport
        await transport.settle()
        try:
            sock = transport.give()
        except OSError:
            raise Refused(OVERLOADED) from None
        initial, transport.buffer = transport.buffer, b""
        self._occupant.wait(self.scope)
        self._shared.upgrade(sock, self._client, handshake, initial, self._known)
        await transport.carry()

    def _known(self) -> None:
        """The client of a WebSocket has authenticated: its address no longer counts."""
        self._occupant.belong("")
        self._occupant.work()

    async def _answer(self, request: Request) -> bool:
        """Run the application for one request; True when another may follow."""
        shared, occupant, bounds = self._shared, self._occupant, self._shared.bounds
        address = occupant.holder
        if request.forwarded:
            address = bounds.requester(occupant, self._client, request.headers)
        body = request.length != 0
        if not bounds.admit(occupant, request.method, request.target, body, address):
            raise Refused(OVERLOADED)
        exchange = Exchange(self._transport, request, shared.config, self.scope, bounds)
        if shared.stopping or occupant.reserved:
            exchange.response.keep_alive = False
        given_id = b""
        try:
            scope = make_scope(request, self._base, shared.state)
            scope[KNOWN] = occupant.belong
            scope[ARRIVED] = exchange.arrived
            scope[ANSWER] = exchange.answer
            await shared.app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.gone:
                given_id = _id_of(request)
                logger.exception("request failed, request id %s", given_id.decode())
        finally:
            bounds.release(occupant)
        if await exchange.finish():
            return True
        await self._end(exchange, given_id or _id_of(request), request.method != "HEAD")
        return False

    async def _end(self, exchange: Exchange, given_id: bytes, body: bool) -> None:
        """End the connection with this exchange, and send the reason if that is still possible."""
        refusal = exchange.refusal or (None if exchange.gone else FAILED)
        if exchange.response.complete:
            if exchange.unread or self._transport.buffer:
                self._occupant.wait()
                await self._transport.part()
        elif exchange.response.sent or refusal is None:
            self._transport.abort()
        else:
            await self._refuse(refusal, given_id, body)

    async def _refuse(self, refusal: Refusal, given_id: bytes = b"", body: bool = True) -> None:
        asked = glance(self._head)
        if given_id:
            asked[b"x-request-id"] = given_id
        origins = self._shared.config.origins
        status, headers, document = refusal_response(refusal, asked, origins)
        self._shared.config.on_refused(refusal, self._client, "http")
        self._occupant.wait()
        try:
            await self._transport.write(to_http1(status, headers, document if body else b""))
        except Gone:
            return
        await self._transport.part()


def _id_of(request: Request) -> bytes:
    """The id of a request that the application did not answer, or a new one."""
    given = next((value for name, value in request.headers if name == b"x-request-id"), b"")
    return request_id(given)
