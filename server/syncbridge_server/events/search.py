"""Events of the log by their ids.

An id ends in the time at which its outbox got the event, which is not later than that of the log
but for the clocks of two servers of a cluster. So the log is looked through from there on, no
further than the last of them is found.
"""

import re
from collections.abc import Set

import msgspec

from syncbridge.events.cursor import Cursor
from syncbridge.events.kinds import Event
from syncbridge_server.ports.events import EventStore

PART = 256
CLOCKS_MS = 60_000
"""By how much two servers' clocks may differ."""

_TIMED = re.compile(r".*-(\d{1,15})-\d{1,20}(?:-lost)?", re.DOTALL)


class _Id(msgspec.Struct):
    """Of an event, what is compared."""

    id: str


_id_of = msgspec.json.Decoder(_Id).decode
_decode = msgspec.json.Decoder(Event).decode


async def find_events(store: EventStore, ids: Set[str]) -> list[Event]:
    """Those that the log has, in its order. Raises StoreError. O(entries since the oldest)."""
    times = {name: int(match[1]) for name in ids if (match := _TIMED.fullmatch(name))}
    left, found = set(times), list[Event]()
    cursor = Cursor(max(min(times.values(), default=0) - CLOCKS_MS, 0), 0)
    while left:
        entries = await store.read(cursor, PART)
        for place, text in entries:
            cursor = place
            if event := _wanted(text, left):
                left.discard(event.id)
                found.append(event)
        if len(entries) < PART:
            break
    return found


def _wanted(text: bytes, ids: Set[str]) -> Event | None:
    """The event if it is one of these; None also for what cannot be read."""
    try:
        return _decode(text) if _id_of(text).id in ids else None
    except msgspec.DecodeError:
        return None
