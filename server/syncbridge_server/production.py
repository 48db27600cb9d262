"""Whether settings are safe to serve the world with: one line says why not."""

import os
import ssl

from pydantic import SecretStr

from syncbridge.voice.provider.signatures import secret_bytes
from syncbridge_server.settings import MIN_SECRET_BYTES, ConfigError, Settings, variable

EXAMPLE_SECRETS = frozenset({"harmony-flow-secret-key", "harmony-flow-refresh-secret-key"})
EXAMPLE_WORDS = ("change-me", "changeme", "change_me", "replace-me", "your-secret")
"""How secrets begin that stand in documents and in examples of configuration."""
QUOTES = "\"'`"


def validate_production(settings: Settings) -> None:
    """Raise ConfigError, one line, unless these settings are safe to serve the world with."""
    if settings.dev:
        raise ConfigError("SYNCBRIDGE_DEV is for development; use `syncbridge dev`")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("SYNCBRIDGE_TLS_CERT and SYNCBRIDGE_TLS_KEY go together")
    if settings.tls_cert:
        _require_certificate(settings.tls_cert, settings.tls_key)
    access = settings.jwt_secret.get_secret_value()
    refresh = settings.jwt_refresh_secret.get_secret_value()
    if settings.jwt_algorithm == "HS256":
        _require_secret("JWT_SECRET", access)
    elif not (settings.jwt_public_key or settings.jwt_jwks_url or settings.jwt_private_key):
        raise ConfigError(
            f"{settings.jwt_algorithm} needs SYNCBRIDGE_JWT_PUBLIC_KEY or SYNCBRIDGE_JWT_JWKS_URL"
        )
    if settings.jwt_issuers and not settings.jwt_audience:
        raise ConfigError(
            "SYNCBRIDGE_JWT_ISSUERS needs SYNCBRIDGE_JWT_AUDIENCE; without it a token that an"
            " issuer made for any other service would be accepted"
        )
    _require_secret("JWT_REFRESH_SECRET", refresh)
    if access == refresh:
        raise ConfigError("JWT_SECRET and JWT_REFRESH_SECRET are equal; they must differ")
    _require_voice(settings)
    _require_plain(settings)


def _require_plain(settings: Settings) -> None:
    """Raise ConfigError for a secret with blanks, a line end or quotes around it."""
    for name, field in type(settings).model_fields.items():
        if field.annotation is SecretStr and name != "jwt_private_key":
            secret = getattr(settings, name).get_secret_value()
            if secret != secret.strip() or secret[:1] in (*QUOTES,):
                raise ConfigError(
                    f"{variable(name)} has blanks, a line end or quotes around it; remove them"
                )


def _require_certificate(certificate: str, key: str) -> None:
    for path in (certificate, key):
        if not os.access(path, os.R_OK):
            raise ConfigError(f"cannot read the TLS file {path}")
    try:
        # The password keeps OpenSSL from asking for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "-")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not PEM, or the two do not fit"
        raise ConfigError(
            f"SYNCBRIDGE_TLS_CERT, SYNCBRIDGE_TLS_KEY: {certificate}, {key}: {reason}"
        ) from None


def _require_voice(settings: Settings) -> None:
    """Raise ConfigError when what `rtk` or `cloudflare` cannot do without is missing."""
    if not settings.voice or settings.voice_provider not in ("rtk", "cloudflare"):
        return
    if not settings.rtk_api_key.get_secret_value():
        raise ConfigError("RTK_API_KEY is not set; voice requires the provider's API key")
    if settings.voice_provider == "cloudflare":
        if not settings.rtk_app_id:
            raise ConfigError("RTK_APP_ID is not set; RealTimeKit requires the application id")
        return
    secrets = settings.webhook_secrets()
    if not secrets:
        raise ConfigError(
            "RTK_SECRET_KEY is not set, nor SYNCBRIDGE_VOICE_WEBHOOK_SECRETS;"
            " webhooks could not be verified"
        )
    for secret in secrets:
        try:
            secret_bytes(secret)
        except ValueError as error:
            raise ConfigError(f"SYNCBRIDGE_VOICE_WEBHOOK_SECRETS: {error}") from None


def _require_secret(name: str, secret: str) -> None:
    advice = "make one with `openssl rand -hex 32`"
    if not secret:
        raise ConfigError(f"{name} is not set; {advice}")
    if secret in EXAMPLE_SECRETS or secret.lower().startswith(EXAMPLE_WORDS):
        raise ConfigError(f"{name} is a published example; {advice}")
    if secret != secret.strip() or secret[0] in QUOTES:
        raise ConfigError(f"{name} has blanks, a line end or quotes around it; {advice}")
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ConfigError(f"{name} is shorter than {MIN_SECRET_BYTES} bytes; {advice}")
