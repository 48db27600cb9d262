"""How long a call lasted, and the records of ended calls that a bill is made from.

A call is recorded once, by the write that ends it: a last state, a deletion before, a lease that
was not renewed, or the last moment before a call that nobody has ended is forgotten. Records are
numbered without a gap in each part of the ledger, so a reader that knows the last number it has
read of each part misses none and reads none twice; a number that is not there is told. A Redis that
lost its last records gives their numbers to others, so a reader also knows the last record itself,
by a digest.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from syncbridge.call_rules.events import EventKind
from syncbridge.calls import Call, CallEvent, CallState, StateChange
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.records.calls import LedgerPart

LEASE_EXPIRED = "lease_expired"
"""Cause of an end: no heartbeat came in time. The call counts as lasting until its last sign of
life."""
FORGOTTEN = "forgotten"
"""Cause of an end: the call is about to be forgotten, because nothing was written for too long."""
DELETED = "deleted"
"""Cause of an end: the call was deleted before it was terminated."""

_PLACE = re.compile(r"([0-9]{1,15})(?:-([0-9a-f]{6}))?", re.ASCII)


class LedgerPlace(NamedTuple):
    """How far a part of the ledger was read: the number of a record, and its digest if known."""

    number: int
    digest: str = ""


class Durations(msgspec.Struct, frozen=True):
    """How long a call rang, was active, and was on hold meanwhile, in ms.

    `seconds`: the active time in whole seconds, one that has begun counts.
    """

    ring_ms: int
    active_ms: int
    held_ms: int
    seconds: int


class CallRecord(msgspec.Struct, frozen=True):
    """A call that has ended, as it is billed. Times in Unix ms; 0 for what never was.

    Attributes:
        record: names it among all records, for ever.
        damaged: it cannot be read; nothing but `record` is known.
    """

    record: str
    id: str = ""
    type: str = ""
    created_at: int = 0
    created_by: str = ""
    active_at: int = 0
    ended_at: int = 0
    ended_by: str = ""
    cause: str = ""
    parent: str = ""
    channel: str = ""
    ring_ms: int = 0
    active_ms: int = 0
    held_ms: int = 0
    seconds: int = 0
    damaged: bool = False


def ended_at(call: Call) -> int:
    """When a call ended, Unix ms; 0 for one that goes on."""
    ends = [change.at for change in call.history if change.state is CallState.TERMINATED]
    return min([*ends, call.deleted_at] if call.deleted_at else ends, default=0)


def durations(call: Call, now: int) -> Durations:
    """How long a call lasted, or has lasted until `now` (Unix ms)."""
    end = ended_at(call) or now
    active = _entered(call.history, CallState.ACTIVE)
    rings = [event.at for event in call.events if event.kind == EventKind.RING]
    rang = max(0, (active or end) - rings[0]) if rings else 0
    lasted = max(0, end - active) if active else 0
    return Durations(rang, lasted, held_ms(call.events, end), -(-lasted // 1000))


def held_ms(events: Iterable[CallEvent], end: int) -> int:
    """How long a call was on hold until `end`, in ms."""
    total, since = 0, 0
    for event in events:
        if event.kind == EventKind.HOLD and not since:
            since = event.at
        elif event.kind == EventKind.RESUME and since:
            total, since = total + max(0, event.at - since), 0
    return total + (max(0, end - since) if since else 0)


def record_of(name: str, call: Call | None) -> CallRecord:
    """The record of a call that has ended; None: of one that cannot be read."""
    if call is None:
        return CallRecord(name, damaged=True)
    lasted = durations(call, 0)
    last = next((c for c in call.history if c.state is CallState.TERMINATED), None)
    return CallRecord(
        name,
        call.id,
        call.type,
        call.created_at,
        call.history[0].by if call.history else "",
        _entered(call.history, CallState.ACTIVE),
        ended_at(call),
        last.by if last else call.deleted_by,
        call.cause if last else DELETED,
        call.parent,
        call.channel,
        lasted.ring_ms,
        lasted.active_ms,
        lasted.held_ms,
        lasted.seconds,
    )


def cursor_text(places: Iterable[LedgerPlace]) -> str:
    """The last record read of each part, as text."""
    return ".".join(f"{p.number}-{p.digest}" if p.digest else str(p.number) for p in places)


def parse_ledger_cursor(text: str, parts: int) -> list[LedgerPlace] | None:
    """The places in a cursor; None for the beginning. Raises INVALID_FIELD."""
    if not text:
        return None
    found = [_PLACE.fullmatch(place) for place in text.split(".")]
    if len(found) != parts or None in found:
        detail = "cursor: the X-Next-Cursor of an export is expected"
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field="cursor")
    return [LedgerPlace(int(one[1]), one[2] or "") for one in found if one]


def check_part(after: LedgerPlace | None, part: LedgerPart) -> LedgerPlace:
    """The place to go on from, after what was read of a part. Raises EXPORT_GAP.

    `after`: the place from which it was read; None: begin with what is there.
    """
    known, digest = after or (None, "")
    number = check_run(known, part.last, [n for n, _ in part.records])
    if digest and part.before not in ("", digest):
        raise _gap()
    return LedgerPlace(number, part.end if part.records else digest)


def check_run(after: int | None, last: int, numbers: Sequence[int]) -> int:
    """The number to go on from, after a part's records that were read. Raises EXPORT_GAP.

    Args:
        after: last number that was read before; None: begin with what is there.
        last: number of the newest record. numbers: those that were read now, in order.
    """
    if after is None:
        after = numbers[0] - 1 if numbers else last
    expected = list(range(after + 1, after + 1 + len(numbers)))
    if list(numbers) != expected or last < after or (not numbers and last > after):
        raise _gap()
    return after + len(numbers)


def _gap() -> SyncBridgeError:
    return SyncBridgeError(
        ErrorCode.EXPORT_GAP,
        "records after the cursor are not kept any more, or Redis has lost some;"
        " without a cursor the export begins with the oldest that there are",
    )


def _entered(history: Iterable[StateChange], state: CallState) -> int:
    return next((change.at for change in history if change.state is state), 0)
