"""Everything of voice in one process, put together from the settings.

`Voice` holds the parts; `run` keeps them at work. A part that crashes is started again after a
pause: voice that has failed must not end the sessions of everybody.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import structlog
import trio

from syncbridge.ports import Bus
from syncbridge.voice.budget import RequestBudget
from syncbridge.voice.call import CallLimits
from syncbridge.voice.channel import ChannelLimits
from syncbridge.voice.channel_ports import Channels, WebhookInbox
from syncbridge.voice.ports import VoiceProvider
from syncbridge.voice.recordings import Recordings
from syncbridge_server.redis.client import RedisIO
from syncbridge_server.redis.inbox import RedisInbox
from syncbridge_server.redis.recordings import RedisRecordings
from syncbridge_server.redis.registrations import RedisNotes
from syncbridge_server.redis.voice import RedisChannels
from syncbridge_server.settings import Settings
from syncbridge_server.voice.calling import ProviderCalls, new_client
from syncbridge_server.voice.cloudflare import API_URL, CloudflareProvider, base_url
from syncbridge_server.voice.desk import Desk
from syncbridge_server.voice.inbox_worker import InboxWorker
from syncbridge_server.voice.registration import Registration
from syncbridge_server.voice.rsa_signatures import RsaSignatures
from syncbridge_server.voice.rtk import RtkProvider
from syncbridge_server.voice.webhook_metrics import WebhookMetrics

log = structlog.get_logger("voice")

PAUSES = (1.0, 30.0)
"""Seconds before a part that crashed is started again: the first time, and at most."""


@dataclass(frozen=True)
class Voice:
    """The parts of voice in one process."""

    provider: VoiceProvider
    channels: Channels
    desk: Desk
    inbox: WebhookInbox
    recordings: Recordings
    webhook_metrics: WebhookMetrics
    worker: InboxWorker
    registration: Registration | None

    async def run(self) -> None:
        """Keep the parts at work, for ever."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {"webhooks": self.worker.run}
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
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Voice | None]:
    """The parts, not yet at work; None when no provider is configured. `clock`: Unix seconds."""
    if not settings.voice:
        yield None
        return
    async with new_client() as client:
        provider = build_provider(settings, client, clock)
        channels = RedisChannels(io, bus, node, settings.voice_ttl)
        desk = Desk(channels, channel_limits(settings), clock)
        inbox = RedisInbox(io, bus, node)
        recordings = RedisRecordings(io, settings.recording_ttl)
        metrics = WebhookMetrics()
        worker = InboxWorker(
            provider, inbox, channels, desk, recordings, metrics, id_bytes=settings.id_bytes
        )
        registration = build_registration(settings, provider, channels, io)
        yield Voice(provider, channels, desk, inbox, recordings, metrics, worker, registration)


def build_registration(
    settings: Settings, provider: VoiceProvider, channels: Channels, io: RedisIO
) -> Registration | None:
    """None when there is no address to tell, or where sessions carry it, as those of `rtk` do."""
    if settings.voice_provider != "cloudflare" or not settings.worker_url:
        return None
    return Registration(provider, channels, RedisNotes(io), settings.worker_url)


def build_provider(
    settings: Settings, client: httpx.AsyncClient, clock: Callable[[], float] = time.time
) -> VoiceProvider:
    """The adapter that is configured, with a request budget of its own."""
    if settings.voice_provider == "cloudflare":
        url = base_url(
            settings.cloudflare_account_id, settings.rtk_app_id, settings.rtk_api_url or API_URL
        )
        keys = RsaSignatures(client, settings.cloudflare_keys_url)
        return CloudflareProvider(provider_calls(settings, client, url), keys, clock)
    return RtkProvider(
        provider_calls(settings, client, settings.rtk_api_url),
        settings.rtk_secret_key.get_secret_value(),
        settings.webhook_secrets(),
        settings.worker_url,
        settings.webhook_tolerance,
        clock,
    )


def provider_calls(settings: Settings, client: httpx.AsyncClient, url: str) -> ProviderCalls:
    """Requests to a provider at `url`, within this process's share of the budget."""
    rate = settings.voice_requests_per_minute / 60 / settings.workers
    burst = max(1.0, settings.voice_request_burst / settings.workers)
    key = settings.rtk_api_key.get_secret_value()
    budget = RequestBudget(rate, burst)
    return ProviderCalls(client, url, key, budget, settings.voice_deadline)


def channel_limits(settings: Settings) -> ChannelLimits:
    """The bounds of channels and calls, out of the settings."""
    call = CallLimits(
        max_participants=settings.voice_max_participants,
        unjoined_ms=round(settings.voice_idle_unjoined * 1000),
        empty_ms=round(settings.voice_idle_left * 1000),
        migration_ms=round(settings.voice_migration * 1000),
        lease_ms=round(settings.presence_timeout * 1000),
    )
    return ChannelLimits(
        call=call,
        seat_ms=round(settings.voice_seat * 1000),
        opening_ms=round((2 * settings.voice_deadline + 5) * 1000),
        max_age_ms=round(settings.voice_max_age * 1000),
        pool_uses=settings.voice_pool_uses,
        pool_ms=round(settings.voice_pool_ttl * 1000),
    )


async def kept_up(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a part for ever, again after a pause when it crashes."""
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
