"""Signatures of Standard Webhooks 1.0.

The signature covers `{webhook-id}.{webhook-timestamp}.{body}` with HMAC-SHA256, so neither the id,
which identifies redeliveries, nor the time can be changed. During a rotation, both sides may have
several secrets, and one matching pair is enough. All pairs are compared, each in constant time.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from syncbridge.voice.provider.records import RefusalReason, Verified, WebhookRefused

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
TOLERANCE = 300.0
MAX_SIGNATURES = 8
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def secret_bytes(secret: str) -> bytes:
    """The key of a secret: `whsec_<base64>`, or any other text as it is.

    Raises:
        ValueError: if it is empty, or if the part after `whsec_` is not base64.
    """
    if not secret.startswith("whsec_"):
        key = secret.encode()
    else:
        text = secret.removeprefix("whsec_").rstrip("=")
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise ValueError("the webhook secret is not base64") from None
    if not key:
        raise ValueError("the webhook secret is empty")
    return key


def sign(key: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature` for one key. `timestamp` in Unix seconds."""
    signed = b".".join((delivery_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def verify(
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    keys: Sequence[bytes],
    tolerance: float = TOLERANCE,
) -> Verified | WebhookRefused:
    """Whether one of `keys` signed this delivery within `tolerance` seconds of `now`.

    Args:
        headers: of the request, names in lower case. now: Unix seconds.
    """
    delivery_id = headers.get(ID_HEADER, "")
    stamp = headers.get(TIMESTAMP_HEADER, "")
    signatures = headers.get(SIGNATURE_HEADER, "").split()
    if not delivery_id or not stamp or not signatures:
        return WebhookRefused(RefusalReason.MISSING)
    shaped = _ID.fullmatch(delivery_id) and _TIMESTAMP.fullmatch(stamp)
    if not shaped or len(signatures) > MAX_SIGNATURES:
        return WebhookRefused(RefusalReason.MALFORMED)
    if abs(now - int(stamp)) > tolerance:
        return WebhookRefused(RefusalReason.STALE)
    # The digits are signed as received, because a sender may write leading zeros.
    signed = b".".join((delivery_id.encode(), stamp.encode(), body))
    if not _any_fits(signed, keys, [s.encode() for s in signatures]):
        return WebhookRefused(RefusalReason.MISMATCH)
    return Verified(delivery_id, float(stamp))


def _any_fits(signed: bytes, keys: Sequence[bytes], signatures: Sequence[bytes]) -> bool:
    fits = False
    for key in keys:
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        expected = b"v1," + base64.b64encode(digest)
        for signature in signatures:
            fits |= hmac.compare_digest(expected, signature)
    return fits
