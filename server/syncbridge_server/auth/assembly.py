"""Builds authentication from the settings."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from syncbridge.identity import Role
from syncbridge_server.addresses import parse_issuer
from syncbridge_server.auth.authenticator import Authenticator
from syncbridge_server.auth.claims import ClaimMapping, parse_pointer
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.auth.issuers import ALGORITHMS, Issuers
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

if TYPE_CHECKING:
    from syncbridge_server.auth.jwks import JwksKeys


class Authentication(NamedTuple):
    """What the gateway and the routes use. Start `authenticator.run` in the server's nursery."""

    authenticator: Authenticator
    revocations: Revocations
    rotation: RefreshRotation
    bearer: BearerAuth


def token_rules(settings: Settings) -> TokenRules:
    """The bounds of tokens, from the settings."""
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


def claim_mapping(settings: Settings) -> ClaimMapping:
    """The claim mapping for other issuers, from the settings."""
    default = settings.jwt_default_role
    return ClaimMapping(
        user=parse_pointer(settings.jwt_claim_user or "sub"),
        role=parse_pointer(settings.jwt_claim_role),
        device=parse_pointer(settings.jwt_claim_device),
        session=parse_pointer(settings.jwt_claim_session),
        voice=parse_pointer(settings.jwt_claim_voice),
        family=parse_pointer(settings.jwt_claim_login),
        default_role=None if default == "none" else Role(default),
        id_bytes=settings.id_bytes,
    )


def build_tokens(settings: Settings) -> "tuple[Tokens, list[JwksKeys]]":
    """Keys and rules. Raises ConfigError when a key is missing or of the wrong type."""
    mapping = claim_mapping(settings)
    issuers = Issuers(_issuer_keys(settings), mapping)
    verifier, signer, own = _own_keys(settings)
    tokens = Tokens(
        token_rules(settings),
        verifier,
        signer,
        HmacKey(settings.jwt_refresh_secret.get_secret_value()),
        issuers=issuers if settings.jwt_issuers else None,
        mapping=mapping if settings.maps_claims else None,
    )
    keys = [*own, *issuers.keys]
    for source in keys:
        source.on_change = tokens.forget
    return tokens, keys


def _issuer_keys(settings: Settings) -> "Iterator[tuple[str, JwksKeys]]":
    for text in settings.jwt_issuers:
        name, url = parse_issuer(text)
        yield name, _remote_keys(url, ALGORITHMS, name)


def _remote_keys(url: str, algorithms: tuple[str, ...], issuer: str = "") -> "JwksKeys":
    """Imported here: a server with its own keys starts without an HTTP client."""
    from syncbridge_server.auth.jwks import JwksKeys

    return JwksKeys(url, algorithms, issuer)


def _own_keys(settings: Settings) -> "tuple[Verifier, Signer | None, list[JwksKeys]]":
    """The verifier and signer of our own tokens, and the keys to refresh."""
    keys: list[JwksKeys] = []
    signer: Signer | None
    verifier: Verifier
    if settings.jwt_algorithm == "HS256":
        signer = verifier = HmacKey(settings.jwt_secret.get_secret_value())
    else:
        private = _private_key(settings)
        signer = private
        if settings.jwt_jwks_url:
            keys.append(_remote_keys(settings.jwt_jwks_url, (settings.jwt_algorithm,)))
        verifier = KeyVerifier(keys[0] if keys else OneKey(_public_key(settings, private)))
    return verifier, signer, keys


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
