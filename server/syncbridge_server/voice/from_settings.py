"""Derives limits, defaults, the request budget and the guarded provider from the settings."""

from random import SystemRandom

from syncbridge.voice.call_records import CallLimits
from syncbridge.voice.channel_limits import ChannelLimits
from syncbridge.voice.provider.breaker import Breaker, BreakerLimits
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.features import Feature
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.redis.stores.voice import FINALS_TTL_MS
from syncbridge_server.settings import Settings
from syncbridge_server.voice.checks.check_round import SyncLimits
from syncbridge_server.voice.figures.metrics import ProviderMetrics
from syncbridge_server.voice.figures.monitor import MonitorLimits
from syncbridge_server.voice.provider.guarded import GuardedProvider, Repetition

OPENING_DEADLINES = 3
"""Time to open a room, retries included, in deadlines of one request."""
MARGIN = 5.0
RENEWED, LEEWAY = 600.0, 60.0
"""Seconds for which a provider may renew a token, and its clock leeway."""


def request_rate(settings: Settings) -> float:
    """Requests per second that this process may send to the provider."""
    return settings.voice_requests_per_minute / 60 / settings.workers


def request_budget(settings: Settings) -> RequestBudget:
    """This process's share of the request budget."""
    burst = max(1.0, settings.voice_request_burst / settings.workers)
    return RequestBudget(request_rate(settings), burst)


def sync_limits(settings: Settings) -> SyncLimits:
    """Bounds of the comparison. A pass may use the requests that its share earns per interval."""
    rate = request_rate(settings) * settings.voice_sync_share
    return SyncLimits(
        interval_s=settings.voice_sync,
        calls=max(4, round(rate * settings.voice_sync)),
        rate=rate,
        stale_s=settings.voice_sync_stale,
    )


def monitor_limits(settings: Settings) -> MonitorLimits:
    """Bounds of the quality measurements."""
    rate = request_rate(settings) * settings.voice_monitor_share
    return MonitorLimits(
        interval_s=settings.voice_monitor, calls=max(1, round(rate * settings.voice_monitor))
    )


def channel_limits(settings: Settings) -> ChannelLimits:
    """Bounds of channels and calls."""
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
        renew_ms=round(settings.voice_ttl * 500),
        removed_ms=round((max(settings.voice_token_ttl, RENEWED) + LEEWAY) * 1000),
    )


def build_guarded(
    settings: Settings, provider: VoiceProvider, metrics: ProviderMetrics
) -> GuardedProvider:
    """Wrap a provider with circuit breakers and bounded retries."""
    repetition = Repetition(settings.voice_attempts, patience_s=2.5 * settings.voice_deadline)
    limits = BreakerLimits(
        threshold=settings.voice_breaker_failures,
        least_s=min(1.0, settings.voice_breaker_open),
        first_s=settings.voice_breaker_open,
        most_s=settings.voice_breaker_longest,
        probe_s=3 * settings.voice_deadline,
    )
    changes, reads = (Breaker(limits, SystemRandom().random) for _ in "12")
    return GuardedProvider(provider, changes, reads, metrics, repetition=repetition)


def default_config(settings: Settings) -> ChannelConfig:
    """The configuration of rooms without an explicit one."""
    return ChannelConfig(
        settings.voice_max_participants,
        settings.voice_recording,
        settings.voice_transcription,
        {Feature.AI_VOICE.value: True} if settings.voice_ai_voice else {},
    )


def names_ttl(settings: Settings) -> float:
    """How long a waddle keeps its form of a channel's key, in seconds.

    Longer than its record, and then than anything that a call leaves under the key.
    """
    return settings.voice_ttl + max(FINALS_TTL_MS / 1000, settings.recording_ttl)


def opening_patience(settings: Settings) -> float:
    """Deadline for opening a room, in seconds."""
    return OPENING_DEADLINES * settings.voice_deadline


def token_patience(settings: Settings) -> float:
    """Deadline for a token and its room, in seconds; shorter than the deadline of the request."""
    return min((OPENING_DEADLINES + 1) * settings.voice_deadline, 0.8 * settings.http_timeout)
