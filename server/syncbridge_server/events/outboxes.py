"""The outboxes as the node that carries them knows them; without waiting.

An entry of an outbox has a number: how many entries the outbox ever had when it was added. So what
was dropped before it was carried is counted, and told as an event of its own. An outbox that begins
anew, after Redis has lost it, gives lower numbers: nothing is known to be missing then.
"""

from collections.abc import Iterator, Sequence

import structlog

from syncbridge.events.kinds import Event, EventsLost
from syncbridge.events.outbox import Unreadable, encode, event_of, new_event, time_text
from syncbridge_server.ports.events import Part, Place

log = structlog.get_logger("events")


def number_before(place: Place, part: Part) -> int:
    """The number of the last entry before those of a part, as it is now known."""
    if _key(part.first) > _key(place.entry.encode()):
        return part.added - part.length
    return place.number


def place_after(place: Place, part: Part, most: int) -> Place:
    """Where the outbox is carried up to, with a part of at most `most` entries."""
    if not part.entries:
        return place
    number = number_before(place, part) + len(part.entries)
    if part.added and len(part.entries) < most:
        number = part.added  # that was all
    return Place(part.entries[-1][0].decode(), number)


def lost_of(tag: str, place: Place, part: Part) -> Event | None:
    """The event that says what is missing before a part; None: nothing is."""
    if not part.entries:
        return None
    count = number_before(place, part) - place.number
    if count <= 0:
        return None
    since, until = _ms(place.entry), _ms(part.entries[0][0].decode())
    after = "" if place == Place() else f"{tag}-{place.entry}"
    told = EventsLost(count, tag, after, time_text(since), time_text(until))
    return new_event(f"{tag}-{place.entry}-lost", "events.lost", until, told)


def events_of(tag: str, entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> Iterator[Event]:
    """The events of entries, in order; one that cannot be read is left out."""
    for name, fields in entries:
        try:
            yield event_of(tag, name, fields)
        except Unreadable as error:
            log.error("event_unreadable", outbox=tag, entry=name.decode(), reason=str(error))


def carried(tag: str, place: Place, part: Part) -> list[bytes]:
    """What is appended to the log for a part."""
    lost = lost_of(tag, place, part)
    events = [*([lost] if lost else []), *events_of(tag, part.entries)]
    return [encode(event) for event in events]


def _key(entry: bytes) -> tuple[int, int]:
    ms, _, number = entry.partition(b"-")
    return int(ms or 0), int(number or 0)


def _ms(entry: str) -> int:
    return int(entry.partition("-")[0])
