"""Answers as routes give them: JSON bodies, times, entity tags."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from starlette.responses import Response

from syncbridge.integrity import TIME_MOST
from syncbridge.records.sessions import Outcome, Place, Snapshot

ANY_TAG = "*"
_TAGS = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


def encoded(body: Any) -> Response:
    """Current figures: not to be cached."""
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(body), 200, headers, "application/json")


@lru_cache(8_192)
def timestamp(unix_ms: int) -> str:
    """Unix milliseconds as RFC 3339 text in UTC; the nearest moment that can be written so."""
    seconds, ms = divmod(min(max(unix_ms, 0), TIME_MOST), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03}Z"


def place_of(answer: Outcome | Snapshot) -> Place:
    """Where a session is, as an answer of the store has it."""
    return Place(answer.epoch, answer.version, answer.lineage)


def names_tag(field: str, tag: str) -> bool:
    """Whether an If-None-Match names a tag, weak or strong, or any (RFC 9110 section 13.1.2)."""
    if field.strip() == ANY_TAG:
        return True
    return tag.removeprefix("W/") in _TAGS.findall(field)


def etag(place: Place | Outcome | Snapshot) -> str:
    """Strong entity tag of a state (RFC 9110 section 8.8.3)."""
    return f'"{place.epoch}.{place.version}.{place.lineage}"'
