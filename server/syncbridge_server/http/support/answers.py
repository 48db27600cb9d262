"""Answers as routes give them: JSON bodies, times, entity tags."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from starlette.responses import Response


def encoded(body: Any) -> Response:
    """Figures of the moment: not to be kept."""
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(body), 200, headers, "application/json")


@lru_cache(8_192)
def timestamp(unix_ms: int) -> str:
    """Unix milliseconds as RFC 3339 text in UTC."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03}Z"


def etag(epoch: str, version: int) -> str:
    """Strong entity tag of a state (RFC 9110 section 8.8.3)."""
    return f'"{epoch}-{version}"'
