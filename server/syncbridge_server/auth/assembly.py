"""Authentication put together from the settings."""

import time
from collections.abc import Callable
from typing import NamedTuple

from syncbridge_server.auth.authenticator import Authenticator
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.auth.jwks import JwksKeys
from syncbridge_server.auth.keys import (
    HmacKey,
    Key,
    KeyVerifier,
    OneKey,
    PrivateKey,
    Signer,
    Verifier,
    public_key,
)
from syncbridge_server.auth.refresh import RefreshRotation
from syncbridge_server.auth.revocation import Revocations
from syncbridge_server.auth.tokens import TokenRules, Tokens
from syncbridge_server.ports.store import Bus, RedisCommands
from syncbridge_server.settings import ConfigError, Settings


class Authentication(NamedTuple):
    """What the gateway and the routes use. Start `authenticator.run` in the server's nursery."""

    authenticator: Authenticator
    revocations: Revocations
    rotation: RefreshRotation
    bearer: BearerAuth


def token_rules(settings: Settings) -> TokenRules:
    """The bounds of tokens, out of the settings."""
    return TokenRules(
        access_ttl=settings.access_ttl,
        refresh_ttl=settings.refresh_ttl,
        max_life=settings.max_token_life,
        leeway=settings.token_leeway,
        token_bytes=settings.token_bytes,
        id_bytes=settings.id_bytes,
        cache_entries=settings.token_cache,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


def build_tokens(settings: Settings) -> tuple[Tokens, JwksKeys | None]:
    """Keys and rules. Raises ConfigError when a key is missing or does not fit."""
    refresh = HmacKey(settings.jwt_refresh_secret.get_secret_value())
    keys = None
    signer: Signer | None
    verifier: Verifier
    if settings.jwt_algorithm == "HS256":
        signer = verifier = HmacKey(settings.jwt_secret.get_secret_value())
    else:
        private = _private_key(settings)
        signer = private
        if settings.jwt_jwks_url:
            keys = JwksKeys(settings.jwt_jwks_url, settings.jwt_algorithm)
        verifier = KeyVerifier(keys or OneKey(_public_key(settings, private)))
    tokens = Tokens(token_rules(settings), verifier, signer, refresh)
    if keys is not None:
        keys.on_change = tokens.forget
    return tokens, keys


def build_authentication(
    settings: Settings,
    commands: RedisCommands,
    bus: Bus,
    clock: Callable[[], float] = time.time,
) -> Authentication:
    """Everything, ready to run. Raises ConfigError."""
    tokens, keys = build_tokens(settings)
    revocations = Revocations(
        commands, bus, clock, settings.max_token_life, settings.revocation_fail_open
    )
    authenticator = Authenticator(tokens, revocations, keys, clock)
    rotation = RefreshRotation(tokens, commands, revocations, clock)
    bearer = BearerAuth(authenticator, settings.dev, clock)
    return Authentication(authenticator, revocations, rotation, bearer)


def _private_key(settings: Settings) -> PrivateKey | None:
    pem = settings.jwt_private_key.get_secret_value()
    return PrivateKey(settings.jwt_algorithm, pem) if pem else None


def _public_key(settings: Settings, private: PrivateKey | None) -> Key:
    if settings.jwt_public_key:
        return public_key(settings.jwt_algorithm, settings.jwt_public_key)
    if private is None:
        raise ConfigError(f"{settings.jwt_algorithm} needs SYNCBRIDGE_JWT_PUBLIC_KEY")
    return private.public()
