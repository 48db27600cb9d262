"""Signatures of Cloudflare's webhooks: RSASSA-PKCS1-v1_5 with SHA-256 over the raw body.

The public key has a fixed URL and may change. A signature that does not match makes the server
fetch the key again, at most once in 10 seconds, so forged webhooks cannot cause many requests. A
refused webhook is never sent again, so MISMATCH needs a key that was fetched at the arrival of the
body or at most 2 seconds before. With an older key, because the new one could not be fetched or no
fetch was due, the result is UNVERIFIABLE, which asks for a redelivery.

The signature covers neither a time nor the delivery's id. So a delivery is identified by its body:
two deliveries with the same bytes are the same, whatever their headers say.
"""

import base64
import binascii
import hashlib
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import cast

import httpx
import msgspec
import trio
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from syncbridge.voice.provider.records import RefusalReason, Verified, WebhookRefused

SIGNATURE_HEADER = "rtk-signature"
KEY_URL = "https://api.realtime.cloudflare.com/.well-known/webhooks.json"
MAX_BYTES = 65_536
MAX_SIGNATURE = 2048
FETCH_SECONDS = 2.0
LEAST_INTERVAL = 10.0
FRESH_SECONDS = 2.0
"""Maximum age of a key, at the arrival of a body, that may refuse it."""


class _KeyData(msgspec.Struct):
    publicKey: str


class _KeyDocument(msgspec.Struct):
    data: _KeyData


class RsaSignatures:
    """Verifies `rtk-signature`.

    Args:
        key_url: URL of the key; never taken from a request. clock: monotonic seconds.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        key_url: str = KEY_URL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._url = key_url
        self._clock = clock
        self._key: RSAPublicKey | None = None
        self._last_try = -math.inf
        self._key_at = -math.inf
        self._lock = trio.Lock()

    async def verify(self, headers: Mapping[str, str], body: bytes) -> Verified | WebhookRefused:
        """Whether the provider signed this body; UNVERIFIABLE without its current key."""
        text = headers.get(SIGNATURE_HEADER, "")
        if not text:
            return WebhookRefused(RefusalReason.MISSING)
        signature = _decoded(text)
        if signature is None:
            return WebhookRefused(RefusalReason.MALFORMED)
        used, arrived = self._key, self._clock()
        if used is None or not _fits(used, signature, body):
            await self._refresh(used)
            if self._key is None or not _fits(self._key, signature, body):
                fresh = self._key_at >= arrived - FRESH_SECONDS
                return WebhookRefused(
                    RefusalReason.MISMATCH if fresh else RefusalReason.UNVERIFIABLE
                )
        return Verified(f"sha256-{hashlib.sha256(body).hexdigest()}")

    async def _refresh(self, used: RSAPublicKey | None) -> None:
        """Fetch the key, unless another task just did or an attempt was made recently."""
        async with self._lock:
            due = self._clock() - self._last_try >= LEAST_INTERVAL
            if self._key is not used or not due:
                return
            self._last_try = began = self._clock()
            try:
                with trio.fail_after(FETCH_SECONDS):
                    self._key, self._key_at = _public_key(await self._fetch()), began
            except (
                httpx.HTTPError,
                httpx.InvalidURL,
                trio.TooSlowError,
                ValueError,
                RecursionError,
            ):
                return

    async def _fetch(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            response.raise_for_status()
            stream = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise ValueError("key document too large")
        return bytes(body)


def _decoded(text: str) -> bytes | None:
    if len(text) > MAX_SIGNATURE:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _fits(key: RSAPublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, body, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _public_key(document: bytes) -> RSAPublicKey:
    """The RSA key of a key document. Raises ValueError."""
    pem = msgspec.json.decode(document, type=_KeyDocument).data.publicKey
    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("the key is of an unknown kind") from error
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the key is not an RSA key")
    return key
