"""The selectable providers: ours by name, those of other packages by entry point.

A provider's modules are imported when it is built, so a server without voice imports none of them.
"""

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import SecretStr

from syncbridge.voice.provider.features import Feature
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.settings import MIN_SECRET_BYTES, ConfigError, Settings, variable
from syncbridge_server.voice.provider.kind import GROUP, Needs, ProviderKind

if TYPE_CHECKING:
    from syncbridge_server.voice.provider.calling import ProviderCalls


class RtkKind:
    """The specification's REST API."""

    @property
    def features(self) -> tuple[str, ...]:
        """What a call can be asked for."""
        from syncbridge_server.voice.provider.rtk import CAPABILITIES

        return CAPABILITIES.features

    def check(self, settings: Settings) -> None:
        """`validate_production` checks its variables."""

    def build(self, needs: Needs) -> VoiceProvider:
        """See `RtkProvider`."""
        from syncbridge_server.voice.provider.rtk import RtkProvider

        settings = needs.settings
        return RtkProvider(
            _calls(needs, settings.rtk_api_url),
            settings.rtk_secret_key.get_secret_value(),
            settings.webhook_secrets(),
            settings.worker_url,
            settings.webhook_tolerance,
            needs.clock,
            round(settings.voice_token_ttl),
        )


class CloudflareKind:
    """RealTimeKit."""

    @property
    def features(self) -> tuple[str, ...]:
        """What a call can be asked for."""
        from syncbridge_server.voice.provider.cloudflare import CAPABILITIES

        return CAPABILITIES.features

    def check(self, settings: Settings) -> None:
        """`validate_production` checks its other variables."""
        cloudflare_storage(settings)

    def build(self, needs: Needs) -> VoiceProvider:
        """See `CloudflareProvider`."""
        from syncbridge_server.voice.provider.cloudflare import (
            API_URL,
            CloudflareProvider,
            base_url,
        )
        from syncbridge_server.voice.provider.rsa_signatures import RsaSignatures

        settings = needs.settings
        url = base_url(
            settings.cloudflare_account_id, settings.rtk_app_id, settings.rtk_api_url or API_URL
        )
        keys = RsaSignatures(needs.client, settings.cloudflare_keys_url)
        return CloudflareProvider(
            _calls(needs, url), keys, needs.clock, cloudflare_storage(settings)
        )


class LiveKitKind:
    """LiveKit."""

    @property
    def features(self) -> tuple[str, ...]:
        """What a call can be asked for."""
        from syncbridge_server.voice.provider.livekit import CAPABILITIES

        return CAPABILITIES.features

    def check(self, settings: Settings) -> None:
        """Check all three variables, and that the secrets are long enough for LiveKit."""
        for name in LIVEKIT:
            if not _plain(getattr(settings, name)):
                raise ConfigError(f"{variable(name)} is not set; LiveKit needs it")
        for key, secret in livekit_secrets(settings).items():
            if not key or len(secret) < MIN_SECRET_BYTES:
                raise ConfigError(
                    "SYNCBRIDGE_LIVEKIT_API_SECRET and _WEBHOOK_KEYS need a key, and a secret of"
                    f" {MIN_SECRET_BYTES} characters or more"
                )

    def build(self, needs: Needs) -> VoiceProvider:
        """See `LiveKitProvider`."""
        from syncbridge_server.voice.provider.calling import ProviderCalls
        from syncbridge_server.voice.provider.livekit import LiveKitProvider
        from syncbridge_server.voice.provider.livekit_api import LiveKitApi

        settings = needs.settings
        calls = ProviderCalls(
            needs.client, settings.livekit_url, "", needs.budget, settings.voice_deadline
        )
        secret = settings.livekit_api_secret.get_secret_value()
        return LiveKitProvider(
            LiveKitApi(calls, settings.livekit_api_key, secret, needs.clock),
            livekit_secrets(settings),
            empty_s=(settings.voice_idle_unjoined + 60.0, settings.voice_idle_left + 60.0),
            recordings=settings.livekit_recordings,
            tolerance=settings.webhook_tolerance,
            clock=needs.clock,
            token_seconds=round(settings.voice_token_ttl),
        )


OURS: dict[str, ProviderKind] = {
    "rtk": RtkKind(),
    "cloudflare": CloudflareKind(),
    "livekit": LiveKitKind(),
}
FEATURES = {
    "voice_recording": Feature.RECORDING,
    "voice_transcription": Feature.TRANSCRIPTION,
    "voice_ai_voice": Feature.AI_VOICE,
}
"""Settings that request a feature for every call."""
STORAGES = ("aws", "azure", "digitalocean", "gcs", "sftp")
LIVEKIT = ("livekit_url", "livekit_api_key", "livekit_api_secret")


def kind_of(name: str) -> ProviderKind:
    """The provider with that name. Other packages cannot override our names.

    Raises ConfigError if there is none, or if its entry point cannot be loaded.
    """
    if name in OURS:
        return OURS[name]
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join([*OURS, *sorted(found.keys() - OURS.keys())])
        raise ConfigError(f"SYNCBRIDGE_VOICE_PROVIDER: there is no {name}; there are {known}")
    try:
        kind: ProviderKind = found[name].load()
    except Exception as error:
        raise ConfigError(
            f"SYNCBRIDGE_VOICE_PROVIDER: {name} cannot be loaded: {type(error).__name__}"
        ) from error
    return kind


def check_provider(settings: Settings) -> None:
    """Raise ConfigError if the selected provider cannot work with these settings.

    The same if the settings of another provider are set, which would be silently ignored.
    """
    for name in LIVEKIT if settings.voice_provider in ("rtk", "cloudflare") else ():
        if _plain(getattr(settings, name)):
            raise ConfigError(
                f"{variable(name)} is set, and SYNCBRIDGE_VOICE_PROVIDER is"
                f" {settings.voice_provider}, not livekit"
            )
    if settings.voice:
        kind = kind_of(settings.voice_provider)
        _check_features(settings, kind)
        kind.check(settings)


def cloudflare_storage(settings: Settings) -> dict[str, Any]:
    """Storage of recordings; empty: Cloudflare's. Raises ConfigError, without the value."""
    text = settings.cloudflare_storage.get_secret_value()
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = {}
    if found.get("type") not in STORAGES:
        raise ConfigError(
            f"{variable('cloudflare_storage')} must be a JSON object whose type is one of"
            f" {', '.join(STORAGES)}"
        )
    return found


def livekit_secrets(settings: Settings) -> dict[str, str]:
    """The secrets of LiveKit's webhooks by API key; several during a rotation."""
    written = settings.livekit_webhook_keys.get_secret_value().split(",")
    pairs = [pair.strip().partition(":") for pair in written if pair.strip()]
    ours = {settings.livekit_api_key: settings.livekit_api_secret.get_secret_value()}
    return {key: secret for key, _, secret in pairs} | ours


def _check_features(settings: Settings, kind: ProviderKind) -> None:
    """Raise ConfigError if a setting requests a feature that the provider does not offer."""
    offered = getattr(kind, "features", tuple(Feature))
    for name, feature in FEATURES.items():
        if getattr(settings, name) and feature not in offered:
            raise ConfigError(
                f"{variable(name)} is set, and {settings.voice_provider} does not offer {feature}"
            )


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _calls(needs: Needs, url: str) -> "ProviderCalls":
    """Requests to a provider at `url` within the budget."""
    from syncbridge_server.voice.provider.calling import ProviderCalls

    key = needs.settings.rtk_api_key.get_secret_value()
    return ProviderCalls(needs.client, url, key, needs.budget, needs.settings.voice_deadline)
