"""Signatures of LiveKit's webhooks: a JWT in `Authorization` with the digest of the body.

The API key in the JWT (`iss`) selects the secret; during a rotation there are several. The time is
signed, so a body can be replayed for a few minutes only, while its id is known. LiveKit redelivers
with the same token, at most half a minute after the first delivery.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import jwt
from jwt.types import Options

from syncbridge.voice.provider.livekit_webhooks import delivery_id, without_secrets
from syncbridge.voice.provider.records import RefusalReason, Verified, WebhookRefused

LEEWAY = 60.0
"""Clock leeway in seconds, the same as LiveKit's."""
MAX_TOKEN = 4_096
_LATER: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""The times are compared with the caller's clock; the other claims are not used."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    secrets: Mapping[str, str],
    tolerance: float,
) -> Verified | WebhookRefused:
    """Whether the holder of one of our keys signed this body within `tolerance` seconds of `now`.

    Args:
        headers: of the request, names in lower case. secrets: by API key. now: Unix seconds.
    """
    token = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not token:
        return WebhookRefused(RefusalReason.MISSING)
    claims = _claims(token, secrets)
    if isinstance(claims, RefusalReason):
        return WebhookRefused(claims)
    begins, ends = _time(claims, "nbf", "iat"), _time(claims, "exp")
    if begins is None or ends is None:
        return WebhookRefused(RefusalReason.MALFORMED)
    if not begins - LEEWAY <= now <= min(ends, begins + tolerance) + LEEWAY:
        return WebhookRefused(RefusalReason.STALE)
    digest = hashlib.sha256(body)
    if not hmac.compare_digest(base64.b64encode(digest.digest()), _told(claims)):
        return WebhookRefused(RefusalReason.MISMATCH)
    return Verified(delivery_id(body) or digest.hexdigest(), begins, without_secrets)


def _claims(token: str, secrets: Mapping[str, str]) -> dict[str, Any] | RefusalReason:
    """The claims of a token that one of our keys signed. Its times are not checked."""
    if len(token) > MAX_TOKEN:
        return RefusalReason.MALFORMED
    try:
        unproven = jwt.decode(token, options={**_LATER, "verify_signature": False})
    except (jwt.PyJWTError, RecursionError):
        return RefusalReason.MALFORMED
    key = unproven.get("iss")
    secret = secrets.get(key) if isinstance(key, str) else None
    if secret is None:
        return RefusalReason.MISMATCH
    try:
        claims: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"], options=_LATER)
    except jwt.PyJWTError:
        return RefusalReason.MISMATCH
    return claims


def _time(claims: Mapping[str, Any], *names: str) -> float | None:
    """The first of these claims that is a number."""
    found = [claims[name] for name in names if isinstance(claims.get(name), int | float)]
    try:
        return float(found[0]) if found else None
    except OverflowError:
        return None


def _told(claims: Mapping[str, Any]) -> bytes:
    digest = claims.get("sha256")
    return digest.encode(errors="replace") if isinstance(digest, str) else b""
