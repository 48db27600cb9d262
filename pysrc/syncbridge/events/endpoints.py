"""Endpoints: where events are pushed to, and what of them is wanted."""

import re
from urllib.parse import urlsplit

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.selection import Selection
from syncbridge.voice.provider.signatures import secret_bytes, sign

MOST_ENDPOINTS = 64
URL_BYTES = 2_048
SECRET_BYTES = 24
_HOST = re.compile(r"[A-Za-z0-9.\-:\[\]_]+")


class Endpoint(msgspec.Struct, omit_defaults=True):
    """An endpoint as it is stored. Times in Unix ms.

    Attributes:
        secrets: the one that signs, and while they are rotated the one before.
        rotated_at: since when there are two.
        start: cursor behind which it is told of events.
        disabled: why nothing is sent; empty: it is.
    """

    id: str
    url: str
    secrets: list[str]
    selection: Selection = Selection()
    description: str = ""
    created_at: int = 0
    rotated_at: int = 0
    start: str = "0-0"
    disabled: str = ""
    disabled_at: int = 0


def check_url(url: str) -> str:
    """The URL of an endpoint. Raises INVALID_FIELD: it is to be http or https, with a host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("it is no URL") from None
    if len(url.encode()) > URL_BYTES or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused(f"at most {URL_BYTES} bytes of ASCII without spaces are expected")
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise _refused("an http or https URL with a host is expected")
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise _refused("neither user, password nor fragment is expected")
    return url


def _refused(why: str) -> SyncBridgeError:
    return SyncBridgeError(ErrorCode.INVALID_FIELD, f"url: {why}", field="url")


def check_secret(secret: str) -> str:
    """A secret: `whsec_` and the base64 of 24 to 64 bytes. Raises INVALID_FIELD."""
    try:
        size = len(secret_bytes(secret)) if secret.startswith("whsec_") else 0
    except ValueError:
        size = 0
    if not SECRET_BYTES <= size <= 64:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD,
            "secret: whsec_ and the base64 of 24 to 64 bytes are expected",
            field="secret",
        )
    return secret


def headers_of(endpoint: Endpoint, event_id: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of one attempt, as Standard Webhooks has them: one signature a secret."""
    at = int(now)
    keys = [secret_bytes(secret) for secret in endpoint.secrets]
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(sign(key, event_id, at, body) for key in keys),
    }
