"""The sessions that Redis holds: a list in pages, and how much they are together.

There is no index of all sessions: it would be one more key to write with every session, in another
slot of a cluster, and wrong after each lost write. Redis's SCAN walks the keys instead, without
state on our side. Its guarantee is ours: a session that is there during the whole walk is listed at
least once, and may be listed twice if Redis rehashes meanwhile. The work of a call is bounded by
`MAX_SCANS`; a page can therefore be short, even empty, and still have a `cursor` to go on with.

A session has a meta key `s:{tag}:<id>:m` from the moment it is joined or written. What still has the
keys of format 1 is listed when it has been used.
"""

import re
from typing import Any, NamedTuple

from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge_server.admin.figures import SnapshotMetrics
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.keys import meta_key

SCAN_COUNT = 1000
MAX_SCANS = 20
VOLUME_SCANS = 100
_KEY = re.compile(rb"s:\{[0-9a-z]+\}:([0-9a-f-]{36}):m")
_CURSOR = re.compile(r"(\d{1,20})\.(\d{1,5})")


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

    def __init__(self, io: RedisIO) -> None:
        self._io = io

    async def page(
        self, cursor: str, limit: int, user_id: str = "", active: bool = False
    ) -> tuple[list[Row], str]:
        """Some sessions, and the cursor of the next page, "" at the end.

        Args:
            cursor: "" to begin. limit: most rows.
            user_id: only this user's. active: only those with a device online.

        Raises INVALID_FIELD for a cursor that is none, and StoreError.
        """
        at, skip = parse_cursor(cursor)
        rows: list[Row] = []
        for _ in range(MAX_SCANS):
            following, keys = await self._scan(at, SCAN_COUNT)
            found = [
                row
                for row in await self._rows(keys)
                if (not user_id or row.owner == user_id) and (row.devices_online or not active)
            ]
            room = limit - len(rows)
            rows += found[skip : skip + room]
            if len(found) > skip + room:
                return rows, f"{at}.{skip + room}"
            at, skip = following, 0
            if not at or len(rows) == limit:
                break
        return rows, f"{at}.0" if at else ""

    async def volume(self) -> SnapshotMetrics:
        """How many sessions are stored and how large they are.

        Exact up to about `VOLUME_SCANS * SCAN_COUNT` keys; above it the part that was walked is
        scaled by the number of keys in Redis. Raises StoreError.
        """
        keys = await self._io.execute("DBSIZE")
        at = walked = stored = size = largest = 0
        for _ in range(VOLUME_SCANS):
            at, names = await self._scan(at, SCAN_COUNT)
            walked += SCAN_COUNT
            rows = [row for row in await self._rows(names) if row.version]
            stored += len(rows)
            size += sum(row.bytes for row in rows)
            largest = max([largest, *(row.bytes for row in rows)])
            if not at:
                break
        average = round(size / stored) if stored else 0
        if at:
            share = max(1.0, keys / walked)
            stored, size = round(stored * share), round(size * share)
        return SnapshotMetrics(stored, size, average, largest, exact=not at)

    async def _scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """One step: next cursor, and the keys of sessions in a stable order."""
        following, keys = await self._io.execute(
            "SCAN", cursor, "MATCH", "s:{*}:*:m", "COUNT", count
        )
        return int(following), sorted(set(keys))

    async def _rows(self, keys: list[bytes]) -> list[Row]:
        found = [m[1].decode() for m in map(_KEY.fullmatch, keys) if m]
        if not found:
            return []
        replies = await self._io.request([self._row(sid) for sid in found])
        rows = []
        for sid, reply in zip(found, replies, strict=True):
            if isinstance(reply, StoreError):
                raise reply
            if reply:
                rows.append(Row(sid, reply[0].decode(), reply[1], reply[2].decode(), *reply[3:]))
        return rows

    def _row(self, sid: str) -> Any:
        return self._io.script_command("row", (meta_key(sid),), [], repeatable=True)


def parse_cursor(text: str) -> tuple[int, int]:
    """(SCAN cursor, rows of that step that were given already)."""
    if not text:
        return 0, 0
    match = _CURSOR.fullmatch(text)
    if match is None or int(match[1]) >= 1 << 64:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, "cursor: give the one of the answer before", field="cursor"
        )
    return int(match[1]), int(match[2])
