"""What the HTTP connections of a process share: among others, one clock for all deadlines.

A Trio timer for each wait would add noticeably to the cost of a request. So a waiting connection
only stores a number, and one task checks all of them, `TICKS` times within the shortest timeout. A
deadline is therefore enforced up to one tick late, never early.
"""

import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.contract import ASGIApplication
from syncbridge_server.listener.fast.connection import HttpConnection, Upgrade
from syncbridge_server.listener.fast.limits import LAST_REQUEST_SECONDS
from syncbridge_server.listener.fast.outbox import Outbox
from syncbridge_server.listener.fast.readiness import Readiness
from syncbridge_server.listener.fast.secure import HTTP2, SecureTransport
from syncbridge_server.listener.fast.transport import Gone, Transport
from syncbridge_server.listener.hypercorn import Site

TICKS = 4
LONGEST_TICK = 0.5

Http2Server = Callable[[Site, Transport], Awaitable[None]]


class FastHttp:
    """The HTTP/1.1 engine of one process. Fulfils `connection.Shared`.

    Attributes:
        upgrade: takes WebSocket handshakes; set it before the first connection.

    Args:
        site: what Hypercorn's connections share.
        http2: serves a connection that speaks HTTP/2 until it ends.
        app: the ASGI application itself.
        state: the lifespan's state.
    """

    upgrade: Upgrade

    def __init__(
        self, site: Site, http2: Http2Server, app: ASGIApplication, state: dict[str, Any]
    ) -> None:
        config = site.config
        shortest = min(config.keep_alive_timeout, config.header_timeout)
        self.app = app
        self.config = config
        self.state = state
        self.bounds = site.bounds
        self._readiness = Readiness()
        self._outbox = Outbox()
        self.stopping = False
        self._site = site
        self._http2 = http2
        self._tick = min(LONGEST_TICK, shortest / TICKS)
        self._connections: set[HttpConnection] = set()
        self._wake = AutoResetEvent()
        self._set_deadlines()

    def serve(self, sock: socket.socket, initial: bytes, occupant: Occupant) -> Awaitable[None]:
        """Serve one plain connection until it ends."""
        timeout = self.config.write_timeout
        return self._serve(
            Transport(self._readiness, self._outbox, sock, initial, timeout, occupant)
        )

    async def serve_secure(self, sock: socket.socket, initial: bytes, occupant: Occupant) -> None:
        """Serve one TLS connection until it ends.

        A failed or slow handshake ends it with a TLS alert.
        """
        context = self._site.certificates.context
        assert context is not None
        transport = SecureTransport(
            self._readiness,
            self._outbox,
            sock,
            initial,
            self.config.write_timeout,
            occupant,
            context,
        )
        try:
            with trio.fail_after(self.config.header_timeout) as scope:
                occupant.wait(scope)
                protocol = await transport.handshake()
        except (Gone, trio.TooSlowError):
            occupant.wait()
            await transport.end()
            return
        if protocol == HTTP2:
            await self.http2(transport)
        else:
            await self._serve(transport)

    async def http2(self, transport: Transport) -> None:
        """Serve a connection that speaks HTTP/2 until it ends."""
        await self._http2(self._site, transport)

    async def _serve(self, transport: Transport) -> None:
        """Serve HTTP/1.1 on a connection until it ends."""
        if not self._connections:
            self._set_deadlines()
            self._wake.set()
        try:
            connection = HttpConnection(self, transport)
        except OSError:
            transport.release()
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def stop(self) -> None:
        """Answer the requests that have arrived, and close idle connections."""
        self.stopping = True
        self._set_deadlines()
        for connection in self._connections:
            if connection.deadline < math.inf:
                connection.deadline = min(connection.deadline, self.idle_until)

    async def run(self) -> None:
        """Wake connections, send answers and enforce deadlines, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._readiness.run)
            nursery.start_soon(self._outbox.run)
            nursery.start_soon(self._run_clock)

    async def _run_clock(self) -> None:
        """Enforce deadlines; sleeps while there are no connections."""
        while True:
            if not self._connections:
                await self._wake.wait()
            await trio.sleep(self._tick)
            self._set_deadlines()
            now = trio.current_time()
            for connection in self._connections:
                if connection.deadline <= now:
                    connection.expire()

    def _set_deadlines(self) -> None:
        end = trio.current_time() + self._tick
        idle = LAST_REQUEST_SECONDS if self.stopping else self.config.keep_alive_timeout
        self.idle_until = end + idle
        self.head_until = end + self.config.header_timeout
