"""Accept connections and hand each to the stack that its first bytes select.

Theory of operation. The accept loop takes up to `BATCH` connections a wake-up without blocking.
Most clients send their request with or right after the last packet of the TCP handshake,
so the head has usually arrived: the upgrade is then parsed, answered and adopted at once, without a
task. A connection whose head is incomplete gets a task until it is routed, with one deadline for
all of that. Tasks and served connections are counted and bounded; at the bound the oldest one that
waits for its client gives way to the new one (`capacity`). If none waits, the answer is 503 and the
connection is closed.

Without descriptors the listening socket stays readable, and a loop that only retries would spin.
The loop backs off, from 50 ms to 1 s, logs it once, and evicts waiting connections.
"""

import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping

import trio

from syncbridge_server.listener.capacity import FORWARDED, RESERVE_SECONDS, Bounds, Occupant
from syncbridge_server.listener.contract import ListenerConfig, Refusal, SocketSink
from syncbridge_server.listener.response import (
    NO_HEADERS,
    refusal_response,
    switching_headers,
    to_http1,
)
from syncbridge_server.listener.sniff import SniffResult, sniff
from syncbridge_server.listener.upgrade import (
    Agreement,
    UpgradeRequest,
    client_of,
    glance,
    negotiate,
)

BATCH = 64
BACKOFF_SECONDS = (0.05, 1.0)
LINGER_SECONDS = 1.0
LINGER_BYTES = 262_144

_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_FATAL = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})

BUSY = Refusal(503, "overloaded", "too many connections; try again", 1)
TOO_LARGE = Refusal(431, "headers_too_large", "the request head is too large")
TIMED_OUT = Refusal(408, "request_timeout", "the request head did not arrive in time")
GAVE_WAY = Refusal(503, "overloaded", "the request arrived too slowly while the server was full", 1)
NOT_TLS = Refusal(400, "tls_required", "this port speaks TLS: use https or wss")

logger = logging.getLogger("syncbridge.listener")

Handler = Callable[[socket.socket, bytes, Occupant], Awaitable[None]]


class Acceptor:
    """Accepts the connections of one process.

    Args:
        http, tls: serve a connection, given the bytes already read; they own its socket. `tls` is
            None on a plain listener.
        nursery: where connection tasks live.
        bounds: what may be open at once.
    """

    def __init__(
        self,
        config: ListenerConfig,
        sink: SocketSink,
        nursery: trio.Nursery,
        http: Handler,
        tls: Handler | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._config = config
        self._path = config.path.encode()
        self._sink = sink
        self._nursery = nursery
        self._http = http
        self._tls = tls
        self._bounds = bounds or Bounds(config)
        self.secure = tls is not None

    async def run(self, listener: socket.socket) -> None:
        """Accept from a non-blocking listening socket until cancelled."""
        pause = 0.0
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                self.accept_batch(listener)
                pause = 0.0
            except OSError as error:
                if error.errno not in _CAPACITY:
                    raise
                if not pause:
                    logger.error("accept failed, backing off: %s", error)
                self._bounds.relieve(BATCH)
                pause = min(max(BACKOFF_SECONDS[0], pause * 2), BACKOFF_SECONDS[1])
                await trio.sleep(pause)

    def accept_batch(self, listener: socket.socket) -> bool:
        """Accept up to BATCH connections; False when none is left. Clients that are gone are
        skipped. Raises OSError only when the process is at its limits or the listener is broken."""
        for _ in range(BATCH):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _CAPACITY or error.errno in _FATAL:
                    raise
                continue
            try:
                self._greet(sock, address)
            except OSError:
                sock.close()
            except Exception:
                logger.exception("connection failed")
                sock.close()
        return True

    def _greet(self, sock: socket.socket, address: object) -> None:
        """Route a new connection at once if its bytes have arrived, else wait in a task."""
        sock.setblocking(False)
        client = "unix"
        if isinstance(address, tuple):
            client = address[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            data = sock.recv(self._config.max_header_bytes)
        except BlockingIOError:
            data = None
        if data == b"":
            sock.close()
        elif data is None or not self._route(sock, client, data):
            self._wait(sock, client, data or b"")

    def _wait(self, sock: socket.socket, client: str, data: bytes) -> None:
        occupant = Occupant(holder=self._bounds.holder(client))
        if not occupant.take(self._bounds.handshakes):
            self._refuse(sock, BUSY, glance(data))
            return
        occupant.scope.deadline = trio.current_time() + self._config.header_timeout
        occupant.wait()
        self._nursery.start_soon(self._await_head, occupant, sock, client, data)

    def hurry(self, seconds: float) -> None:
        """Give connections that are not routed yet at most `seconds` from now."""
        deadline = trio.current_time() + seconds
        for occupant in self._bounds.handshakes.waiting:
            occupant.scope.deadline = min(occupant.scope.deadline, deadline)

    async def _await_head(
        self, occupant: Occupant, sock: socket.socket, client: str, data: bytes
    ) -> None:
        """Read until the connection is routed, closed, out of time, or evicted."""
        settled = False
        try:
            with occupant.scope as scope:
                while not settled:
                    await trio.lowlevel.wait_readable(sock)
                    more = sock.recv(self._config.max_header_bytes)
                    if not more:
                        break
                    data += more
                    settled = self._route(sock, client, data)
            if scope.cancelled_caught and data:
                self._refuse(sock, GAVE_WAY if occupant.evicted else TIMED_OUT, glance(data))
                settled = True
        except OSError:
            pass
        except Exception:
            logger.exception("connection failed")
        finally:
            occupant.leave_all()
            if not settled:
                sock.close()

    def _route(self, sock: socket.socket, client: str, data: bytes) -> bool:
        """Route a connection by `data`; False when more bytes are needed.

        On True the socket has another owner or is closed.
        """
        verdict, request, initial = sniff(data, self._path, self._config.max_header_bytes)
        if self._tls is not None:
            self._route_secure(sock, client, verdict, data)
        elif verdict is SniffResult.NEED_MORE:
            return False
        elif verdict is SniffResult.NATIVE_UPGRADE:
            assert request is not None
            self.upgrade(sock, client, request, initial)
        elif verdict is SniffResult.HTTP:
            self._serve(self._http, sock, client, data)
        elif verdict is SniffResult.TOO_LARGE:
            self._refuse(sock, TOO_LARGE, glance(data))
        else:
            sock.close()
        return True

    def _route_secure(
        self, sock: socket.socket, client: str, verdict: SniffResult, data: bytes
    ) -> None:
        assert self._tls is not None
        if verdict is SniffResult.TLS:
            self._serve(self._tls, sock, client, data)
        else:
            self._refuse(sock, NOT_TLS)

    def _serve(self, handler: Handler, sock: socket.socket, client: str, data: bytes) -> None:
        occupant = Occupant(holder=self._bounds.holder(client))
        if not occupant.take(self._bounds.connections):
            occupant.reserved = True
            if not occupant.take(self._bounds.reserve):
                if handler is self._tls:
                    sock.close()  # what is not TLS would tell it nothing
                else:
                    self._refuse(sock, BUSY, glance(data))
                return
            occupant.scope.deadline = trio.current_time() + RESERVE_SECONDS
        self._nursery.start_soon(self._run, handler, sock, data, occupant)

    async def _run(
        self, handler: Handler, sock: socket.socket, data: bytes, occupant: Occupant
    ) -> None:
        """Run one connection; its failure does not end the others."""
        try:
            with occupant.scope:
                await handler(sock, data, occupant)
        except* Exception:
            logger.exception("connection failed")
        finally:
            occupant.leave_all()
            sock.close()

    def upgrade(
        self,
        sock: socket.socket,
        client: str,
        request: UpgradeRequest,
        initial: bytes,
        on_known: Callable[[], None] | None = None,
    ) -> None:
        """Answer a handshake and hand the socket to the sink, or refuse and close it."""
        if FORWARDED in request.headers:
            self._bounds.forwards(client)
        client = client_of(client, request.headers, self._config)
        verdict = negotiate(request, self._config)
        if isinstance(verdict, Agreement):
            verdict = self._sink.admit(client) or verdict
        if isinstance(verdict, Refusal):
            self._refuse(sock, verdict, request.headers, client)
            return
        given_id = request.headers.get(b"x-request-id", b"")
        answer = to_http1(101, switching_headers(verdict, given_id))
        try:
            if sock.send(answer) != len(answer):
                raise OSError(errno.ENOBUFS, "the socket's send buffer cannot hold the handshake")
            self._sink.adopt(
                sock,
                encoding=verdict.encoding,
                client=client,
                initial=initial,
                bridged=False,
                deflate=verdict.compression is not None,
                on_known=on_known,
            )
        except OSError as error:
            logger.info("upgraded connection lost: %s", error)
            sock.close()

    def _refuse(
        self,
        sock: socket.socket,
        refusal: Refusal,
        headers: Mapping[bytes, bytes] = NO_HEADERS,
        client: str = "",
    ) -> None:
        """Send the refusal, and close once the peer has had time to read it."""
        self._config.on_refused(refusal, client, "handshake" if client else "connection")
        try:
            sock.send(to_http1(*refusal_response(refusal, headers, self._config.origins)))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        occupant = Occupant()
        occupant.take(self._bounds.farewells)
        occupant.wait()
        self._nursery.start_soon(self._see_off, occupant, sock)

    async def _see_off(self, occupant: Occupant, sock: socket.socket) -> None:
        try:
            with occupant.scope:
                await linger(sock)
        finally:
            occupant.leave_all()
            sock.close()


async def linger(sock: socket.socket) -> None:
    """Discard input until the peer closes: closing with unread input would reset the connection
    and could destroy our answer (RFC 9112 section 9.6). Bounded in time and bytes."""
    budget = LINGER_BYTES
    try:
        with trio.move_on_after(LINGER_SECONDS):
            while budget > 0:
                await trio.lowlevel.wait_readable(sock)
                data = sock.recv(65_536)
                if not data:
                    break
                budget -= len(data)
    except OSError:
        pass
    finally:
        sock.close()
