"""The composition root: settings in, a running server out.

`Server` holds the parts of one process; `run` is what the command line calls. Nothing else in the
project reads the settings to build something.
"""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
import trio
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from syncbridge import kernels
from syncbridge.buckets import TokenBuckets
from syncbridge.errors import StoreError
from syncbridge_core.hub import ENCODING_JSON, ENCODING_PROTOBUF, Hub, HubLimits
from syncbridge_server import observability
from syncbridge_server.admin.administration import Administration
from syncbridge_server.auth.assembly import Authentication, build_authentication
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.auth.revocation import Rule
from syncbridge_server.collector import Collector
from syncbridge_server.gateway.gateway import Gateway, node_name
from syncbridge_server.http.admin import AdminRoutes
from syncbridge_server.http.auth import AuthRoutes
from syncbridge_server.http.calls import CallRoutes
from syncbridge_server.http.conflicts import ConflictRoutes
from syncbridge_server.http.dead_letters import DeadLetterRoutes
from syncbridge_server.http.devices import DeviceRoutes
from syncbridge_server.http.documents import DocumentRoutes
from syncbridge_server.http.handoff import HandoffRoutes
from syncbridge_server.http.health import Health
from syncbridge_server.http.metrics import metrics_routes
from syncbridge_server.http.recordings import RecordingRoutes
from syncbridge_server.http.sessions import SessionRoutes
from syncbridge_server.http.support.compression import CompressAnswers
from syncbridge_server.http.support.cors import CrossOrigin
from syncbridge_server.http.support.direct import DirectRoutes
from syncbridge_server.http.support.middleware import RequestMiddleware
from syncbridge_server.http.support.problem import exception_handlers
from syncbridge_server.http.support.ratelimit import RateLimit
from syncbridge_server.http.support.segments import EncodedSlashes
from syncbridge_server.http.users import UserRoutes
from syncbridge_server.http.voice import VoiceRoutes
from syncbridge_server.http.voice_operations import VoiceOperationRoutes
from syncbridge_server.http.webhooks import WebhookRoutes
from syncbridge_server.isolation import Isolation, IsolationMetrics
from syncbridge_server.listener.bridge import explain_refusal, websocket_bridge
from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_PROTOBUF,
    ListenerConfig,
)
from syncbridge_server.listener.serve import serve
from syncbridge_server.listener.shutdown import run_until_stopped
from syncbridge_server.listener.workers import (
    Inheritance,
    Spawner,
    Supervisor,
    bind_for_workers,
    inheritance,
)
from syncbridge_server.openapi.describe import Answer, Description
from syncbridge_server.origins import Origins
from syncbridge_server.proxies import TrustedProxies
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.readiness import Readiness
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.embedded import EmbeddedRedis
from syncbridge_server.redis.link.urls import connection_url
from syncbridge_server.redis.sessions_aside import SessionsAside, cold_index, presence_index
from syncbridge_server.redis.stores.calls import RedisCalls
from syncbridge_server.redis.stores.freezer import Freezer
from syncbridge_server.redis.stores.store import RedisStore
from syncbridge_server.settings import Settings
from syncbridge_server.voice.assembly import Voice, build_voice, kept_up, new_inbox
from syncbridge_server.voice.attachment import Attachment, attach
from syncbridge_server.voice.figures.webhook_metrics import WebhookMetrics
from syncbridge_server.voice.rooms.handover import Handover

log = structlog.get_logger("server")

SUBPROTOCOLS = {SUBPROTOCOL_JSON: ENCODING_JSON, SUBPROTOCOL_PROTOBUF: ENCODING_PROTOBUF}

PROBES = ("/health", "/health/live", "/health/ready", "/metrics")
"""What is answered when every bound is reached: else whoever restarts us would do so then."""

CALLS_SECONDS = 3.0
"""How long a start waits until the calls under way are known."""

WORKER_REDIS = "SYNCBRIDGE_WORKER_REDIS"
"""Where a worker finds the embedded Redis that its parent has started."""


class Server:
    """The parts of one process. Use `Server.open`."""

    def __init__(
        self,
        settings: Settings,
        io: RedisIO,
        bus: RedisBus,
        node: str,
        registry: CollectorRegistry,
        isolated: IsolationMetrics,
        readiness: Readiness,
        voice: Voice | None = None,
    ) -> None:
        limits = settings.limits()
        self.settings = settings
        self.io = io
        self.bus = bus
        self.readiness = readiness
        self.voice = voice
        self.store = RedisStore(io, node, limits, settings.freeze_after)
        self.letters = voice.inbox if voice is not None else new_inbox(settings, io, bus, node)
        self.freezer = Freezer(
            io,
            node,
            after=settings.freeze_after,
            least=settings.freeze_bytes,
            isolation=self._isolation("freeze", cold_index, isolated),
        )
        self.auth: Authentication = build_authentication(settings, io, bus)
        self.hub = Hub(hub_limits(settings))
        self.gateway = Gateway(
            self.hub,
            self.store,
            bus,
            verify=self.auth.authenticator.verify,
            limits=limits,
            node=node,
            max_connections=settings.max_connections,
            patience=2.5 * settings.store_deadline,
            isolation=self._isolation("presence", presence_index, isolated),
        )
        self.calls: Attachment | None = None
        if voice is not None:
            self.calls = attach(self.gateway, voice.desk, bus)
            voice.worker.on_speaking(self.calls.speaking.report_now)
            observability.register_reading(registry, "syncbridge_voice_sockets", self.calls.figures)
        self.administration = Administration(
            self.gateway, io, bus, update_seconds=settings.admin_update
        )
        self.auth.revocations.on_revoke(self._revoked)
        self.listener = listener_config(settings)
        self.bounds = Bounds(self.listener)
        self.registry = registry
        observability.register_hub(self.registry, self.hub)
        self.listener.origins.register(registry)
        observability.register_store(self.registry, io)
        observability.register_readiness(self.registry, readiness)
        observability.register_reading(self.registry, "syncbridge_cold", self._cold_sessions)
        observability.register_reading(self.registry, "syncbridge_listener", self._listener_figures)
        self.app = self._application()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, redis_url: str) -> AsyncIterator["Server"]:
        """Connect to Redis and build the parts; everything is released at the end."""
        node = node_name()
        io = RedisIO(redis_url, deadline=settings.store_deadline, max_commands=settings.store_queue)
        async with io.running():
            bus = RedisBus(io, node)
            registry = observability.new_registry()
            isolated = IsolationMetrics(registry)
            async with (
                bus.running(),
                Readiness(io, bus).running() as readiness,
                build_voice(settings, io, bus, node, registry, isolated) as voice,
            ):
                server = cls(settings, io, bus, node, registry, isolated, readiness, voice)
                try:
                    yield server
                finally:
                    server.hub.shutdown()

    # What /health reports

    @property
    def active_connections(self) -> int:
        """Open WebSockets."""
        return len(self.gateway.registry.connections)

    @property
    def store_connected(self) -> bool:
        """Whether Redis answers."""
        return self.io.connected

    @property
    def store_reason(self) -> str:
        """Why a write would not be stored or a message not arrive, or empty."""
        return self.readiness.reason

    @property
    def draining(self) -> bool:
        """Whether a stop has begun."""
        return self.gateway.draining

    @property
    def kernel(self) -> str:
        """Which document kernel runs."""
        return kernels.IMPLEMENTATION

    async def run(
        self,
        shutdown_trigger: Callable[[], Awaitable[None]],
        sockets: Any = None,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `shutdown_trigger` returns and everything has been seen off."""
        with suppress(StoreError):
            await self.auth.revocations.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.auth.authenticator.run)
            nursery.start_soon(self.gateway.run)
            nursery.start_soon(self.administration.run)
            if self.settings.freeze_after:
                nursery.start_soon(self.freezer.run)
            if self.voice is not None:
                nursery.start_soon(self.voice.run)
            if self.calls is not None:
                nursery.start_soon(kept_up, "sockets", self.calls.run)
                with trio.move_on_after(CALLS_SECONDS):
                    await self.calls.board.loaded.wait()
            await serve(
                self.app,
                self.listener,
                self.gateway,
                shutdown_trigger=shutdown_trigger,
                sockets=sockets,
                drain=partial(
                    self.gateway.drain, self.listener.reconnect_spread, self.settings.drain
                ),
                on_stop=self._stopping,
                bounds=self.bounds,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

    def _listener_figures(self) -> list[tuple[str, float]]:
        return [*self.bounds.figures(), ("sockets_evicted_total", self.gateway.evicted)]

    def _isolation(
        self, kind: str, index_of: Callable[[str], str], isolated: IsolationMetrics
    ) -> Isolation:
        """In which a chore on sessions is done, and where those go on which it fails."""
        aside = SessionsAside(self.io, self.letters, kind, index_of)
        self.letters.register(aside)
        return Isolation(aside, isolated)

    def _cold_sessions(self) -> list[tuple[str, float]]:
        freezer = self.freezer
        return [
            ("frozen_total", freezer.frozen),
            ("frozen_state_bytes_total", freezer.state_bytes),
            ("frozen_packed_bytes_total", freezer.packed_bytes),
            ("thawed_total", self.store.thawed),
        ]

    def _revoked(self, rule: Rule) -> None:
        closed = self.gateway.close_revoked(rule.matches)
        self.administration.inform(
            "revoked", f"tokens of a {rule.kind} were revoked", kind=rule.kind, closed=closed
        )

    def _stopping(self) -> None:
        self.gateway.draining = True
        log.info("Draining", connections=self.active_connections)
        self.administration.notice(
            "draining", "a node stops", node=self.gateway.node, connections=self.active_connections
        )

    def _application(self) -> ASGIApp:
        self.routes = self._routes()
        starlette = Starlette(routes=self.routes, exception_handlers=exception_handlers)
        routes = DirectRoutes(starlette, exception_handlers)
        app: ASGIApp = CompressAnswers(EncodedSlashes(routes))
        settings = self.settings
        if settings.rate_limit_enabled:
            buckets = TokenBuckets(settings.requests_per_second, settings.request_burst)
            webhooks = TokenBuckets(settings.webhooks_per_second, settings.webhook_burst)
            app = RateLimit(app, buckets, self.auth.authenticator.verify, webhooks=webhooks)
        return RequestMiddleware(
            app,
            observability.http_metrics(self.registry),
            access_log=settings.access_log,
            trusted_proxies=settings.trusted_proxies,
            cors=CrossOrigin(self.listener.origins, self.routes),
        )

    def _handover(self) -> Handover | None:
        """What lets a call go along with a session that is handed over."""
        if self.voice is None or self.calls is None:
            return None
        voice = self.voice
        return Handover(self.calls.board, voice.desk, voice.tokens, voice.metrics.calls)

    def _routes(self) -> list[BaseRoute]:
        bearer = self.auth.bearer
        sockets = WebSockets(self.gateway, self.listener)
        return [
            # Asked for most, so looked at first.
            *SessionRoutes(self.gateway, self.store, bearer).routes(),
            *Health(self, self.settings.session_ttl).routes(),
            *metrics_routes(self.registry),
            *AuthRoutes(self.auth, self.settings.id_bytes).routes(),
            *ConflictRoutes(self.gateway, self.store, bearer).routes(),
            *DeviceRoutes(self.gateway, self.store, bearer).routes(),
            *HandoffRoutes(
                self.gateway,
                self.store,
                self.io,
                bearer,
                self._handover(),
                life=self.settings.handoff_ttl,
                reread=self.settings.handoff_reread,
            ).routes(),
            *UserRoutes(self.store, bearer, self.settings.id_bytes).routes(),
            *AdminRoutes(self.administration, bearer, self.settings.message_bytes).routes(),
            *CallRoutes(
                RedisCalls(self.io, self.settings.call_ttl, self.settings.call_details_bytes),
                self.administration,
                bearer,
                self.settings.call_details_bytes,
            ).routes(),
            *self._voice_routes(bearer),
            *self._webhook_routes(bearer),
            *DocumentRoutes(self.settings.dev).routes(),
            WebSocketRoute(self.listener.path, sockets),
            Route(self.listener.path, sockets, methods=["GET"]),
        ]

    def _voice_routes(self, bearer: BearerAuth) -> list[BaseRoute]:
        """Voice channels; without a provider all of it is answered 503."""
        settings, buckets = self.settings, None
        if settings.rate_limit_enabled:
            rate = settings.voice_tokens_per_minute / 60
            buckets = TokenBuckets(rate, settings.voice_token_burst)
        return [
            *VoiceRoutes(self.voice, bearer, settings.id_bytes, buckets).routes(),
            *VoiceOperationRoutes(self.voice, bearer, settings).routes(),
        ]

    def _webhook_routes(self, bearer: BearerAuth) -> list[BaseRoute]:
        """What a voice provider tells us; without one, nothing of it is believed."""
        voice = self.voice
        provider = voice.provider if voice is not None else None
        inbox = voice.inbox if voice is not None else None
        metrics = voice.webhook_metrics if voice is not None else WebhookMetrics()
        metrics.register(self.registry)
        return [
            *WebhookRoutes(provider, inbox, metrics, self.settings.webhook_bytes).routes(),
            *DeadLetterRoutes(self.letters, bearer).routes(),
            *RecordingRoutes(voice.recordings if voice is not None else None, bearer).routes(),
        ]


class WebSockets:
    """ASGI application of the WebSocket path, for what does not come through our listener.

    `GET` with `Upgrade: websocket` opens a WebSocket. Its messages are described by
    `/schemas/messages.json`.
    """

    description = Description(
        "Open a WebSocket",
        answers={101: Answer("The connection speaks WebSocket from here on.", None)},
        errors=(400, 403, 404, 426, 503),
        public=True,
        path={},
    )

    def __init__(self, gateway: Gateway, config: ListenerConfig) -> None:
        self._gateway = gateway
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await websocket_bridge(scope, receive, send, self._gateway, self._config)
        else:
            await explain_refusal(scope, receive, send, self._gateway, self._config)


def hub_limits(settings: Settings) -> HubLimits:
    """The hub's bounds, out of the settings."""
    limited = settings.rate_limit_enabled
    return HubLimits(
        max_message=settings.message_bytes,
        conflate_bytes=settings.conflate_bytes,
        max_outbox=settings.outbox_bytes,
        ping_interval=round(settings.heartbeat_interval * 1000),
        idle_timeout=round(settings.presence_timeout * 1000),
        close_timeout=round(settings.close_timeout * 1000),
        rate_per_second=settings.messages_per_second if limited else 0,
        rate_burst=settings.message_burst,
        flood_messages=settings.flood_messages,
        max_connections=settings.max_connections,
        deflate_from=settings.ws_compression_min_bytes,
    )


def listener_config(settings: Settings) -> ListenerConfig:
    """The listener's configuration, out of the settings."""
    return ListenerConfig(
        binds=tuple(str(address) for address in settings.listen_addresses()),
        origins=Origins(settings.origins, loopback=settings.dev),
        subprotocols=MappingProxyType(SUBPROTOCOLS),
        drain_timeout=settings.drain,
        reconnect_spread=settings.reconnect_spread,
        compression=settings.ws_compression,
        http2_prior_knowledge=settings.http2_prior_knowledge,
        root_path=settings.http_root_path,
        max_header_bytes=settings.http_header_bytes,
        max_header_count=settings.http_header_count,
        max_target_bytes=settings.http_target_bytes,
        max_body_bytes=max(settings.http_max_body, settings.snapshot_bytes),
        max_requests=settings.http_requests,
        max_connections=settings.http_connections,
        max_handshakes=settings.http_handshakes,
        max_probes=settings.http_reserve,
        probe_paths=frozenset(
            root + path for path in PROBES for root in {"", settings.http_root_path.rstrip("/")}
        ),
        header_timeout=settings.http_header_timeout,
        body_timeout=settings.http_body_timeout,
        min_body_rate=settings.http_body_rate,
        keep_alive_timeout=settings.http_keep_alive,
        certfile=settings.tls_cert or None,
        keyfile=settings.tls_key or None,
        proxies=TrustedProxies(settings.trusted_proxies),
    )


def run(settings: Settings, dev: bool = False) -> None:
    """Serve until a signal; ends the process with its exit status."""
    worker = inheritance()
    with redis_for(settings, worker) as address:
        os.environ[WORKER_REDIS] = address
        url = connection_url(address, settings.redis_password.get_secret_value(), settings.redis_db)
        if worker is None and settings.workers > 1:
            status = supervise(settings)
        else:
            status = trio.run(partial(serve_process, settings, url, worker))
    sys.exit(status)


@contextmanager
def redis_for(settings: Settings, worker: Inheritance | None) -> Iterator[str]:
    """The URL of Redis; the embedded one runs meanwhile where none is configured."""
    if settings.redis_addr:
        yield settings.redis_url()
    elif worker is not None:
        yield os.environ[WORKER_REDIS]
    else:
        redis = EmbeddedRedis(Path(settings.data_dir))
        try:
            yield redis.start()
        finally:
            redis.stop()


async def serve_process(settings: Settings, url: str, worker: Inheritance | None) -> int:
    """One serving process, from start to exit status."""

    async def main(shutdown_trigger: Callable[[], Awaitable[None]]) -> None:
        async with Server.open(settings, url) as server, trio.open_nursery() as nursery:
            nursery.start_soon(Collector().run)
            await server.run(shutdown_trigger, worker.sockets if worker else None)
            nursery.cancel_scope.cancel()

    return await run_until_stopped(main, worker.lifeline if worker else None)


def supervise(settings: Settings) -> int:
    """Start and watch the workers; returns the exit status."""
    config = listener_config(settings)
    spawner = Spawner([sys.executable, "-m", "syncbridge_server", *sys.argv[1:]])
    try:
        sockets = bind_for_workers(config, settings.workers)
        return Supervisor(spawner, sockets, drain_timeout=settings.drain).run()
    finally:
        spawner.close()
