"""Parts of voice as the settings want them: the provider and its budget, limits, defaults."""

import time
from collections.abc import Callable
from random import SystemRandom

import httpx

from syncbridge.voice.call import CallLimits
from syncbridge.voice.channel_limits import ChannelLimits
from syncbridge.voice.provider.breaker import Breaker, BreakerLimits
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.settings import Settings
from syncbridge_server.voice.checks.rounds import SyncLimits
from syncbridge_server.voice.figures.metrics import ProviderMetrics
from syncbridge_server.voice.figures.monitor import MonitorLimits
from syncbridge_server.voice.provider.calling import ProviderCalls
from syncbridge_server.voice.provider.cloudflare import API_URL, CloudflareProvider, base_url
from syncbridge_server.voice.provider.guarded import GuardedProvider, Repetition
from syncbridge_server.voice.provider.rsa_signatures import RsaSignatures
from syncbridge_server.voice.provider.rtk import RtkProvider

OPENING_DEADLINES = 3
"""Times the deadline of one request that opening a room may take, repetitions and all."""
MARGIN = 5.0


def build_provider(
    settings: Settings,
    client: httpx.AsyncClient,
    budget: RequestBudget,
    clock: Callable[[], float] = time.time,
) -> VoiceProvider:
    """The adapter that is configured."""
    if settings.voice_provider == "cloudflare":
        url = base_url(
            settings.cloudflare_account_id, settings.rtk_app_id, settings.rtk_api_url or API_URL
        )
        keys = RsaSignatures(client, settings.cloudflare_keys_url)
        return CloudflareProvider(provider_calls(settings, client, url, budget), keys, clock)
    return RtkProvider(
        provider_calls(settings, client, settings.rtk_api_url, budget),
        settings.rtk_secret_key.get_secret_value(),
        settings.webhook_secrets(),
        settings.worker_url,
        settings.webhook_tolerance,
        clock,
        round(settings.voice_token_ttl),
    )


def provider_calls(
    settings: Settings, client: httpx.AsyncClient, url: str, budget: RequestBudget
) -> ProviderCalls:
    """Requests to a provider at `url`, out of a budget."""
    key = settings.rtk_api_key.get_secret_value()
    return ProviderCalls(client, url, key, budget, settings.voice_deadline)


def request_rate(settings: Settings) -> float:
    """Requests a second that this process may send to the provider."""
    return settings.voice_requests_per_minute / 60 / settings.workers


def request_budget(settings: Settings) -> RequestBudget:
    """This process's share of the requests."""
    burst = max(1.0, settings.voice_request_burst / settings.workers)
    return RequestBudget(request_rate(settings), burst)


def sync_limits(settings: Settings) -> SyncLimits:
    """The bounds of comparisons. A pass may use what its share earns in an interval."""
    rate = request_rate(settings) * settings.voice_sync_share
    return SyncLimits(
        interval_s=settings.voice_sync,
        calls=max(4, round(rate * settings.voice_sync)),
        rate=rate,
        stale_s=settings.voice_sync_stale,
    )


def monitor_limits(settings: Settings) -> MonitorLimits:
    """The bounds of measurements."""
    rate = request_rate(settings) * settings.voice_monitor_share
    return MonitorLimits(
        interval_s=settings.voice_monitor, calls=max(1, round(rate * settings.voice_monitor))
    )


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
        retry_ms=round(settings.voice_retry * 1000),
        retry_most_ms=round(max(300.0, settings.voice_retry) * 1000),
        opening_ms=round((opening_patience(settings) + MARGIN) * 1000),
        max_age_ms=round(settings.voice_max_age * 1000),
        pool_uses=settings.voice_pool_uses,
        pool_ms=round(settings.voice_pool_ttl * 1000),
    )


def build_guarded(
    settings: Settings, provider: VoiceProvider, metrics: ProviderMetrics
) -> GuardedProvider:
    """A provider with circuit breakers and bounded repetition around it."""
    signs = settings.voice_provider == "rtk" and bool(settings.rtk_secret_key.get_secret_value())
    repetition = Repetition(settings.voice_attempts, patience_s=2.5 * settings.voice_deadline)
    limits = BreakerLimits(
        threshold=settings.voice_breaker_failures,
        least_s=min(1.0, settings.voice_breaker_open),
        first_s=settings.voice_breaker_open,
        most_s=settings.voice_breaker_longest,
        probe_s=3 * settings.voice_deadline,
    )
    changes, reads = (Breaker(limits, SystemRandom().random) for _ in "12")
    return GuardedProvider(
        provider, changes, reads, metrics, local_tokens=signs, repetition=repetition
    )


def default_config(settings: Settings) -> ChannelConfig:
    """How a room is opened that nobody said anything about."""
    return ChannelConfig(
        settings.voice_max_participants, settings.voice_recording, settings.voice_transcription
    )


def opening_patience(settings: Settings) -> float:
    """Seconds for opening a room."""
    return OPENING_DEADLINES * settings.voice_deadline


def token_patience(settings: Settings) -> float:
    """Seconds for a token, and a room for it; less than the request for it has."""
    return min((OPENING_DEADLINES + 1) * settings.voice_deadline, 0.8 * settings.http_timeout)
