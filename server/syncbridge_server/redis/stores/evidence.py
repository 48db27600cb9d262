"""The evidence of calls in Redis: `syncbridge_server.ports.evidence.CallEvidence`.

A timeline is a stream in the slot of its channel; `voice_write` adds to it. A user's calls are a
sorted set in the user's own slot. One hash has what the latest comparison could not verify.

This data can be rebuilt from other records and later events, so damage is harmless: a timeline or
index of the wrong type is deleted and begins anew.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from syncbridge.errors import ErrorCode, StoreError, StoreRejected, SyncBridgeError
from syncbridge.integrity import UNREADABLE
from syncbridge.voice.timeline import TimelineEntry, decode_entry
from syncbridge.voice.verification import ALL, Unverified, worst
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.stores.voice import due_of, id_of, timeline_key

log = structlog.get_logger("voice")

PAGE = 128
CALLS_MOST = 100
"""Most channels of one user."""
CALLS_TTL_MS = 30 * 86_400_000
UNVERIFIED = "voice:unverified"
UNVERIFIED_TTL_MS = 86_400_000
_PLACE = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_found_decoder = msgspec.json.Decoder(Unverified)


class RedisEvidence:
    """Implements `syncbridge_server.ports.evidence.CallEvidence`."""

    def __init__(self, io: RedisIO) -> None:
        self._io = io

    async def timeline(
        self, channel_id: str, limit: int, before: str = "", user_id: str = ""
    ) -> tuple[list[tuple[str, TimelineEntry]], str]:
        """See `CallEvidence.timeline`. Raises INVALID_FIELD for an invalid place."""
        if before and not _PLACE.fullmatch(before):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD, "cursor: expected one of a timeline", field="cursor"
            )
        found: list[tuple[str, TimelineEntry]] = []
        while len(found) < limit:
            rows = await self._rows(channel_id, f"({before}" if before else "+")
            for place, entry in _read(channel_id, rows):
                before = place
                if entry is not None and entry.user_id in ("", user_id or entry.user_id):
                    found.append((place, entry))
                    if len(found) == limit:
                        return found, place
            if len(rows) < PAGE:
                return found, ""
        return found, before

    async def note_calls(self, calls: Sequence[tuple[str, str, int]]) -> None:
        """See `CallEvidence.note_calls`. One round trip."""
        by_user: dict[str, list[int | str]] = {}
        for user_id, channel_id, at in calls:
            by_user.setdefault(user_id, []).extend((at, channel_id))
        commands = [self._noting(user_id, flat) for user_id, flat in by_user.items()]
        for reply in await self._io.request(commands) if commands else []:
            if isinstance(reply, StoreError):
                raise reply

    def _noting(self, user_id: str, flat: Sequence[int | str]) -> Command:
        args = [CALLS_MOST, CALLS_TTL_MS, *flat]
        key = user_key(user_id)
        return self._io.script_command("voice_user_call", [key], args, repeatable=True)

    async def calls_of(self, user_id: str) -> list[tuple[str, int]]:
        """See `CallEvidence.calls_of`."""
        key = user_key(user_id)
        try:
            flat = await self._io.execute("ZREVRANGE", key, 0, CALLS_MOST - 1, "WITHSCORES")
        except StoreRejected:
            await self._forget(key)
            return []
        return [(due.channel_id, due.due_at) for due in due_of([flat])]

    async def forget_calls(self, user_id: str, channel_ids: Sequence[str]) -> None:
        """See `CallEvidence.forget_calls`."""
        await self._io.execute("ZREM", user_key(user_id), *channel_ids)

    async def note_unverified(self, found: Mapping[str, Unverified]) -> None:
        """See `CallEvidence.note_unverified`."""
        args = [text for pair in found.items() for text in (pair[0], msgspec.json.encode(pair[1]))]
        await self._io.script(
            "voice_unverified", [UNVERIFIED], [UNVERIFIED_TTL_MS, *args], repeatable=True
        )

    async def unverified(self, channel_id: str) -> Unverified | None:
        """See `CallEvidence.unverified`: of the channel or of all, whichever is older."""
        try:
            held = await self._io.execute("HMGET", UNVERIFIED, channel_id, ALL)
        except StoreRejected:
            return None
        return worst(*map(_found, held))

    async def all_unverified(self) -> dict[str, Unverified]:
        """See `CallEvidence.all_unverified`."""
        try:
            flat = await self._io.execute("HGETALL", UNVERIFIED)
        except StoreRejected:
            return {}
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        read = {id_of(channel_id): _found(stored) for channel_id, stored in pairs}
        return {channel_id: one for channel_id, one in read.items() if one is not None}

    async def _rows(self, channel_id: str, end: str) -> list[Any]:
        """A page of a timeline."""
        key = timeline_key(channel_id)
        try:
            rows: list[Any] = await self._io.execute("XREVRANGE", key, end, "-", "COUNT", PAGE)
        except StoreRejected:
            await self._forget(key)
            return []
        return rows

    async def _forget(self, key: str) -> None:
        """Forget a key of another type."""
        log.warning("voice_evidence_damaged", key=key)
        await self._io.execute("UNLINK", key)


def user_key(user_id: str) -> str:
    """The key of the channels whose calls a user is or was in."""
    return f"voice:u:{user_id}"


def _read(channel_id: str, rows: list[Any]) -> list[tuple[str, TimelineEntry | None]]:
    """Places and entries; None for an unreadable entry."""
    read: list[tuple[str, TimelineEntry | None]] = []
    for place, fields in rows:
        try:
            read.append((place.decode(), decode_entry(fields[fields.index(b"e") + 1])))
        except (*UNREADABLE, ValueError, LookupError):
            log.warning("timeline_entry_unreadable", channel_id=channel_id)
            read.append((place.decode(), None))
    return read


def _found(stored: bytes | None) -> Unverified | None:
    try:
        return _found_decoder.decode(stored) if stored else None
    except UNREADABLE:
        return None
