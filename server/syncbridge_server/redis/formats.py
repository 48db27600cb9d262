"""The format of the data in Redis: who may start, and whether data of format 1 may exist.

Theory of operation. `format:{nodes}` is a HASH: `format`, and `old`, the time (Unix ms) until which
keys of format 1 may live. The first node that finds no record writes it; in a database that is not
empty such keys may then live as long as a session does, and nobody renews them. Until that time
the scripts look for them, see docs/decisions/0009-the-layout-of-redis.md.

Nodes of format 1 write the old keys, so they must not run beside ours. They are recognised by the
names under which they are listed. No node of this format starts while one runs. A later start of an
old node cannot be prevented: every node looks for such names, and changes no session until they are
gone. Data that the old node has written is moved afterwards.
"""

import time
from collections.abc import Callable
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge_server.redis.link.client import RedisIO

log = structlog.get_logger("redis")

FORMAT = 2
RECORD = "format:{nodes}"
OLD_INDEX = "nodes"
"""The nodes of format 1, by name; one lives while `node:<name>` exists."""

NODES = "nodes:{nodes}"
"""The nodes of our formats: `count format started`."""

MARGIN_MS = 7_200_000
LOOK_SECONDS = 5.0
"""Seconds between two searches for nodes of format 1."""

LOOKS = 12
"""One of this many searches also reads the record."""


class FormatRefused(Exception):
    """This release cannot use the database now; the text is one line that says why."""


async def admit(io: RedisIO) -> None:
    """Refuse a database that nodes of format 1 use, or that has a later format than ours.

    Raises:
        FormatRefused: in these cases. StoreError: Redis does not answer.
    """
    found = await io.execute("HGET", RECORD, "format")
    if found is not None and int(found) > FORMAT:
        raise FormatRefused(f"Redis has data of format {int(found)}; this release knows {FORMAT}")
    entries: list[bytes] = await io.execute("HVALS", NODES)
    latest = max((_format_of(entry) for entry in entries), default=FORMAT)
    if latest > FORMAT:
        raise FormatRefused(
            f"Redis is in use by nodes of format {latest}; this release knows {FORMAT}"
        )
    alive = await old_nodes(io)
    if alive:
        names = ", ".join(alive[:8])
        raise FormatRefused(
            f"Redis is in use by nodes of format 1 ({names}): stop all of them first"
        )


def _format_of(entry: bytes) -> int:
    """The format in a node's entry; the current one if it is unreadable."""
    fields = entry.split()
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else FORMAT


async def old_nodes(io: RedisIO) -> list[str]:
    """Names of the live nodes of format 1; dead ones are removed from the list.

    Raises StoreError.
    """
    names: list[bytes] = await io.execute("ZRANGE", OLD_INDEX, 0, -1)
    found = [await io.execute("EXISTS", b"node:" + name) for name in names]
    gone = [name for name, there in zip(names, found, strict=True) if not there]
    if gone:
        await io.execute("ZREM", OLD_INDEX, *gone)
    return [name.decode(errors="replace") for name in names if name not in gone]


async def old_data(io: RedisIO, ttl_ms: int) -> bool:
    """Whether keys of format 1 may exist; writes a missing record.

    Args:
        ttl_ms: life of a session.

    Raises StoreError.
    """
    if io.server is not None and io.server.cluster:
        return False  # no cluster could run format 1
    now = round(time.time() * 1000)
    record = await _record(io)
    if b"format" not in record:
        if await io.execute("DBSIZE"):
            await io.execute("HSETNX", RECORD, "old", now + ttl_ms + MARGIN_MS)
        await io.execute("HSETNX", RECORD, "format", FORMAT)
        record = await _record(io)
    return int(record.get(b"old", 0)) > now


async def _record(io: RedisIO) -> dict[bytes, bytes]:
    flat: list[Any] = await io.execute("HGETALL", RECORD)
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def watch(io: RedisIO, ttl_ms: int, tell: Callable[[bool, list[str]], None]) -> None:
    """Search periodically for nodes of format 1 and for their data, until cancelled.

    A backup of format 1 may be restored at any time.

    Args:
        ttl_ms: life of a session. tell: called with the result of `old_data` and the names of old
            nodes.
    """
    looks = 0
    there = True
    while True:
        try:
            names = await _written_by_old_nodes(io, ttl_ms)
            if names or looks % LOOKS == 0:
                there = await old_data(io, ttl_ms)
            tell(there, names)
            looks += 1
        except StoreError as error:
            log.debug("format_unknown", detail=error.detail)
        await trio.sleep(LOOK_SECONDS)


async def _written_by_old_nodes(io: RedisIO, ttl_ms: int) -> list[str]:
    """Nodes of format 1 that live; that there is data of theirs is noted."""
    if io.server is not None and io.server.cluster:
        return []
    names = await old_nodes(io)
    if names:
        until = round(time.time() * 1000) + ttl_ms + MARGIN_MS
        await io.execute("HSET", RECORD, "format", FORMAT, "old", until)
    return names
