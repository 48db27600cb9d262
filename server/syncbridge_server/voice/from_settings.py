"""Parts of voice as the settings want them: the provider and its budget, limits, defaults."""

import time
from collections.abc import Callable
from random import SystemRandom

import httpx

from syncbridge.voice.breaker import Breaker, BreakerLimits
from syncbridge.voice.budget import RequestBudget
from syncbridge.voice.call import CallLimits
from syncbridge.voice.channel_limits import ChannelLimits
from syncbridge.voice.ports import VoiceProvider
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.settings import Settings
from syncbridge_server.voice.calling import ProviderCalls
from syncbridge_server.voice.cloudflare import API_URL, CloudflareProvider, base_url
from syncbridge_server.voice.guarded import GuardedProvider, Repetition
from syncbridge_server.voice.metrics import ProviderMetrics
from syncbridge_server.voice.rsa_signatures import RsaSignatures
from syncbridge_server.voice.rtk import RtkProvider

OPENING_DEADLINES = 3
"""Times the deadline of one request that opening a room may take, repetitions and all."""
MARGIN = 5.0


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
        opening_ms=round((opening_patience(settings) + MARGIN) * 1000),
        max_age_ms=round(settings.voice_max_age * 1000),
        pool_uses=settings.voice_pool_uses,
        pool_ms=round(settings.voice_pool_ttl * 1000),
    )


def build_guarded(
    settings: Settings, provider: VoiceProvider, metrics: ProviderMetrics
) -> GuardedProvider:
    """A provider with a circuit breaker and bounded repetition around it."""
    signs = settings.voice_provider == "rtk" and bool(settings.rtk_secret_key.get_secret_value())
    repetition = Repetition(patience_s=2.5 * settings.voice_deadline)
    breaker = Breaker(BreakerLimits(), SystemRandom().random)
    return GuardedProvider(provider, breaker, metrics, local_tokens=signs, repetition=repetition)


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
