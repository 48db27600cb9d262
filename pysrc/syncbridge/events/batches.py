"""Events that are posted together, as one message, because their endpoint has asked for that.

A batch is a message like another: it has an id, it is signed as a whole, and it is sent again as a
whole. All batches of an endpoint are one lane, so that every session keeps its order. The id is
made of those of the events: what is gathered anew after a crash, alike, has the same one.
"""

import hashlib
from collections.abc import Sequence

from syncbridge.events.cursor import Cursor

TYPE = "events.batch"
LANE = "batch"
MOST_BYTES = 262_144


def batch_of(events: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The id of a batch and its body. `events`: id and JSON of each, in order."""
    ids = "\n".join(event_id for event_id, _ in events)
    name = f"batch-{hashlib.sha256(ids.encode()).hexdigest()[:32]}"
    texts = b",".join(text for _, text in events)
    head = f'{{"id":"{name}","type":"{TYPE}","type_version":1,"data":{{"events":['
    return name, head.encode() + texts + b"]}}"


class Gathering:
    """The events of the next batch.

    Args:
        most: events of one. seconds: from its first event until it is sent.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._events: list[tuple[str, bytes]] = []
        self._places: list[Cursor] = []
        self._bytes = 0
        self._until = 0.0

    def add(self, place: Cursor, event_id: str, text: bytes, now: float) -> None:
        """One more event. `now`: seconds, of any clock."""
        if not self._events:
            self._until = now + self._seconds
        self._events.append((event_id, text))
        self._places.append(place)
        self._bytes += len(text)

    @property
    def full(self) -> bool:
        """Whether the batch may not have more."""
        return len(self._events) >= self._most or self._bytes >= MOST_BYTES

    def wait(self, now: float) -> float | None:
        """Seconds until it is to be sent, 0: now; None: there is nothing."""
        if not self._events:
            return None
        return 0.0 if self.full else max(self._until - now, 0.0)

    def take(self) -> tuple[list[Cursor], str, bytes]:
        """The batch: its places in the log, its id and its body. The next one begins."""
        name, text = batch_of(self._events)
        places, self._events, self._places, self._bytes = self._places, [], [], 0
        return places, name, text
