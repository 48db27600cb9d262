"""The composition root: settings in, a running server out.

`Server` holds the parts of one process; `run` is what the command line calls. Nothing else in the
project reads the settings to build something.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
import trio
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from syncbridge import kernels
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.integrity import check
from syncbridge.rates.buckets import TokenBuckets
from syncbridge_core.hub import Hub
from syncbridge_server import observability
from syncbridge_server.admin.administration import Administration
from syncbridge_server.admin.call_sweeper import CallMetrics, CallSweeper
from syncbridge_server.admin.gateway_metrics import GatewayMetrics
from syncbridge_server.admin.inspection import Inspection
from syncbridge_server.admin.links import Links
from syncbridge_server.auth.assembly import Authentication, build_authentication
from syncbridge_server.auth.audit import Audit
from syncbridge_server.auth.connect import build_gate
from syncbridge_server.auth.http import BearerAuth, ReadAsAdmin
from syncbridge_server.auth.refusals import Refusals
from syncbridge_server.auth.revocation import Rule
from syncbridge_server.auth.state_policy import StatePolicy
from syncbridge_server.configuration.parts import hub_limits, listener_config
from syncbridge_server.event_routes import event_routes
from syncbridge_server.events.assembly import Events
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.gateway import Gateway, node_name
from syncbridge_server.http.admin.access import AdminAccessRoutes
from syncbridge_server.http.admin.figures import AdminRoutes
from syncbridge_server.http.admin.sessions import AdminSessionRoutes
from syncbridge_server.http.auth import AuthRoutes
from syncbridge_server.http.call_export import CallExportRoutes
from syncbridge_server.http.calls import CallRoutes, tell_state
from syncbridge_server.http.conflicts import ConflictRoutes
from syncbridge_server.http.dead_letters import DeadLetterRoutes
from syncbridge_server.http.devices import DeviceRoutes
from syncbridge_server.http.documents import DocumentRoutes
from syncbridge_server.http.handoff import HandoffRoutes
from syncbridge_server.http.health import Health
from syncbridge_server.http.metrics import metrics_routes
from syncbridge_server.http.pages import PageRoutes
from syncbridge_server.http.recordings import RecordingRoutes
from syncbridge_server.http.sessions import SessionRoutes
from syncbridge_server.http.sockets import WebSockets
from syncbridge_server.http.support.cors import CrossOrigin
from syncbridge_server.http.support.direct import DirectRoutes
from syncbridge_server.http.support.middleware import RequestMiddleware
from syncbridge_server.http.support.problem import exception_handlers
from syncbridge_server.http.support.ratelimit import RateLimit
from syncbridge_server.http.users import UserRoutes
from syncbridge_server.http.voice import VoiceRoutes
from syncbridge_server.http.voice_evidence import VoiceEvidenceRoutes
from syncbridge_server.http.voice_operations import VoiceOperationRoutes
from syncbridge_server.http.webhooks import WebhookRoutes
from syncbridge_server.isolation import Isolation, IsolationMetrics
from syncbridge_server.listener.apart import NoSockets
from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import (
    Refusal,
)
from syncbridge_server.listener.hypercorn import Certificates
from syncbridge_server.listener.serve import serve
from syncbridge_server.listener.shares import Forwarding
from syncbridge_server.observability import HttpMetrics
from syncbridge_server.redis import formats
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.readiness import StoreReadiness
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.sessions_aside import FreezeAside, PresenceAside, SessionsAside
from syncbridge_server.redis.stores.call_ledger import RedisLedger
from syncbridge_server.redis.stores.calls import RedisCalls
from syncbridge_server.redis.stores.freezer import Freezer
from syncbridge_server.redis.stores.store import RedisStore
from syncbridge_server.settings import Settings
from syncbridge_server.telemetry.siblings import FOLDER, Siblings
from syncbridge_server.telemetry.tracing import TRACING
from syncbridge_server.voice.assembly import Voice, build_voice, kept_up, new_inbox
from syncbridge_server.voice.figures.webhook_metrics import WebhookMetrics
from syncbridge_server.voice.rooms.handover import Handover
from syncbridge_server.voice.voice_gateway import VoiceGateway, attach

log = structlog.get_logger("server")

APART = ("/metrics", "/admin")
"""What is only at the address of administration where there is one."""

CALLS_SECONDS = 3.0
"""How long a start waits until the calls under way are known."""


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
        readiness: StoreReadiness,
        voice: Voice | None = None,
        worker: int = 0,
    ) -> None:
        limits = settings.limits()
        self.settings = settings
        self.io = io
        self.bus = bus
        self.readiness = readiness
        self.voice = voice
        self.store = RedisStore(
            io, node, limits, settings.freeze_after, check, key_writers=settings.key_writers
        )
        self._lists = partial(Isolation, None, isolated)
        self.letters = voice.inbox if voice is not None else new_inbox(settings, io, bus, node)
        self.freezer = Freezer(
            io,
            node,
            after=settings.freeze_after,
            least=settings.freeze_bytes,
            isolation=self._isolation(FreezeAside(io, self.letters), isolated),
        )
        self.auth: Authentication = build_authentication(settings, io, bus)
        self.hub = Hub(hub_limits(settings))
        self.policy = StatePolicy(settings.state_policy)
        self.forwarding = Forwarding()
        self.gateway = Gateway(
            self.hub,
            self.store,
            bus,
            verify=self.auth.authenticator.verify,
            gate=build_gate(settings),
            limits=limits,
            node=node,
            holder=self.forwarding.holder,
            patience=2.5 * settings.store_deadline,
            isolation=self._isolation(PresenceAside(io, self.letters), isolated),
            policy=self.policy,
        )
        readiness.on_break(self.gateway.doubt)
        self.calls: VoiceGateway | None = None
        if voice is not None:
            self.calls = attach(self.gateway, voice.writer, bus)
            voice.worker.on_speaking(self.calls.speaking.report_now)
            observability.register_reading(registry, "syncbridge_voice_sockets", self.calls.figures)
        self.refusals = Refusals()
        self.administration = Administration(
            self.gateway,
            io,
            bus,
            update_seconds=settings.admin_update,
            isolation=self._lists(kind="session"),
            reason=lambda: readiness.reason,
            errors=partial(self.refusals.of, "message"),
        )
        self.links = Links(io, self.auth.rotation)
        self.auth.revocations.on_revoke(self._revoked)
        self.gateway.fanout.rollbacks.on_report = self._rolled_back
        self.events = Events(settings, io, bus, node, registry, lambda: self.gateway.draining)
        self.gateway.fanout.rollbacks.on_session = self.events.rolled_back
        self.audit = Audit(settings.audit_log) if settings.audit_log else None
        if self.audit is not None:
            self.gateway.registry.on_admin = partial(_joined_by_admin, self.audit)
        self.http_metrics = observability.http_metrics(registry)
        registry.register(self.refusals)
        self.listener = replace(listener_config(settings), on_refused=self._handshake_refused)
        self.gateway.sender.on_error = self._told
        self.bounds = Bounds(self.listener, self.forwarding)
        self.certificates = Certificates(self.listener)
        self.registry = registry
        observability.register_hub(self.registry, self.hub)
        self.registry.register(GatewayMetrics(self.gateway, io, settings.max_connections))
        self.listener.origins.register(registry)
        observability.register_store(self.registry, io)
        observability.register_readiness(self.registry, readiness)
        rollbacks = self.gateway.fanout.rollbacks.figures
        observability.register_reading(self.registry, "syncbridge_store", rollbacks)
        observability.register_reading(self.registry, "syncbridge_cold", self._cold_sessions)
        observability.register_reading(self.registry, "syncbridge_listener", self._listener_figures)
        folder = os.environ.get(FOLDER, "")
        self.call_metrics = CallMetrics(registry)
        self._touched: set[int] = set()
        self.ledger = RedisLedger(
            io,
            settings.call_ttl,
            settings.call_records_kept,
            self._lists(kind="call"),
            self._touched,
        )
        self.siblings: Siblings | None = None
        if folder and settings.workers > 1:
            render = partial(generate_latest, registry)
            self.siblings = Siblings(folder, worker, settings.workers, render)
        self._applications()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        redis_url: str,
        worker: int = 0,
        voice_clock: Callable[[], float] = time.time,
    ) -> AsyncIterator["Server"]:
        """Connect to Redis and build the parts; everything is released at the end.

        `worker`: which one this process is. `voice_clock`: Unix seconds by which calls are judged.
        """
        node = node_name()
        io = RedisIO(
            redis_url,
            deadline=settings.store_deadline,
            max_commands=settings.store_queue,
            durability=settings.durable,
        )
        async with io.running():
            bus = RedisBus(io, node)
            registry = observability.new_registry()
            TRACING.start(settings.otlp_url, settings.trace_share, node)
            isolated = IsolationMetrics(registry)
            async with (
                bus.running(),
                StoreReadiness(io, bus).running() as readiness,
                build_voice(
                    settings, io, bus, node, registry, isolated, judged_by=voice_clock
                ) as voice,
            ):
                server = cls(settings, io, bus, node, registry, isolated, readiness, voice, worker)
                with suppress(StoreError):
                    server.store.old_data = await formats.old_data(io, server.session_ttl_ms)
                with suppress(StoreError):
                    await server.events.switch.load()
                try:
                    yield server
                finally:
                    server.hub.shutdown()
                    if server.audit is not None:
                        server.audit.close()
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(TRACING.stop)

    def _formats(self, old_data: bool, old_nodes: list[str]) -> None:
        self.store.old_data = old_data
        self.store.bar("a node of format 1 runs" if old_nodes else "")
        self.readiness.beside(old_nodes)

    @property
    def session_ttl_ms(self) -> int:
        """Life of a session."""
        return self.settings.limits().session_ttl * 1000

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
        admin_sockets: Any = (),
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `shutdown_trigger` returns and everything has been seen off.

        `admin_sockets`: those of SYNCBRIDGE_ADMIN_ADDR; they are served to the very end.
        """
        with suppress(StoreError):
            await self.auth.revocations.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.auth.authenticator.run)
            nursery.start_soon(self.gateway.run)
            nursery.start_soon(formats.watch, self.io, self.session_ttl_ms, self._formats)
            nursery.start_soon(self.administration.run)
            nursery.start_soon(kept_up, "events", self.events.run)
            tell = partial(tell_state, self.administration)
            sweeper = CallSweeper(self.ledger, self.call_metrics, tell)
            nursery.start_soon(kept_up, "calls", sweeper.run)
            if self.siblings is not None:
                nursery.start_soon(kept_up, "siblings", self.siblings.run)
            if admin_sockets:
                nursery.start_soon(self._serve_admin, admin_sockets)
            if self.settings.freeze_after:
                nursery.start_soon(self.freezer.run)
            if self.voice is not None:
                nursery.start_soon(self.voice.run)
            if self.calls is not None:
                nursery.start_soon(kept_up, "sockets", self.calls.run)
                with trio.move_on_after(CALLS_SECONDS):
                    await self.calls.live_calls.loaded.wait()
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
                certificates=self.certificates,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

    async def _serve_admin(self, sockets: Any) -> None:
        """Metrics and administration at an address of their own, and what they need besides."""
        await serve(
            self.admin_app,
            self.listener,
            NoSockets(),
            shutdown_trigger=trio.sleep_forever,
            sockets=sockets,
            certificates=self.certificates,
        )

    def reload(self) -> None:
        """Read the state policy and the TLS certificates again; what fails stays as it was."""
        self.policy.reload()
        if not self.settings.tls_cert:
            return
        try:
            self.certificates.reload()
        except OSError as error:
            log.error("tls_reload_failed", reason=str(error))
        else:
            log.info("tls_certificates_loaded")

    def _rolled_back(self, sessions: int, updates: int) -> None:
        text = "Redis came back older: its sessions were reset, and makers of lost updates told"
        self.administration.notice(
            "store_rolled_back", text, sessions=sessions, updates_lost=updates
        )

    def _listener_figures(self) -> list[tuple[str, float]]:
        return [*self.bounds.figures(), ("sockets_evicted_total", self.gateway.evicted)]

    def _isolation(self, aside: SessionsAside, isolated: IsolationMetrics) -> Isolation:
        """In which a chore on sessions is done, and where those go on which it fails."""
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
        users = self.gateway.close_revoked(rule.matches)
        if self.voice is not None and rule.is_recent(time.time()):
            self.voice.revoking.revoked(rule, users)
        self.events.revoked(rule.kind, rule.value, rule.user_id, rule.at)
        self.administration.inform(
            "revoked", f"tokens of a {rule.kind} were revoked", kind=rule.kind, closed=len(users)
        )

    def _handshake_refused(self, refusal: Refusal, client: str, door: str) -> None:
        self.refusals.handshake(refusal, client, door)
        if door == "handshake":
            self.http_metrics.observe("GET", self.listener.path, refusal.status, 0.0)

    def _told(self, connection: Connection, error: SyncBridgeError, door: str) -> None:
        if error.code is ErrorCode.TOKEN_EXPIRING:
            return
        user = connection.identity.user_id if connection.identity is not None else ""
        device = connection.device_id
        self.refusals.error(door, error, client=connection.client, user=user, device=device)

    def _stopping(self) -> None:
        self.gateway.draining = True
        log.info("draining", connections=self.active_connections)
        self.administration.notice(
            "draining", "a node stops", node=self.gateway.node, connections=self.active_connections
        )

    def _applications(self) -> None:
        """What is served at SERVER_ADDR, and at the address of administration."""
        settings, http = self.settings, self.http_metrics
        routes = self._routes()
        apart = [route for route in routes if getattr(route, "path", "").startswith(APART)]
        public = [route for route in routes if route not in apart]
        self.routes = public if settings.admin_addr else routes
        self.app = self._application(self.routes, http)
        # The dashboard is there, and acts through the same calls as everybody; sockets are not.
        sockets = self.listener.path
        calls = [route for route in routes if getattr(route, "path", "") != sockets]
        self.admin_app = self._application(calls, http)

    def _application(self, routes: list[BaseRoute], http: HttpMetrics) -> ASGIApp:
        starlette = Starlette(routes=routes, exception_handlers=exception_handlers)
        app: ASGIApp = DirectRoutes(starlette, exception_handlers)
        settings = self.settings
        if settings.rate_limit_enabled:
            buckets = TokenBuckets(settings.requests_per_second, settings.request_burst)
            webhooks = TokenBuckets(settings.webhooks_per_second, settings.webhook_burst)
            app = RateLimit(app, buckets, self.auth.authenticator.verify, webhooks=webhooks)
        return RequestMiddleware(
            app,
            http,
            access_log=settings.access_log,
            trusted_proxies=settings.trusted_proxies,
            cors=CrossOrigin(self.listener.origins, routes),
            refusals=self.refusals,
            audit=self.audit,
        )

    def _handover(self) -> Handover | None:
        """What lets a call go along with a session that is handed over."""
        if self.voice is None or self.calls is None:
            return None
        voice = self.voice
        return Handover(self.calls.live_calls, voice.writer, voice.tokens, voice.metrics.calls)

    def _routes(self) -> list[BaseRoute]:
        bearer = self.auth.bearer
        sockets = WebSockets(self.gateway, self.listener)
        told = self.voice.revoking.apply_now if self.voice is not None else None
        return [
            # Asked for most, so looked at first.
            *SessionRoutes(self.gateway, self.store, bearer).routes(),
            *Health(self, self.settings.session_ttl).routes(),
            *metrics_routes(self.registry, self.siblings),
            *AuthRoutes(self.auth, self.settings.id_bytes, told).routes(),
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
            *UserRoutes(
                self.store, bearer, self.settings.id_bytes, self._lists(kind="session")
            ).routes(),
            *AdminRoutes(self.administration, bearer, self.settings.message_bytes).routes(),
            *self._dashboard_routes(bearer),
            *event_routes(self.events, bearer),
            *CallExportRoutes(self.ledger, bearer, self.call_metrics.exported.inc).routes(),
            *CallRoutes(
                RedisCalls(
                    self.io,
                    self.settings.call_ttl,
                    self.settings.call_details_bytes,
                    self._lists(kind="call"),
                    self.settings.call_lease,
                    self._touched,
                ),
                self.administration,
                bearer,
                self.settings.call_details_bytes,
            ).routes(),
            *self._voice_routes(bearer),
            *self._webhook_routes(bearer),
            *DocumentRoutes(self.settings.dev).routes(),
            *PageRoutes(self.settings.dev, self.settings.rtk_api_url).routes(),
            WebSocketRoute(self.listener.path, sockets),
            Route(self.listener.path, sockets, methods=["GET"]),
        ]

    def _dashboard_routes(self, bearer: BearerAuth) -> list[BaseRoute]:
        """What the dashboard asks besides, for admins and viewers."""
        settings, voice, gateway = self.settings, self.voice, self.gateway
        links, inspection = self.links, Inspection(self.io, self.store)
        there, readers = voice is not None, ReadAsAdmin(bearer)
        return [
            *AdminAccessRoutes(self.auth, links, settings, gateway.node, voice=there).routes(),
            *AdminSessionRoutes(
                self.administration, inspection, gateway, self.store, bearer
            ).routes(),
            *VoiceRoutes(voice, readers, settings.id_bytes).admin_routes(),
            *VoiceEvidenceRoutes(voice, readers, settings).admin_routes(),
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
            *VoiceEvidenceRoutes(self.voice, bearer, settings).routes(),
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
            *RecordingRoutes(voice, bearer).routes(),
        ]


def _joined_by_admin(audit: Audit, session: LocalSession, connection: Connection) -> None:
    """An administrator sees somebody else's session as long as the socket is open."""
    identity = connection.identity
    if identity is not None and session.owner != identity.user_id:
        audit.joined(
            identity.user_id, connection.client, session.id, connection.device_id, time.time()
        )
