"""What the listener needs from the server: a sink for upgraded sockets, and settings.

The listener ends where a WebSocket begins. It answers the opening handshake and hands the
descriptor over; it does not know who reads it afterwards.
"""

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from syncbridge_server.origins import Origins
from syncbridge_server.proxies import TrustedProxies

SUBPROTOCOL_JSON = "syncbridge.json.v1"
SUBPROTOCOL_PROTOBUF = "syncbridge.proto.v1"

KNOWN = "syncbridge.known"
"""Key of an ASGI scope: a function that the application calls with the user's name once the user is
authenticated. The request's places then no longer count for an address."""
FIELDS = "syncbridge.fields"
"""Key of an ASGI scope: the first value of each header field, by its name in lower case.
Read-only."""
ARRIVED = "syncbridge.arrived"
"""Key of an ASGI scope: a function that returns the whole body, if all of it has arrived and
`receive` was not called yet; else None, and the application calls `receive`."""
ANSWER = "syncbridge.answer"
"""Key of an ASGI scope: an `Answerer`, which may be called once, instead of `send`."""

Answerer = Callable[[int, list[tuple[bytes, bytes]], bytes], Awaitable[None] | None]
"""Sends a whole answer: its status, its headers, which it may add to, and its body. The result is
awaitable or None. It adds `PROTECTION` itself."""

ASGIApplication = Callable[..., Awaitable[None]]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a handshake is refused, as a problem document (RFC 9457).

    Args:
        status: HTTP status. code: error code. detail: a sentence for people, without secrets.
        retry_after: seconds until a retry makes sense, or None.
    """

    status: int
    code: str
    detail: str
    retry_after: int | None = None


class SocketSink(Protocol):
    """Takes connected WebSockets. Called on the Trio thread; must not block."""

    def admit(self, client: str) -> Refusal | None:
        """None to admit a connection from this address; called before the 101."""

    def adopt(
        self,
        sock: socket.socket,
        *,
        encoding: int,
        client: str,
        initial: bytes,
        bridged: bool,
        deflate: bool,
        on_known: Callable[[], None] | None = None,
    ) -> int:
        """Take a non-blocking socket after the 101; returns its connection id.

        The sink calls `sock.detach()` and owns the descriptor from then on.

        Args:
            encoding: value of the negotiated subprotocol in `ListenerConfig.subprotocols`.
            client: address of the client, without port; `unix` for a unix socket.
            initial: bytes after the handshake, a part of the first frames.
            bridged: the other end is an ASGI server, which handles pings and pongs.
            deflate: permessage-deflate was negotiated, without context takeover.
            on_known: called once the client has authenticated.

        Raises:
            OSError: the sink is full or closed; the socket still belongs to the caller.
        """


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """Settings of one listener. Times in seconds, sizes in bytes.

    Args:
        binds: `host:port`, `:port`, `[v6]:port`, `unix:/path` or `fd://n`.
        unix_mode: permissions of the files of unix sockets; None: those that the umask leaves.
        path: the one path where WebSockets are served.
        origins: the web pages that may connect. Requests without Origin come from no browser page
        and are not checked.
        subprotocols: name → encoding; those that may be negotiated.
        compression: whether permessage-deflate may be negotiated.
        default_encoding: of a client that offers no known subprotocol.
        http2_prior_knowledge: whether a plain connection may begin with the preface of HTTP/2.
        root_path: where a proxy has mounted the application (ASGI `root_path`).
        max_header_bytes: longest request head; 431 above it.
        max_header_count: most header fields; 431 above it.
        max_target_bytes: longest target; 414 above it.
        max_body_bytes: longest request body; 413 above it.
        max_requests: concurrent requests; above it the oldest whose body is still arriving gives
        way, or the new one gets 503.
        header_timeout: for a request head, and for a TLS handshake.
        body_timeout: a body may pause for this long, and over that time must arrive at
        `min_body_rate` bytes a second.
        write_timeout: a peer that reads nothing for this long is dropped.
        keep_alive_timeout: longest idle time of an HTTP connection between requests.
        drain_timeout: longest graceful stop, before the rest is cut off.
        reconnect_spread: window over which clients are asked to reconnect after a stop.
        max_connections: concurrent HTTP and TLS connections; above it the oldest that waits for its
            client gives way, or the new one gets 503. WebSockets on plain TCP are bounded by the
            sink.
        proxies: trusted proxies, whose X-Forwarded-For names the client.
        max_handshakes: connections whose first request is still arriving; above it the oldest give
            way. It also bounds refused connections whose peers have not read the refusal.
        probe_paths: paths that the reserve answers when every other bound is reached.
        max_probes: the reserve, in connections and again in requests.
        on_refused: called with the refusal, the client ("" if unknown), and the stage: `handshake`,
        `connection` (before a request), or `http` (a request that did not reach the application, or
        that it could not answer).
    """

    binds: tuple[str, ...] = ("127.0.0.1:8080",)
    unix_mode: int | None = None
    path: str = "/ws"
    origins: Origins = field(default_factory=Origins)
    subprotocols: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({SUBPROTOCOL_JSON: 0})
    )
    compression: bool = True
    default_encoding: int = 0
    http2_prior_knowledge: bool = False
    root_path: str = ""
    max_header_bytes: int = 16_384
    max_header_count: int = 100
    max_target_bytes: int = 8_192
    max_body_bytes: int = 4_194_304
    max_requests: int = 1024
    body_timeout: float = 10.0
    min_body_rate: int = 1_024
    header_timeout: float = 10.0
    write_timeout: float = 30.0
    keep_alive_timeout: float = 75.0
    drain_timeout: float = 30.0
    reconnect_spread: float = 15.0
    backlog: int = 1024
    certfile: str | None = None
    keyfile: str | None = None
    max_connections: int = 4096
    max_handshakes: int = 1024
    probe_paths: frozenset[str] = frozenset()
    max_probes: int = 64
    on_refused: Callable[[Refusal, str, str], None] = lambda refusal, client, door: None
    proxies: TrustedProxies = field(default_factory=TrustedProxies)

    @property
    def paths(self) -> frozenset[bytes]:
        """Both forms of `path`: proxies pass `root_path` on, or strip it."""
        return frozenset((self.path.encode(), (self.root_path + self.path).encode()))
