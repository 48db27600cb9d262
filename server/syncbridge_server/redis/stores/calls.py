"""Call sessions in Redis: `syncbridge_server.ports.calls.Calls` over the scripts `call_*`.

Theory of operation. Calls are spread over `BUCKETS` by their id, and a bucket is one slot of a
cluster. A call is a hash; its bucket has a sorted set of ids by time of creation for each type and
state, and one of the times at which calls are forgotten. All of them are written by the one script
of a write, so the indexes always say what the hashes say, and a list filtered by type and state
reads no call that it does not show.

A page asks every bucket for its newest ids after the position, merges them, and reads the calls
that made it: two round trips, O(BUCKETS * limit). A call that changed in between is judged again.
"""

import secrets
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any
from zlib import crc32

from syncbridge.calls import (
    Call,
    CallState,
    CallType,
    Position,
    StateChange,
    details_bytes,
    merge_pages,
    sources,
)
from syncbridge.errors import StoreError
from syncbridge.records.calls import CallPage, CallReply, CallResult
from syncbridge.records.sessions import Status
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.link.wire import pack

Argument = bytes | str | int
BUCKETS = 16
STATES = tuple(CallState)
TYPES = tuple(CallType)
_RESULTS = {
    Status.OK: CallResult.DONE,
    Status.NOT_FOUND: CallResult.NOT_FOUND,
    Status.TOO_LARGE: CallResult.TOO_LARGE,
    Status.DUPLICATE: CallResult.UNCHANGED,
    Status.CONFLICT: CallResult.REFUSED,
}


class RedisCalls:
    """Implements `syncbridge_server.ports.calls.Calls`.

    Args:
        io: running client.
        ttl: seconds after its last write in which a call is kept.
        max_bytes: largest details of a call.
    """

    def __init__(self, io: RedisIO, ttl: float, max_bytes: int) -> None:
        self._io = io
        self._ttl_ms = round(ttl * 1000)
        self._max_bytes = max_bytes

    async def create(
        self,
        call_id: str,
        call_type: CallType,
        details: Sequence[bytes],
        by: str,
        request_key: str,
    ) -> CallReply:
        """See `Calls.create`."""
        maker = maker_of(call_type, details, by, request_key or secrets.token_hex(16))
        first = TYPES.index(call_type) * len(STATES)
        args: list[Argument] = [
            call_id,
            call_type,
            first,
            by,
            maker,
            self._ttl_ms,
            details_bytes(details),
        ]
        reply = await self._io.script(
            "call_create", keys_of(call_id), [*args, *details], repeatable=True
        )
        answer = reply_of(call_id, reply)
        if answer.result is CallResult.REFUSED:
            answer.result = CallResult.EXISTS
        return answer

    async def read(self, call_id: str) -> Call | None:
        """See `Calls.read`."""
        return (await self._read({keys_of(call_id)[0]: call_id}))[0]

    async def read_deleted(self, call_id: str) -> Call | None:
        """See `Calls.read_deleted`."""
        return (await self._read({gone_key(call_id): call_id}))[0]

    async def set_state(self, call_id: str, state: CallState, by: str) -> CallReply:
        """See `Calls.set_state`."""
        args: list[Argument] = [
            call_id,
            state,
            STATES.index(state),
            by,
            self._ttl_ms,
            *sources(state),
        ]
        reply = await self._io.script("call_state", keys_of(call_id), args, repeatable=True)
        return reply_of(call_id, reply)

    async def merge_details(self, call_id: str, details: Sequence[bytes]) -> CallReply:
        """See `Calls.merge_details`."""
        args: list[Argument] = [call_id, self._ttl_ms, self._max_bytes, *details]
        reply = await self._io.script("call_details", keys_of(call_id)[:2], args, repeatable=True)
        return reply_of(call_id, reply)

    async def delete(self, call_id: str, by: str) -> CallReply:
        """See `Calls.delete`."""
        # Not repeatable: the second answer would say that there is no such call.
        keys = [*keys_of(call_id), gone_key(call_id)]
        return reply_of(call_id, await self._io.script("call_delete", keys, [call_id, by]))

    async def page(
        self,
        limit: int,
        after: Position | None,
        state: CallState | None,
        call_type: CallType | None,
    ) -> CallPage:
        """See `Calls.page`."""
        score, last = after or ("+inf", "")
        args = [limit + 1, score, last, *indexes(state, call_type)]
        commands = [
            self._io.script_command("call_page", index_keys(bucket), args, repeatable=True)
            for bucket in range(BUCKETS)
        ]
        parts = [positions(reply) for reply in await self._all(commands)]
        places, more = merge_pages(parts, limit)
        calls = await self._read({keys_of(call_id)[0]: call_id for _, call_id in places})
        shown = [c for c in calls if c and state in (None, c.state) and call_type in (None, c.type)]
        return CallPage(shown, places[-1] if more else None)

    async def _read(self, ids: dict[str, str]) -> list[Call | None]:
        """The calls under these keys, whose ids are given."""
        if not ids:
            return []
        replies = await self._all([Command(pack("HGETALL", k), repeatable=True) for k in ids])
        return [call_of(i, reply) for i, reply in zip(ids.values(), replies, strict=True)]

    async def _all(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._io.request(commands)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies


def bucket_of(call_id: str) -> int:
    """The bucket of a call."""
    return crc32(call_id.encode()) % BUCKETS


def keys_of(call_id: str) -> list[str]:
    """The keys of a call: itself and those of its bucket, as the scripts want them."""
    bucket = bucket_of(call_id)
    return [f"call:{{{bucket}}}:{call_id}", *index_keys(bucket)]


def gone_key(call_id: str) -> str:
    """Where a call stays for a while after its deletion."""
    return f"gone:{{{bucket_of(call_id)}}}:{call_id}"


def index_keys(bucket: int) -> list[str]:
    """The sorted sets of a bucket: times of forgetting, then an index for each type and state."""
    count = len(TYPES) * len(STATES)
    return [f"calls:{{{bucket}}}:{name}" for name in ("x", *range(count))]


def indexes(state: CallState | None, call_type: CallType | None) -> Iterator[int]:
    """Numbers of the indexes that a filter asks for."""
    for number in range(len(TYPES) * len(STATES)):
        of_type, of_state = divmod(number, len(STATES))
        if state in (None, STATES[of_state]) and call_type in (None, TYPES[of_type]):
            yield number


def maker_of(call_type: CallType, details: Sequence[bytes], by: str, request_key: str) -> str:
    """What tells the repetition of a creation from another one for the same id."""
    named = dict(zip(details[::2], details[1::2], strict=True))
    digest = blake2b(digest_size=16)
    for part in (by.encode(), request_key.encode(), call_type.encode()):
        digest.update(b"%d:%b" % (len(part), part))
    for name in sorted(named):
        digest.update(b"%d:%b%d:%b" % (len(name), name, len(named[name]), named[name]))
    return digest.hexdigest()


def positions(flat: list[Any]) -> list[Position]:
    """`[id, created ms, ...]` as positions."""
    return [(at, call_id.decode()) for call_id, at in zip(flat[::2], flat[1::2], strict=True)]


def reply_of(call_id: str, reply: list[Any]) -> CallReply:
    """A script's answer."""
    result = _RESULTS[Status(reply[0])]
    if len(reply) == 1:
        return CallReply(result)
    previous = CallState(reply[2].decode()) if len(reply) > 2 else None
    return CallReply(result, call_of(call_id, reply[1]), previous)


def call_of(call_id: str, flat: list[bytes]) -> Call | None:
    """A call out of its hash; None when there is none."""
    if not flat:
        return None
    held = dict(zip(flat[::2], flat[1::2], strict=True))
    details: list[bytes] = []
    for name in sorted(name for name in held if name.startswith(b".")):
        details += (name[1:], held[name])
    deleted_at, _, deleted_by = held.get(b"d", b"0").decode().partition(" ")
    return Call(
        call_id,
        CallType(held[b"y"].decode()),
        CallState(held[b"s"].decode()),
        int(held[b"c"]),
        int(held[b"u"]),
        details,
        [change_of(state, held[state.encode()]) for state in STATES if state.encode() in held],
        int(deleted_at),
        deleted_by,
    )


def change_of(state: CallState, text: bytes) -> StateChange:
    """`ms who` as a change of state."""
    at, _, by = text.decode().partition(" ")
    return StateChange(state, int(at), by)
