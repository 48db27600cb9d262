"""Endpoints: where events are pushed to, and what of them is wanted."""

import re
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.selection import Selection, parse_kinds
from syncbridge.ids import session_id
from syncbridge.voice.provider.signatures import secret_bytes, sign

MOST_ENDPOINTS = 64
URL_BYTES = 2_048
SECRET_BYTES = 24
BATCH_MOST = 100
MOST_BATCH_MS = 10_000
Text = Annotated[str, Meta(max_length=256)]
_HOST = re.compile(r"[A-Za-z0-9.\-:\[\]_]+")


class Endpoint(msgspec.Struct, omit_defaults=True):
    """An endpoint as it is stored. Times in Unix ms.

    Attributes:
        secrets: the one that signs, and while they are rotated the one before.
        rotated_at: since when there are two.
        start: cursor behind which it is told of events.
        batch_events, batch_ms: so many events at most, gathered for so long, are one message; 1:
            each event is one.
        configured: it stands in a file of `syncbridge deliver`, which has its secrets, too.
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
    batch_events: int = 1
    batch_ms: int = 0
    configured: bool = False


class EndpointSpec(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody says of an endpoint, by a request or in a file. Empty members select all."""

    url: Annotated[str, Meta(max_length=URL_BYTES)]
    kinds: Annotated[list[str], Meta(max_length=64)] = []
    session_id: Text = ""
    user_id: Text = ""
    channel_id: Text = ""
    waddle_id: Text = ""
    values: bool = False
    description: Text = ""
    batch_events: Annotated[int, Meta(ge=1, le=BATCH_MOST)] = 1
    batch_ms: Annotated[int, Meta(ge=0, le=MOST_BATCH_MS)] = 0
    enabled: bool = True


def take(endpoint: Endpoint, spec: EndpointSpec, now_ms: int) -> None:
    """Change an endpoint into what is said of it. Raises INVALID_FIELD, and changes nothing."""
    check_url(spec.url)
    kinds = parse_kinds("kinds", spec.kinds)
    session = spec.session_id and session_id(spec.session_id)
    endpoint.url, endpoint.description = spec.url, spec.description
    endpoint.selection = Selection(
        kinds, session, spec.user_id, spec.channel_id, spec.values, spec.waddle_id
    )
    endpoint.batch_events, endpoint.batch_ms = spec.batch_events, spec.batch_ms
    endpoint.disabled = "" if spec.enabled else endpoint.disabled or "disabled by an admin"
    endpoint.disabled_at = 0 if spec.enabled else endpoint.disabled_at or now_ms


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
