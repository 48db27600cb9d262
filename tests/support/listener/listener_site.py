"""A whole listener for tests: the real serve function, the real hub, and an echo on top.

The sink obeys a few text messages, so that a client can make the server act: `close CODE REASON`,
`abort`, `count N` (N numbered messages). Everything else comes back as it was.
"""

import datetime
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app

from syncbridge_core.hub import EVENT_CLOSED, EVENT_LIMITED, EVENT_MESSAGE, Hub, HubLimits
from syncbridge_server.listener.bridge import explain_refusal, websocket_bridge
from syncbridge_server.listener.contract import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_PROTOBUF,
    ListenerConfig,
    Refusal,
)
from syncbridge_server.listener.hypercorn import hypercorn_config
from syncbridge_server.listener.serve import serve

ASGI = Callable[..., Awaitable[None]]
LIMITS = HubLimits(rate_per_second=1_000_000, rate_burst=1_000_000, flood_messages=1_000_000)
SUBPROTOCOLS = {SUBPROTOCOL_JSON: 0, SUBPROTOCOL_PROTOBUF: 1}


def now() -> int:
    return int(trio.current_time() * 1000)


class EchoSink:
    """Sends back what comes in, and remembers how connections ended."""

    def __init__(self, limits: HubLimits = LIMITS) -> None:
        self.hub = Hub(limits)
        self.refusal: Refusal | None = None
        self.clients: list[str] = []
        self.bridged: list[bool] = []
        self.open: set[int] = set()
        self._empty: trio.Event | None = None
        self._ended, self.ended = trio.open_memory_channel[tuple[int, str]](1000)

    def admit(self, client: str) -> Refusal | None:
        self.clients.append(client)
        return self.refusal

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
        cid = self.hub.adopt(sock.fileno(), now(), encoding, initial, bridged, deflate)
        sock.detach()
        self.bridged.append(bridged)
        self.open.add(cid)
        if on_known is not None:
            on_known()  # no authentication here
        return cid

    async def run(self) -> None:
        """Serve the hub until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self.hub.fileno())
                for kind, cid, data, aux in self.hub.poll(now()):
                    self._take(kind, cid, data, aux)
                self.hub.flush()
        finally:
            self.hub.shutdown()

    def _take(self, kind: int, cid: int, data: bytes, aux: int) -> None:
        if kind == EVENT_CLOSED:
            self.open.discard(cid)
            if not self.open and self._empty is not None:
                self._empty.set()
            self._ended.send_nowait((aux, data.decode()))
        assert kind != EVENT_LIMITED
        if kind != EVENT_MESSAGE:
            return
        word, _, rest = data.partition(b" ")
        if word == b"close":
            code, _, reason = rest.decode().partition(" ")
            self.hub.close(cid, int(code), reason)
        elif word == b"abort":
            self.hub.abort(cid)
        elif word == b"count":
            for number in range(int(rest)):
                self.hub.send(cid, b"%d" % number)
        else:
            self.hub.send(cid, data)

    async def drain(self) -> None:
        """Ask every client to come back later, and wait until they are gone."""
        for cid in self.open:
            self.hub.close(cid, 1012, "server restarts")
        self.hub.flush()
        if self.open:
            self._empty = trio.Event()
            await self._empty.wait()

    async def how_ended(self) -> tuple[int, str]:
        """Code and reason of the next connection that the hub reports as gone."""
        with trio.fail_after(20):
            return await self.ended.receive()


def make_app(sink: EchoSink, config: ListenerConfig) -> ASGI:
    """An ASGI application with the bridge at /ws, and `hello` elsewhere."""

    async def app(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "websocket":
            await websocket_bridge(scope, receive, send, sink, config)
        elif scope["path"] == "/crash":
            raise RuntimeError("a bug in a route")
        elif scope["path"] == config.path:
            await explain_refusal(scope, receive, send, sink, config)
        else:
            headers = [(b"content-length", b"5")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"hello"})

    return app


async def lifespan(receive: Any, send: Any) -> None:
    for stage in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{stage}"
        await send({"type": f"lifespan.{stage}.complete"})


def certificate(folder: Path) -> tuple[str, str]:
    """Write a self-signed certificate for 127.0.0.1; return the paths of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = folder / "certificate.pem", folder / "key.pem"
    certfile.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(certfile), str(keyfile)


@dataclass
class Site:
    """Running servers. `stop` asks them to end; `ports` by kind: plain, tls, asgi."""

    sink: EchoSink
    ports: dict[str, int] = field(default_factory=dict)
    stop: trio.Event = field(default_factory=trio.Event)


def port_of(urls: list[str]) -> int:
    return int(urls[0].rpartition(":")[2])


@asynccontextmanager
async def open_site(folder: Path, *kinds: str, **settings: Any) -> AsyncIterator[Site]:
    """Run servers of the kinds `plain`, `tls` and `asgi` on one echo sink.

    `asgi` is stock Hypercorn, which reaches the sink only through the bridge.
    """
    values = {"binds": ("127.0.0.1:0",), "subprotocols": SUBPROTOCOLS, "drain_timeout": 2.0}
    config = ListenerConfig(**{**values, **settings})
    async with trio.open_nursery() as nursery:
        site = Site(EchoSink())
        nursery.start_soon(site.sink.run)
        app = make_app(site.sink, config)
        for kind in kinds:
            run = await _server(kind, app, config, folder, site)
            site.ports[kind] = port_of(await nursery.start(run))
        yield site
        nursery.cancel_scope.cancel()


async def _server(kind: str, app: ASGI, config: ListenerConfig, folder: Path, site: Site) -> Any:
    if kind == "asgi":
        hypercorn = hypercorn_config(config)
        hypercorn.bind = list(config.binds)
        hypercorn.graceful_timeout = 0.1
        wrapped = wrap_app(app, 0, "asgi")
        return partial(worker_serve, wrapped, hypercorn, shutdown_trigger=site.stop.wait)
    if kind == "tls":
        certfile, keyfile = await trio.to_thread.run_sync(certificate, folder)
        fields = {name: getattr(config, name) for name in config.__slots__}
        config = ListenerConfig(**{**fields, "certfile": certfile, "keyfile": keyfile})
    return partial(serve, app, config, site.sink, shutdown_trigger=site.stop.wait)
