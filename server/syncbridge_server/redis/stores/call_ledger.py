"""The ledger of calls that have ended: `syncbridge_server.ports.calls.Ledger`.

Each bucket of calls has a stream, written by the step that ends a call. The numbers of its entries
have no gap: the stream remembers the last one even when all entries are gone.
"""

from collections.abc import Callable, Sequence
from time import monotonic

from syncbridge.call_rules.billing import LEASE_EXPIRED
from syncbridge.calls import CallState
from syncbridge.errors import StoreError, StoreRejected
from syncbridge.records.calls import CallReply, CallResult, LedgerPart
from syncbridge_server.isolation import Isolation
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.stores.call_codec import (
    BUCKETS,
    digest_of,
    due_key,
    keys_of,
    ledger_key,
    record_in,
    reply_of,
)
from syncbridge_server.redis.stores.calls import patience_of, step_arguments

DUE_AT_ONCE = 64
LOOK_SECONDS = 120.0
"""Seconds between two reads of buckets without known work."""
RECORDS_SECONDS = 1_200.0
"""Likewise for old records: they are kept for days, so minutes do not matter."""
SYNCBRIDGE = "syncbridge"
"""`by` of a call that ended by its deadline."""


class RedisLedger:
    """Implements `syncbridge_server.ports.calls.Ledger`.

    Args:
        io: running client.
        ttl: lifetime of a call after its last write, in seconds. keep: lifetime of a record, in
            seconds. isolation: for ending calls.
        touched: buckets in which this node has written; those are read each time, the others every
            LOOK_SECONDS, and for old records every RECORDS_SECONDS. None: all, each time.
        clock: monotonic seconds.
    """

    parts = BUCKETS

    def __init__(
        self,
        io: RedisIO,
        ttl: float,
        keep: float,
        isolation: Isolation | None = None,
        touched: set[int] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._touched = touched
        self._clock = clock
        self._look_at = self._records_at = 0.0
        self._io = io
        self._ttl_ms = round(ttl * 1000)
        self._keep_ms = round(keep * 1000)
        self._isolation = isolation or Isolation()

    async def read(self, after: Sequence[int | None], each: int) -> list[LedgerPart]:
        """See `Ledger.read`."""
        commands = [
            self._io.script_command(
                "call_export", [ledger_key(bucket)], [number or 0, each], repeatable=True
            )
            for bucket, number in enumerate(after)
        ]
        parts = []
        for reply in await self._io.request(commands):
            if isinstance(reply, StoreError):
                raise reply
            last, entries, before = reply
            records = [record_in(entry) for entry in entries]
            parts.append(LedgerPart(last, records, digest_of(before), digest_of(entries)))
        return parts

    async def sweep(self) -> list[CallReply]:
        """See `Ledger.sweep`."""
        buckets = sorted(await self._busy())
        commands = [
            self._io.script_command(
                "call_sweep",
                [due_key(bucket), ledger_key(bucket)],
                [DUE_AT_ONCE, self._keep_ms],
                repeatable=True,
            )
            for bucket in buckets
        ]
        replies = await self._io.request(commands) if commands else []
        found = [(f"bucket {bucket}", r) for bucket, r in zip(buckets, replies, strict=True)]
        lists = await self._isolation.each("sweep", found, list)
        names = [name for part in lists for name in part]
        return await self._end([name.decode(errors="replace") for name in names])

    async def _busy(self) -> set[int]:
        """The buckets in which something may be due.

        A node without calls runs no script, only rare plain reads. These find calls that only a
        dead node has written, at most LOOK_SECONDS after their lease.
        """
        now = self._clock()
        if self._touched is not None and now < self._look_at:
            return self._touched
        records = self._touched is None or now >= self._records_at
        due, recorded = await self._look(records)
        self._look_at = now + LOOK_SECONDS
        if records:
            self._records_at = now + RECORDS_SECONDS
        return due | recorded

    async def _look(self, records: bool) -> tuple[set[int], set[int]]:
        """The buckets with due times, and with `records` those that have any.

        What is written meanwhile is touched anew, whatever was read before it.
        """
        known = set(self._touched or ())
        if self._touched is not None:
            self._touched.clear()
        due: set[int] = known
        try:
            commands = [plain("ZCARD", due_key(b), repeatable=True) for b in range(BUCKETS)]
            if records:
                commands += [
                    plain("EXISTS", ledger_key(b), repeatable=True) for b in range(BUCKETS)
                ]
            replies = await self._io.request(commands)
            for reply in replies:
                if isinstance(reply, StoreError) and not isinstance(reply, StoreRejected):
                    raise reply
            due = {b for b in range(BUCKETS) if replies[b]}
        finally:
            if self._touched is not None:
                self._touched |= due
        return due, {b for b, record in enumerate(replies[BUCKETS:]) if record}

    async def _end(self, ids: Sequence[str]) -> list[CallReply]:
        """End calls that are due; the script checks that again."""
        spans = (self._ttl_ms, patience_of(self._ttl_ms))
        steps = []
        for call_id in ids:
            args = step_arguments(
                call_id, CallState.TERMINATED, SYNCBRIDGE, spans, LEASE_EXPIRED, due="due"
            )
            keys = keys_of(call_id)[:10]
            steps.append(self._io.script_command("call_state", keys, args, repeatable=True))
        replies = await self._io.request(steps) if steps else []
        found = [
            (i, reply if isinstance(reply, Exception) else (i, reply))
            for i, reply in zip(ids, replies, strict=True)
        ]
        answers = await self._isolation.each("sweep", found, lambda one: reply_of(*one))
        return [answer for answer in answers if answer.result is CallResult.DONE]
