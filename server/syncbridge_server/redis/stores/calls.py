"""Call sessions in Redis: `syncbridge_server.ports.calls.Calls` over the scripts `call_*`.

Theory of operation. Calls are spread over `BUCKETS` by their id, and a bucket is one slot of a
cluster. A call is a hash; its bucket has a sorted set of ids by time of creation for each type and
state, and one of expiry times. One script writes all of them, so the indexes always agree with the
hashes, and a list filtered by type and state reads only calls that it shows. Calls by parent and by
channel are an index of the same kind.

A page asks every bucket for its newest ids after the position, merges them, and reads the calls
that made it: two round trips, O(BUCKETS * limit). A call that changed in between is filtered again.
A text search examines what was read, in at most `ROUNDS` such steps.

A call that nobody ends is ended at its time in `due`: at the end of its lease, or before it
expires. The step that ends a call also writes its record to the bucket's ledger, so each call has
one record, and their numbers have no gap.

A page omits and counts damaged calls, index entries without a call, and damaged indexes.
"""

import secrets
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from syncbridge.call_rules.billing import FORGOTTEN
from syncbridge.call_rules.events import MOST_EVENTS, RULES, EventKind
from syncbridge.call_rules.listing import CallFilter
from syncbridge.calls import (
    Call,
    CallState,
    NewCall,
    Position,
    details_bytes,
    merge_pages,
    sources,
)
from syncbridge.records.calls import CallPage, CallReply, CallResult
from syncbridge_server.isolation import Isolation
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.stores.call_codec import (
    BUCKETS,
    STATES,
    TYPES,
    bucket_of,
    due_key,
    held,
    index_keys,
    indexes,
    keys_of,
    lexical_range,
    maker_of,
    past_key,
    positions,
    recorded,
    related,
    relation_keys,
    reply_of,
    score_range,
)

Argument = bytes | str | int
PAST_CALLS = 16
"""Most deleted calls kept for one id."""

ROUNDS = 10
MARGIN_MS = 3_600_000
"""A call that nobody has ended is ended this long before it expires, or in the last eighth of its
lifetime, whichever is less: the nodes have that time to record it."""


class RedisCalls:
    """Implements `syncbridge_server.ports.calls.Calls`.

    Args:
        io: running client.
        ttl: lifetime of a call after its last write, in seconds. max_bytes: largest details of a
            call.
        isolation: for listing calls.
        lease: seconds within which the next heartbeat is expected.
        touched: collects the buckets of calls written here, for `RedisLedger`.
    """

    def __init__(
        self,
        io: RedisIO,
        ttl: float,
        max_bytes: int,
        isolation: Isolation | None = None,
        lease: float = 60.0,
        touched: set[int] | None = None,
    ) -> None:
        self._touched = touched if touched is not None else set()
        self._isolation = isolation or Isolation()
        self._io = io
        self._ttl_ms = round(ttl * 1000)
        self._patience_ms = patience_of(self._ttl_ms)
        self._max_bytes = max_bytes
        self._lease_ms = round(lease * 1000)

    async def create(self, call_id: str, call: NewCall, by: str, request_key: str) -> CallReply:
        """See `Calls.create`."""
        self._touched.add(bucket_of(call_id))
        args: list[Argument] = [
            call_id,
            call.type,
            TYPES.index(call.type) * len(STATES),
            by,
            maker_of(call, by, request_key or secrets.token_hex(16)),
            self._ttl_ms,
            self._patience_ms,
            details_bytes(call.details),
            call.parent,
            call.channel,
            *call.details,
        ]
        reply = await self._io.script("call_create", keys_of(call_id), args, repeatable=True)
        answer = reply_of(call_id, reply)
        if answer.result is CallResult.REFUSED:
            answer.result = CallResult.EXISTS
        return answer

    async def read(self, call_id: str) -> Call | None:
        """See `Calls.read`."""
        return held(call_id, await self._io.execute("HGETALL", keys_of(call_id)[0]))

    async def read_deleted(self, call_id: str) -> list[Call]:
        """See `Calls.read_deleted`."""
        entries = await self._io.execute("XREVRANGE", past_key(call_id), "+", "-")
        return [recorded(flat) for _, flat in entries]

    async def set_state(
        self, call_id: str, state: CallState, by: str, cause: str = "", tag: str = ""
    ) -> CallReply:
        """See `Calls.set_state`."""
        self._touched.add(bucket_of(call_id))
        spans = (self._ttl_ms, self._patience_ms)
        args = step_arguments(call_id, state, by, spans, cause, tag)
        keys = keys_of(call_id)[:10]
        return reply_of(call_id, await self._io.script("call_state", keys, args, repeatable=True))

    async def note_event(
        self, call_id: str, kind: EventKind, value: str, by: str, request_key: str, tag: str
    ) -> CallReply:
        """See `Calls.note_event`."""
        self._touched.add(bucket_of(call_id))
        rule = RULES[kind]
        made = f"{by}\0{request_key}\0{kind}\0{value}"
        key = blake2b(made.encode(), digest_size=16).hexdigest()
        args: list[Argument] = [
            call_id,
            self._ttl_ms,
            self._patience_ms,
            tag,
            MOST_EVENTS,
            key if request_key else "",
            kind,
            msgspec.json.encode((by, value)),
            rule.held,
            rule.changes,
            {EventKind.HOLD: "1", EventKind.RESUME: "0"}.get(kind, value),
            *rule.states,
        ]
        # Repeatable only with a key: without one the event would be noted twice.
        keys = [*keys_of(call_id)[:2], *keys_of(call_id)[8:9], *keys_of(call_id)[10:12]]
        reply = await self._io.script("call_event", keys, args, repeatable=bool(request_key))
        answer = reply_of(call_id, reply)
        if answer.result is CallResult.REFUSED:
            answer.result = CallResult.LATE
        return answer

    async def beat(self, call_id: str) -> CallReply:
        """See `Calls.beat`."""
        self._touched.add(bucket_of(call_id))
        args: list[Argument] = [call_id, self._ttl_ms, self._lease_ms]
        keys = [*keys_of(call_id)[:2], keys_of(call_id)[8]]
        return reply_of(call_id, await self._io.script("call_beat", keys, args, repeatable=True))

    async def merge_details(
        self, call_id: str, details: Sequence[bytes], tag: str = ""
    ) -> CallReply:
        """See `Calls.merge_details`."""
        self._touched.add(bucket_of(call_id))
        args: list[Argument] = [
            call_id,
            self._ttl_ms,
            self._patience_ms,
            self._max_bytes,
            tag,
            *details,
        ]
        keys = [*keys_of(call_id)[:2], keys_of(call_id)[8]]
        # With a tag the second time would find the call changed by the first one.
        reply = await self._io.script("call_details", keys, args, repeatable=not tag)
        return reply_of(call_id, reply)

    async def delete(self, call_id: str, by: str, tag: str = "") -> CallReply:
        """See `Calls.delete`."""
        # Not repeatable: the second answer would say that there is no such call.
        keys = [*keys_of(call_id), past_key(call_id)]
        args: list[Argument] = [call_id, by, tag, PAST_CALLS]
        return reply_of(call_id, await self._io.script("call_delete", keys, args))

    async def page(self, limit: int, after: Position | None, wanted: CallFilter) -> CallPage:
        """See `Calls.page`."""
        page = await self._step_of_page(limit, after, wanted)
        for _ in range(ROUNDS - 1):
            if page.calls or page.following is None:
                break
            following = await self._step_of_page(limit, page.following, wanted)
            following.damaged = page.damaged + following.damaged
            page = following
        return page

    async def _step_of_page(
        self, limit: int, after: Position | None, wanted: CallFilter
    ) -> CallPage:
        """The next `limit` calls of the indexes that match the filter."""
        by_relation = bool(wanted.parent or wanted.channel)
        commands = [
            self._related(bucket, limit, after, wanted)
            if by_relation
            else self._newest(bucket, limit, after, wanted)
            for bucket in range(BUCKETS)
        ]
        found = [
            (f"bucket {bucket}", reply)
            for bucket, reply in enumerate(await self._io.request(commands))
        ]
        parts = await self._isolation.each("list", found, related if by_relation else positions)
        damaged = len(found) - len(parts) + sum(part.damaged for part in parts)
        places, more = merge_pages([part.places for part in parts], limit)
        read, unread = await self._read([call_id for _, call_id in places])
        shown = [call for call in read if call and wanted.matches(call)]
        return CallPage(shown, places[-1] if more else None, damaged + unread)

    def _newest(
        self, bucket: int, limit: int, after: Position | None, wanted: CallFilter
    ) -> Command:
        score, last = score_range(after, wanted)
        args: list[Argument] = [
            limit + 1,
            score,
            last,
            wanted.since or "-inf",
            *indexes(wanted.state, wanted.type),
        ]
        keys = [*index_keys(bucket), due_key(bucket), *relation_keys(bucket)]
        return self._io.script_command("call_page", keys, args, repeatable=True)

    def _related(
        self, bucket: int, limit: int, after: Position | None, wanted: CallFilter
    ) -> Command:
        high, low = lexical_range(after, wanted)
        key = relation_keys(bucket)[0]
        return plain("ZREVRANGEBYLEX", key, high, low, "LIMIT", 0, limit + 1, repeatable=True)

    async def _read(self, ids: Sequence[str]) -> tuple[list[Call | None], int]:
        """The calls with these ids, and the number of damaged ones. Raises StoreError."""
        reads = [plain("HGETALL", keys_of(i)[0], repeatable=True) for i in ids]
        replies = await self._io.request(reads) if reads else []
        found = [
            (i, reply if isinstance(reply, Exception) else (i, reply))
            for i, reply in zip(ids, replies, strict=True)
        ]
        calls = await self._isolation.each("list", found, lambda one: held(*one))
        return calls, len(found) - len(calls)


def patience_of(ttl_ms: int) -> int:
    """Ms after its last write when a call without a lease is ended."""
    return ttl_ms - min(MARGIN_MS, ttl_ms // 8)


def step_arguments(
    call_id: str,
    state: CallState,
    by: str,
    spans: tuple[int, int],
    cause: str = "",
    tag: str = "",
    due: str = "",
) -> list[Argument]:
    """Arguments of `call_state`. `spans`: ms until a call is forgotten, and until it is ended."""
    number = STATES.index(state)
    return [call_id, state, number, by, *spans, cause, tag, due, FORGOTTEN, *sources(state)]
