"""What the listener needs from the rest: a sink for upgraded sockets, and its settings.

The listener ends where a WebSocket begins. It answers the opening handshake and gives the
descriptor away; who reads it afterwards is not its concern.
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
"""Key of an ASGI scope: a function that the application calls with the name of the user who sends
the request, once that is proven. What the request holds then counts for no address any more."""
FIELDS = "syncbridge.fields"
"""Key of an ASGI scope: the first value of each header field, by its name in lower case. It is not
to be changed."""
ARRIVED = "syncbridge.arrived"
"""Key of an ASGI scope: a function that returns the whole body of the request, if all of it is here
and nothing was received yet; else None, and then it is to be received."""
ANSWER = "syncbridge.answer"
"""Key of an ASGI scope: an `Answerer`, which may be called once, in the place of `send`."""

Answerer = Callable[[int, list[tuple[bytes, bytes]], bytes], Awaitable[None] | None]
"""Sends a whole answer: its status, its headers, which it may add to, and its body. What it returns
is to be awaited, if it is anything. It adds `PROTECTION` itself."""

ASGIApplication = Callable[..., Awaitable[None]]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a handshake is not accepted, as an HTTP client is told (RFC 9457).

    Args:
        status: HTTP status. code: word for programs. detail: sentence for people, no secrets.
        retry_after: seconds after which trying again makes sense, or None.
    """

    status: int
    code: str
    detail: str
    retry_after: int | None = None


class SocketSink(Protocol):
    """Takes connected WebSockets. Called on the Trio thread; must not block."""

    def admit(self, client: str) -> Refusal | None:
        """None when another connection from this address is welcome, asked before the 101."""

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
        """Take a non-blocking socket whose handshake is answered; return its connection id.

        The sink calls `sock.detach()` and owns the descriptor from then on.

        Args:
            encoding: value of the negotiated subprotocol in `ListenerConfig.subprotocols`.
            client: address of the client, without port; `unix` for a unix socket.
            initial: bytes that came after the handshake, part of the first frames.
            bridged: the other end is an ASGI server, which owns pings and pongs.
            deflate: permessage-deflate was agreed on, without context takeover.
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
        origins: the web pages that are let in. Requests without Origin do not come from a browser
            page and are not judged by it.
        subprotocols: name → encoding, those that may be agreed on.
        compression: whether permessage-deflate may be agreed on.
        default_encoding: of a client that offered no subprotocol that is known.
        http2_prior_knowledge: whether a plain connection may begin with the preface of HTTP/2.
        root_path: where a proxy has mounted the application (ASGI `root_path`).
        max_header_bytes: bound of a request head; above it 431.
        max_header_count: bound of its fields; above it 431.
        max_target_bytes: bound of its target; above it 414.
        max_body_bytes: bound of a request body; above it 413.
        max_requests: requests that the application works on at the same time; above it the oldest
            whose body is still arriving gives way, or the new one is answered 503.
        header_timeout: for a request head, and for a TLS handshake.
        body_timeout: a body may pause for so long, and must come, over that time, at
            min_body_rate: bytes a second.
        write_timeout: a peer that takes none of our bytes for so long is dropped.
        keep_alive_timeout: an HTTP connection may be idle for so long between requests.
        drain_timeout: what a graceful stop may take before the rest is cut off.
        reconnect_spread: window over which clients are asked to come back after a stop.
        max_connections: HTTP and TLS connections at the same time; above it the oldest that waits
            for its client gives way, or the new one is answered 503. WebSockets on plain TCP are
            bounded by the sink.
        proxies: whose X-Forwarded-For names the client.
        max_handshakes: connections whose first request is still arriving; above it the oldest give
            way. It also bounds the refused ones that have not read the refusal.
        probe_paths: what is answered from the reserve when every other bound is reached.
        max_probes: the reserve, in connections and again in requests.
        on_refused: told what was not accepted, from whom ("" when that is not known), and where:
            `handshake`, `connection` before there was a request, or `http`: a request that
            the application was not asked for, or could not answer.
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
        """`path` as a request has it: proxies pass `root_path` on, or strip it."""
        return frozenset((self.path.encode(), (self.root_path + self.path).encode()))
