"""The sessions in Redis: a paged list, and their total size.

There is no index of all sessions: it would be one more key to write with every session, in another
slot of a cluster, and wrong after each lost write. Instead, Redis's SCAN walks the keys, without
state here. Its guarantee applies: a session that exists during the whole walk is listed at least
once, and may be listed twice if Redis rehashes meanwhile. The work of a call is bounded by
`MAX_SCANS`; so a page may be short, even empty, and still have a `cursor`.

A session has a meta key `s:{tag}:<id>:m` once it is joined or written. Sessions in format 1 are
listed after their next use.

Damaged sessions are left out of the list and the figures, and counted.
"""

import re
from typing import Any, NamedTuple

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.integrity import VERSION_MOST, check_time
from syncbridge.slots import SLOTS
from syncbridge_server.admin.figures import SnapshotMetrics
from syncbridge_server.isolation import Isolation
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.stores.keys import every_key, meta_key

SCAN_COUNT = 1000
MAX_SCANS = 20
VOLUME_SCANS = 20
MAX_ROWS = 1_000
"""Most sessions read to measure their size."""

_KEY = re.compile(rb"s:\{[0-9a-z]+\}:([0-9a-f-]{36}):m")
_CURSOR = re.compile(r"(\d{1,24})\.(\d{1,5})")


class Row(NamedTuple):
    """One session. Times in Unix ms, 0 for a session that was never written."""

    session_id: str
    owner: str
    version: int
    epoch: str
    bytes: int
    created_at: int
    updated_at: int
    devices: int
    devices_online: int


class Survey:
    """Walks the sessions in Redis."""

    def __init__(self, io: RedisIO, isolation: Isolation | None = None) -> None:
        self._io = io
        self._isolation = isolation or Isolation()

    async def page(
        self, cursor: str, limit: int, user_id: str = "", active: bool = False, device_id: str = ""
    ) -> tuple[list[Row], str, int]:
        """A page of sessions, the next cursor, "" at the end, and the number of damaged ones.

        Args:
            cursor: "" to begin. limit: most rows.
            user_id: only this user's. active: only with an online device. device_id: only with this
                device.

        Raises INVALID_FIELD for an invalid cursor, and StoreError.
        """
        at, skip = parse_cursor(cursor)
        rows: list[Row] = []
        damaged = 0
        for _ in range(MAX_SCANS):
            following, keys = await self._scan(at, SCAN_COUNT)
            if device_id:
                keys = await self._with_device(keys, device_id)
            read, unread = await self._rows(keys)
            damaged += 0 if skip else unread
            found = [
                row
                for row in read
                if (not user_id or row.owner == user_id) and (row.devices_online or not active)
            ]
            room = limit - len(rows)
            rows += found[skip : skip + room]
            if len(found) > skip + room:
                return rows, f"{at}.{skip + room}", damaged
            at, skip = following, 0
            if not at or len(rows) == limit:
                break
        return rows, f"{at}.0" if at else "", damaged

    async def one(self, session_id: str) -> tuple[list[Row], str, int]:
        """A page with this session, if it exists. Raises StoreError."""
        rows, damaged = await self._rows([meta_key(session_id).encode()])
        return rows, "", damaged

    async def _with_device(self, keys: list[bytes], device_id: str) -> list[bytes]:
        """The meta keys of sessions that remember a device."""
        asked = [plain("HEXISTS", key[:-1] + b"o", device_id, repeatable=True) for key in keys]
        replies = await self._io.request(asked) if asked else []
        return [key for key, there in zip(keys, replies, strict=True) if there == 1]

    async def volume(self) -> SnapshotMetrics:
        """The number and size of stored sessions.

        Takes at most `VOLUME_SCANS` steps of SCAN and reads `MAX_ROWS` sessions: exact if that
        covers all. Else the result is scaled by the number of keys in Redis; SCAN's order is
        unrelated to ours, so the sample is representative. Raises StoreError.
        """
        keys = await self._io.size()
        at = walked = found = looked = damaged = 0
        rows: list[Row] = []
        for _ in range(VOLUME_SCANS):
            at, names = await self._scan(at, SCAN_COUNT)
            walked += SCAN_COUNT
            part = names[: MAX_ROWS - looked]
            read, unread = await self._rows(part)
            rows += (row for row in read if row.version)
            found, looked, damaged = found + len(names), looked + len(part), damaged + unread
            if not at:
                break
        size = sum(row.bytes for row in rows)
        average = round(size / len(rows)) if rows else 0
        share = found / looked if looked else 1.0
        if at:
            share *= max(1.0, keys / walked)
        return SnapshotMetrics(
            round(len(rows) * share),
            round(size * share),
            average,
            max((row.bytes for row in rows), default=0),
            exact=not at and looked == found,
            damaged=damaged,
        )

    async def _scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """One step: next cursor, and the keys of sessions in a stable order."""
        following, keys = await self._io.scan(cursor, "s:{*}:*:m", count)
        return following, sorted(set(keys))

    async def _rows(self, keys: list[bytes]) -> tuple[list[Row], int]:
        """The rows of these keys, and how many sessions are damaged. Raises StoreError."""
        found = [m[1].decode() for m in map(_KEY.fullmatch, keys) if m]
        if not found:
            return [], 0
        replies = await self._io.request([self._row(sid) for sid in found])
        read = [
            (sid, reply if isinstance(reply, Exception) else (sid, reply))
            for sid, reply in zip(found, replies, strict=True)
            if reply != []
        ]
        rows = await self._isolation.each("list", read, row_of)
        shown = {row.session_id for row in rows}
        return rows, len({sid for sid, _ in read} - shown)

    def _row(self, sid: str) -> Any:
        return self._io.script_command("row", every_key(sid), [], repeatable=True)


def row_of(found: tuple[str, list[Any]]) -> Row:
    """A session's id and reply as a row. Raises various errors for a damaged one."""
    sid, reply = found
    row = Row(sid, reply[0].decode(), reply[1], reply[2].decode(), *reply[3:])
    for moment in (row.created_at, row.updated_at):
        check_time(moment)
    if min(row.version, row.bytes) < 0 or max(row.version, row.bytes) > VERSION_MOST:
        raise ValueError("a number is out of range")
    return row


def parse_cursor(text: str) -> tuple[int, int]:
    """(SCAN cursor, rows of that step already returned)."""
    if not text:
        return 0, 0
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[1]) >= SLOTS << 64:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD,
            "cursor: send the next_cursor of the page before",
            field="cursor",
        )
    return int(match[1]), int(match[2])
