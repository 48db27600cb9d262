"""Encodes call sessions for Redis: keys, hashes, ledger entries, script replies."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from syncbridge.call_rules.listing import CallFilter
from syncbridge.calls import (
    Call,
    CallEvent,
    CallState,
    CallType,
    NewCall,
    Position,
    StateChange,
    is_id,
)
from syncbridge.integrity import TIME_MOST, check_state, check_time
from syncbridge.records.calls import CallReply, CallResult
from syncbridge.records.sessions import Status
from syncbridge_server.redis.stores.cold import StateDamaged

BUCKETS = 16
STATES = tuple(CallState)
TYPES = tuple(CallType)
RESULTS = {
    Status.OK: CallResult.DONE,
    Status.NOT_FOUND: CallResult.NOT_FOUND,
    Status.TOO_LARGE: CallResult.TOO_LARGE,
    Status.DUPLICATE: CallResult.UNCHANGED,
    Status.CONFLICT: CallResult.REFUSED,
    Status.PRECONDITION: CallResult.CHANGED,
}


class Part(NamedTuple):
    """The entries of an index for a page, and the number of damaged ones."""

    places: list[Position]
    damaged: int


def bucket_of(call_id: str) -> int:
    """The bucket of a call."""
    return crc32(call_id.encode()) % BUCKETS


def keys_of(call_id: str) -> list[str]:
    """The keys of a call: itself and those of its bucket, as the scripts want them."""
    bucket = bucket_of(call_id)
    return [
        f"call:{{{bucket}}}:{call_id}",
        *index_keys(bucket),
        due_key(bucket),
        ledger_key(bucket),
        *relation_keys(bucket),
    ]


def past_key(call_id: str) -> str:
    """The key of deleted calls with an id, which are kept for a while."""
    return f"past:{{{bucket_of(call_id)}}}:{call_id}"


def index_keys(bucket: int) -> list[str]:
    """The sorted sets of a bucket: expiry times, then an index for each type and state."""
    count = len(TYPES) * len(STATES)
    return [f"calls:{{{bucket}}}:{name}" for name in ("x", *range(count))]


def due_key(bucket: int) -> str:
    """The key of the times at which calls of a bucket end."""
    return f"calls:{{{bucket}}}:due"


def ledger_key(bucket: int) -> str:
    """The ledger of a bucket: calls that have ended."""
    return f"ledger:{{{bucket}}}"


def relation_keys(bucket: int) -> list[str]:
    """Calls by their parent and channel, and the place of each call there."""
    return [f"calls:{{{bucket}}}:rel", f"calls:{{{bucket}}}:relof"]


def indexes(state: CallState | None, call_type: CallType | None) -> Iterator[int]:
    """Numbers of the indexes that a filter selects."""
    for number in range(len(TYPES) * len(STATES)):
        of_type, of_state = divmod(number, len(STATES))
        if state in (None, STATES[of_state]) and call_type in (None, TYPES[of_type]):
            yield number


def score_range(after: Position | None, wanted: CallFilter) -> tuple[str, str]:
    """The start of a page in an index: score and id for `call_page`."""
    if after is not None and (not wanted.until or after[0] < wanted.until):
        return str(after[0]), after[1]
    return (f"({wanted.until}" if wanted.until else "+inf"), ""


def lexical_range(after: Position | None, wanted: CallFilter) -> tuple[str, str]:
    """The highest and lowest place of a page among the calls of a parent or channel."""
    field, value = ("parent", wanted.parent) if wanted.parent else ("channel", wanted.channel)
    start = f"{field}\0{value}\0"
    low = f"[{start}{wanted.since:016}"
    if after is not None and (not wanted.until or after[0] < wanted.until):
        return f"({start}{after[0]:016}\0{after[1]}", low
    return (f"({start}{wanted.until:016}" if wanted.until else f"({start}\x7f"), low


def maker_of(call: NewCall, by: str, request_key: str) -> str:
    """Distinguishes a repeated creation from another one for the same id."""
    named = dict(zip(call.details[::2], call.details[1::2], strict=True))
    parts = [by, request_key, call.type]
    if call.parent or call.channel:
        parts += [call.parent, call.channel]
    digest = blake2b(digest_size=16)
    for part in map(str.encode, parts):
        digest.update(b"%d:%b" % (len(part), part))
    for name in sorted(named):
        digest.update(b"%d:%b%d:%b" % (len(name), name, len(named[name]), named[name]))
    return digest.hexdigest()


def positions(reply: list[Any]) -> Part:
    """`[damaged indexes, id, created ms, ...]` as positions."""
    places: list[Position] = []
    damaged = reply[0]
    for raw, at in zip(reply[1::2], reply[2::2], strict=True):
        call_id = raw.decode(errors="replace")
        if 0 <= at <= TIME_MOST and is_id(call_id) and call_id.encode() == raw:
            places.append((at, call_id))
        else:
            damaged += 1
    return Part(places, damaged)


def related(reply: list[bytes]) -> Part:
    """Members `field NUL value NUL created ms NUL id` as positions."""
    flat: list[Any] = [0]
    for member in reply:
        _, _, place = member.partition(b"\0")
        at, _, call_id = place.partition(b"\0")[2].partition(b"\0")
        flat += [call_id, int(at) if at.isdigit() else -1]
    return positions(flat)


def reply_of(call_id: str, reply: list[Any]) -> CallReply:
    """A script's answer. Raises StateDamaged."""
    result = RESULTS[Status(reply[0])]
    if len(reply) == 1:
        return CallReply(result)
    with damage_told():
        call = call_of(call_id, reply[1]) if reply[1] else None
        previous = CallState(reply[2].decode()) if len(reply) > 2 else None
        return CallReply(result, call, previous)


def held(call_id: str, flat: list[bytes]) -> Call | None:
    """Decode a call's hash; None if there is none. Raises StateDamaged."""
    with damage_told():
        return call_of(call_id, flat) if flat else None


def recorded(flat: list[bytes]) -> Call:
    """Decode a ledger entry as a call. Raises StateDamaged."""
    with damage_told():
        kept = dict(zip(flat[::2], flat[1::2], strict=True))
        return call_of(kept[b"id"].decode(), flat)


def record_in(entry: tuple[bytes, list[bytes]]) -> tuple[int, Call | None]:
    """A ledger entry as its number and call; None for a damaged call."""
    name, flat = entry
    try:
        return int(name.partition(b"-")[0]), recorded(flat)
    except StateDamaged:
        return int(name.partition(b"-")[0]), None


def digest_of(entries: list[tuple[bytes, list[bytes]]]) -> str:
    """A short digest of the last of these ledger entries; empty without any."""
    if not entries:
        return ""
    digest = blake2b(digest_size=3)
    for part in entries[-1][1]:
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()


@contextmanager
def damage_told() -> Iterator[None]:
    """Raise StateDamaged for the errors that a damaged call causes."""
    try:
        yield
    except (ValueError, LookupError, msgspec.MsgspecError) as error:
        raise StateDamaged(f"a call session is damaged: {type(error).__name__}") from None


def call_of(call_id: str, flat: list[bytes]) -> Call:
    """Decode a call's hash. Raises ValueError, LookupError, MsgspecError."""
    kept = dict(zip(flat[::2], flat[1::2], strict=True))
    details: list[bytes] = []
    for name in sorted(name for name in kept if name.startswith(b".")):
        details += (name[1:], kept[name])
    check_state(details)
    deleted_at, _, deleted_by = kept.get(b"d", b"0").decode().partition(" ")
    return Call(
        call_id,
        CallType(kept[b"y"].decode()),
        CallState(kept[b"s"].decode()),
        moment(kept[b"c"]),
        moment(kept[b"u"]),
        details,
        [change_of(state, kept[state.encode()]) for state in STATES if state.encode() in kept],
        moment(deleted_at),
        deleted_by,
        int(kept.get(b"v", 0)),
        [event_of(kept[b"@%d" % n]) for n in range(1, int(kept.get(b"m", 0)) + 1)],
        kept.get(b"held") == b"1",
        kept.get(b"parent", b"").decode(),
        kept.get(b"channel", b"").decode(),
        kept.get(b"cause", b"").decode(),
        moment(kept.get(b"l", b"0").split()[-1]),
    )


def change_of(state: CallState, text: bytes) -> StateChange:
    """`ms who` as a change of state."""
    at, _, by = text.decode().partition(" ")
    return StateChange(state, moment(at), by)


def event_of(text: bytes) -> CallEvent:
    """`ms kind [who, value]` as an event."""
    at, kind, told = text.split(b" ", 2)
    by, value = msgspec.json.decode(told, type=tuple[str, str])
    return CallEvent(kind.decode(), moment(at), by, value)


def moment(text: str | bytes) -> int:
    """Unix ms. Raises ValueError for an invalid time."""
    ms = int(text)
    check_time(ms)
    return ms
