"""Builds the voice subsystem of one process from the settings.

`Voice` holds the parts and `run` runs them. A part that crashes restarts after a pause, so a
failure in voice does not end any session.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from prometheus_client import CollectorRegistry, Counter

from syncbridge.voice.provider.breaker import BreakerState
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.capabilities import RegisteredBy
from syncbridge_server.isolation import Isolation, IsolationMetrics
from syncbridge_server.observability import register_reading
from syncbridge_server.ports.channels import ChannelNames, Channels
from syncbridge_server.ports.evidence import CallEvidence
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.ports.recordings import Recordings
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.channel_names import RedisChannelNames
from syncbridge_server.redis.stores.evidence import RedisEvidence
from syncbridge_server.redis.stores.inbox import RedisInbox
from syncbridge_server.redis.stores.recordings import RedisRecordings
from syncbridge_server.redis.stores.registrations import RedisNotes
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.settings import Settings
from syncbridge_server.voice.aside import ChannelsAside
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.checks.repairs import Repairs
from syncbridge_server.voice.checks.room_check import RoomCheck
from syncbridge_server.voice.checks.state_check import StateCheck
from syncbridge_server.voice.checks.sync_pass import SyncPass
from syncbridge_server.voice.checks.synchronizer import Synchronizer
from syncbridge_server.voice.figures.metrics import VoiceMetrics, voice_metrics
from syncbridge_server.voice.figures.monitor import Monitor
from syncbridge_server.voice.figures.webhook_metrics import WebhookMetrics
from syncbridge_server.voice.from_settings import (
    build_guarded,
    channel_limits,
    default_config,
    monitor_limits,
    names_ttl,
    opening_patience,
    request_budget,
    sync_limits,
    token_patience,
)
from syncbridge_server.voice.provider.guarded import GuardedProvider
from syncbridge_server.voice.provider.kind import Needs
from syncbridge_server.voice.provider.kinds import kind_of
from syncbridge_server.voice.provider.registration import Registration
from syncbridge_server.voice.rooms.migration import Migration
from syncbridge_server.voice.rooms.opening import Opening
from syncbridge_server.voice.rooms.provider_tasks import ProviderTasks
from syncbridge_server.voice.rooms.revoking import Revoking
from syncbridge_server.voice.rooms.texts import Texts, downloads
from syncbridge_server.voice.rooms.timers import Timers
from syncbridge_server.voice.rooms.tokens import VoiceTokens
from syncbridge_server.voice.user_calls import UserCalls
from syncbridge_server.voice.webhooks.inbox_worker import InboxWorker

if TYPE_CHECKING:
    import httpx

    from syncbridge_server.voice.figures.analytics import Analytics

log = structlog.get_logger("voice")

PAUSES = (1.0, 30.0)
"""Seconds before a crashed part restarts: initial and maximum."""


@dataclass(frozen=True)
class Voice:
    """The parts of voice in one process."""

    provider: VoiceProvider
    channels: Channels
    names: ChannelNames
    writer: ChannelWriter
    metrics: VoiceMetrics
    opening: Opening
    tokens: VoiceTokens
    tasks: ProviderTasks
    timers: Timers
    migration: Migration
    inbox: RedisInbox
    recordings: Recordings
    webhook_metrics: WebhookMetrics
    worker: InboxWorker
    registration: Registration | None
    synchronizer: Synchronizer
    monitor: Monitor
    analytics: "Analytics | None"
    evidence: CallEvidence
    user_calls: UserCalls
    revoking: Revoking

    async def run(self) -> None:
        """Run all parts for ever."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "provider_tasks": self.tasks.run,
            "timers": self.timers.run,
            "webhooks": self.worker.run,
            "sync": self.synchronizer.run,
            "monitor": self.monitor.run,
            "user_calls": self.user_calls.run,
            "revoking": self.revoking.run,
        }
        if self.analytics is not None:
            parts["analytics"] = self.analytics.run
        if self.registration is not None:
            parts["registration"] = self.registration.run
        async with trio.open_nursery() as nursery:
            for name, run in parts.items():
                nursery.start_soon(kept_up, name, run)


@asynccontextmanager
async def build_voice(
    settings: Settings,
    io: RedisIO,
    bus: Bus,
    node: str,
    registry: CollectorRegistry,
    isolated: IsolationMetrics | None = None,
    clock: Callable[[], float] = time.time,
    judged_by: Callable[[], float] | None = None,
) -> AsyncIterator[Voice | None]:
    """Build the parts without running them. Yields None when no provider is configured.

    Args:
        clock: Unix seconds, also for signed tokens.
        judged_by: clock for the call rules, if it differs from `clock`.
    """
    if not settings.voice:
        yield None
        return
    from syncbridge_server.voice.provider.calling import new_client

    async with new_client() as client:
        metrics = voice_metrics(registry)
        budget = request_budget(settings)
        plain = kind_of(settings.voice_provider).build(Needs(settings, client, budget, clock))
        provider = build_guarded(settings, plain, metrics.provider)
        register_reading(registry, "syncbridge_voice", partial(guard_readings, provider, budget))
        channels = RedisChannels(io, bus, node, settings.voice_ttl)
        inbox = new_inbox(settings, io, bus, node)
        aside = ChannelsAside(channels, inbox)
        inbox.register(aside)
        isolation = Isolation(aside, isolated)
        names = RedisChannelNames(io, names_ttl(settings))
        writer = ChannelWriter(channels, channel_limits(settings), judged_by or clock, isolation)
        patience = opening_patience(settings)
        opening = Opening(provider, writer, default_config(settings), patience)
        count = partial(count_one, metrics.calls.recordings)
        tasks = ProviderTasks(provider, writer, opening, 2 * patience, count)
        migration = Migration(writer, opening, metrics.calls)
        recordings = RedisRecordings(io, settings.recording_ttl)
        texts = Texts(writer, recordings, downloads(client), count)
        webhook_metrics = WebhookMetrics()
        worker = InboxWorker(
            provider,
            inbox,
            channels,
            writer,
            recordings,
            webhook_metrics,
            id_bytes=settings.id_bytes,
            count_recording=count,
        )
        state_check = StateCheck(provider, writer, opening, metrics.sync, settings.id_bytes)
        evidence = RedisEvidence(io)
        revoking = Revoking(writer, evidence)
        observe = partial(revoking_readings, revoking)
        register_reading(registry, "syncbridge_voice_revocations", observe)
        Repairs(writer, metrics.sync)
        synchronizer = build_synchronizer(
            settings, provider, writer, state_check, metrics, evidence
        )
        worker.on_contradiction(synchronizer.request_check)
        analytics = build_analytics(settings, client, metrics)
        monitor = Monitor(
            provider,
            writer,
            metrics.calls,
            monitor_limits(settings),
            analytics,
            lambda: provider.failing,
            evidence,
        )
        registration = build_registration(settings, provider, channels, io)
        yield Voice(
            provider=provider,
            channels=channels,
            names=names,
            writer=writer,
            metrics=metrics,
            opening=opening,
            tokens=VoiceTokens(
                provider,
                writer,
                opening,
                settings.voice_token_ttl,
                token_patience(settings),
                RoomCheck(state_check) if provider.capabilities.token_local else None,
            ),
            tasks=tasks,
            timers=Timers(writer, opening, tasks, migration, state_check, texts, names),
            migration=migration,
            inbox=inbox,
            recordings=recordings,
            webhook_metrics=webhook_metrics,
            worker=worker,
            registration=registration,
            synchronizer=synchronizer,
            monitor=monitor,
            analytics=analytics,
            evidence=evidence,
            user_calls=UserCalls(writer, evidence),
            revoking=revoking,
        )


def new_inbox(settings: Settings, io: RedisIO, bus: Bus, node: str) -> RedisInbox:
    """The inbox of pending webhooks and dead letters."""
    return RedisInbox(
        io,
        bus,
        node,
        most_waiting=settings.webhooks_waiting,
        most_dead=settings.dead_letters,
    )


def build_registration(
    settings: Settings, provider: VoiceProvider, channels: Channels, io: RedisIO
) -> Registration | None:
    """None without a public URL, or when the provider learns the URL in another way."""
    by_api = provider.capabilities.webhooks_registered_by is RegisteredBy.API
    if not by_api or not settings.worker_url:
        return None
    return Registration(provider, channels, RedisNotes(io), settings.worker_url)


def build_synchronizer(
    settings: Settings,
    provider: VoiceProvider,
    writer: ChannelWriter,
    state_check: StateCheck,
    metrics: VoiceMetrics,
    evidence: CallEvidence,
) -> Synchronizer:
    """The comparison with the provider."""
    limits = sync_limits(settings)
    sync_pass = SyncPass(provider, writer, state_check, metrics.sync, limits)
    return Synchronizer(
        sync_pass,
        state_check,
        writer.channels,
        metrics.sync,
        limits,
        writer.isolation,
        evidence=evidence,
        now=writer.now,
    )


def build_analytics(
    settings: Settings, client: "httpx.AsyncClient", metrics: VoiceMetrics
) -> "Analytics | None":
    """None when no analytics service is configured."""
    if not settings.analytics_url:
        return None
    from syncbridge_server.voice.figures.analytics import Analytics, AnalyticsLimits

    key = settings.analytics_key.get_secret_value()
    limits = AnalyticsLimits(queue=settings.analytics_queue, deadline_s=settings.analytics_deadline)
    return Analytics(client, settings.analytics_url, key, metrics.analytics, limits)


def count_one(counter: Counter, label: str) -> None:
    """Increment a counter for one label."""
    counter.labels(label).inc()


def guard_readings(provider: GuardedProvider, budget: RequestBudget) -> list[tuple[str, float]]:
    """Metrics of the breakers (0 closed, 0.5 half open, 1 open) and the budget."""
    shut = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
    return [
        ("breaker_open", shut[provider.changes]),
        ("reads_breaker_open", shut[provider.reads]),
        ("budget_left", budget.left(time.monotonic())),
    ]


def revoking_readings(revoking: Revoking) -> list[tuple[str, float]]:
    """The number of revocations that have not reached the calls yet."""
    return [("pending", len(revoking.pending))]


async def kept_up(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a part for ever; restart it after a pause when it crashes."""
    pause, longest = PAUSES
    while True:
        began = trio.current_time()
        try:
            await run()
        except Exception:
            log.exception("voice_part_crashed", part=name, seconds=pause)
        if trio.current_time() - began > 2 * longest:
            pause = PAUSES[0]
        await trio.sleep(pause)
        pause = min(2 * pause, longest)
