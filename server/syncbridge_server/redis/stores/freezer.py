"""The background task that packs cold sessions. See `cold` for the theory.

Every node runs one. It reads the first entry of each bucket of the index, by plain commands, and
sleeps until the earliest is due; later entries are due later. In a bucket with due sessions, a
lease lets one node work at a time. Due sessions are claimed (moved aside, so that a new use enters
them anew), checked, packed if due, and released. The claims of a node that dies expire and are
taken over; the session itself changes in one script or not at all.

When: no device and no write for `after` seconds, and at least `least` bytes; or a large state
without a write for half that time, with devices or not, because listening devices do not need it:
their node has a replica, and renewing presence unpacks nothing.
"""

import math
import random
import time
from collections.abc import Sequence
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge_server.isolation import Isolation, of_record
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.stores.codec import Argument
from syncbridge_server.redis.stores.cold import (
    BUCKETS,
    Packed,
    bucket_keys,
    pack_state,
)
from syncbridge_server.redis.stores.keys import every_key

log = structlog.get_logger(__name__)

CHORE = "freeze"
LARGE_BYTES = 32_768
SMALL_AGAIN_MS = 3_600_000
CLAIM_MS = 60_000
LOOK_SECONDS = 300.0
"""Longest time between two reads of the index. Entries of other nodes are due after half of `after`
at the earliest, so by default no entry waits for a read."""

CLAIMED_MOST = 16
THREAD_BYTES = 65_536
GONE, LATER, READY = 0, 1, 2


class Freezer:
    """Packs the sessions of all nodes.

    Args:
        node: id of this node, for the lease.
        after: seconds without use. least: smallest state to pack, in bytes. large: size in bytes
            from which a state is packed after half of `after`, even with devices online. interval:
            shortest time between two reads of the index, in seconds.

    Attributes:
        frozen, state_bytes, packed_bytes: what was packed since the start.
    """

    def __init__(
        self,
        io: RedisIO,
        node: str,
        *,
        after: float,
        least: int,
        large: int = LARGE_BYTES,
        interval: float = 10.0,
        isolation: Isolation | None = None,
    ) -> None:
        self._isolation = isolation or Isolation()
        after_ms = round(after * 1000)
        self._io = io
        self._node = node
        self._interval = interval
        self._longest = max(interval, min(after / 2, LOOK_SECONDS))
        self._pause = interval
        again_ms = max(SMALL_AGAIN_MS, after_ms)
        self._rule: tuple[int, ...] = (least, after_ms, large, after_ms // 2, again_ms)
        self.frozen = 0
        self.state_bytes = 0
        self.packed_bytes = 0

    async def run(self) -> None:
        """Work until cancelled. While Redis is away nothing is packed."""
        while True:
            await trio.sleep(self._pause * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self.sweep()
            except StoreError as error:
                self._pause = self._interval
                log.warning("freezer_paused", reason=error.detail)

    async def sweep(self) -> int:
        """Work through all buckets once; returns the number of packed sessions.

        Raises StoreError when Redis is away.
        """
        before = self.frozen
        for bucket in await self._due_buckets():
            try:
                while await self._bucket(bucket) == CLAIMED_MOST:
                    pass
            except StoreError as error:
                self._damaged(bucket, error)
        return self.frozen - before

    async def _due_buckets(self) -> list[int]:
        """The buckets with due sessions; notes the time of the next read."""
        looks = [
            plain("ZRANGE", key, 0, 0, "WITHSCORES", repeatable=True)
            for bucket in range(BUCKETS)
            for key in bucket_keys(bucket, "", ":c")
        ]
        replies, now = await self._io.request(looks), time.time() * 1000
        first: list[float] = []
        for bucket in range(BUCKETS):
            due = math.inf
            for reply in replies[2 * bucket : 2 * bucket + 2]:
                if isinstance(reply, StoreError):
                    due = self._damaged(bucket, reply)
                elif reply:
                    due = min(due, float(reply[1]))
            first.append(due)
        wait = (min((due for due in first if due > now), default=math.inf) - now) / 1000
        self._pause = min(max(wait, self._interval), self._longest)
        return [bucket for bucket, due in enumerate(first) if due <= now]

    def _damaged(self, bucket: int, error: StoreError) -> float:
        """The bucket cannot be read, and nothing is due in it. Raises errors of the store."""
        if not of_record(error):
            raise error
        log.warning("freezer_bucket_damaged", bucket=bucket, reason=error.detail)
        return math.inf

    async def _bucket(self, bucket: int) -> int:
        """Process some due sessions of a bucket; returns their number."""
        args: list[Argument] = [self._node, round(self._interval * 2000), CLAIM_MS, CLAIMED_MOST]
        claimed = await self._io.script("claim", bucket_keys(bucket, "", ":c", ":l"), args)
        sids = [sid.decode(errors="surrogateescape") for sid in claimed]
        if sids:
            due = await self.freeze(sids)
            args = [part for pair in due.items() for part in pair]
            await self._io.script("release", bucket_keys(bucket, "", ":c"), args, repeatable=True)
        return len(sids)

    async def freeze(self, sids: Sequence[str]) -> dict[str, int]:
        """Pack due sessions; returns when to check each again, Unix ms, 0 for never.

        Sessions that could not be read are left out: their claims expire.
        """
        looks = [self._look(sid) for sid in sids]
        due: dict[str, int] = {}
        ready: list[tuple[str, Packed]] = []
        for sid, reply in zip(sids, await self._io.request(looks), strict=True):
            if isinstance(reply, StoreError):
                due |= await self._failed(sid, reply)
            elif reply[0] == READY:
                ready.append((sid, Packed(*reply[1:])))
            else:
                due[sid] = reply[1] if reply[0] == LATER else 0
        for (sid, _), done in zip(ready, await self._swap(ready), strict=True):
            if isinstance(done, StoreError):
                due |= await self._failed(sid, done)
            else:
                self._isolation.worked(CHORE, sid)
                due[sid] = 0 if done else self._later()  # a write came between
        return due

    async def _failed(self, sid: str, error: StoreError) -> dict[str, int]:
        """When to retry a session that cannot be packed; None: when its claim expires."""
        if not of_record(error):
            return {}
        pause = await self._isolation.failed(CHORE, sid, error)
        return {sid: 0 if pause is None else round((time.time() + pause) * 1000)}

    def _later(self) -> int:
        return round(time.time() * 1000) + self._rule[1]

    def _look(self, sid: str) -> Command:
        return self._io.script_command("chill", every_key(sid), self._rule, repeatable=True)

    async def _swap(self, ready: Sequence[tuple[str, Packed]]) -> list[Any]:
        commands, sizes = [], []
        for sid, state in ready:
            size = sum(map(len, state.flat))
            if size < THREAD_BYTES:
                blob = pack_state(state)
            else:
                blob = await trio.to_thread.run_sync(pack_state, state)
            args = [state.version, state.epoch, state.lineage, blob]
            command = self._io.script_command("freeze", every_key(sid), args, repeatable=True)
            commands.append(command)
            sizes.append((size, len(blob)))
        replies = await self._io.request(commands) if commands else []
        for (size, packed), done in zip(sizes, replies, strict=True):
            if done == 1:
                self.frozen += 1
                self.state_bytes += size
                self.packed_bytes += packed
        return replies
