"""Numbered updates: the state of a device's stream on a node, and which updates are lost.

Theory of operation. A stream is one queue of a device, whose updates have the numbers 1, 2, 3 …
The store takes an update only if its number is the next, and keeps the last one in the session, so
that both are there or both are lost. A number that was acknowledged and is above the store's last
one therefore belongs to an update that the store has lost. A stream that the store does not know is
another matter: it may have been pushed out by newer ones of the device, which loses nothing. Only
where the history itself is known to be gone does an unknown stream mean that all of it is lost.

The record of a device in the store, see docs/decisions/0009-the-layout-of-redis.md:
`stream seq version`, up to two joined by `;`, then optionally `;` and older streams joined by `,`.
"""

import base64
from collections import deque
from functools import lru_cache
from hashlib import sha256

REMEMBERED = 256
"""Acknowledged updates of a connection whose ids are known."""

UNKNOWN, PUSHED_OUT = -1, -2
"""Instead of a stream's last number: unknown, because newer streams have replaced it."""


@lru_cache(4_096)
def stream_name(text: str) -> str:
    """The 11 characters that represent a client's name of a stream; "" for none."""
    if not text:
        return ""
    return base64.urlsafe_b64encode(sha256(text.encode()).digest()[:8]).decode()[:11]


def last_number(record: bytes, stream: str) -> int:
    """The last number of a stream in a device's record, UNKNOWN or PUSHED_OUT."""
    name = stream_name(stream).encode()
    for part in record.split(b";"):
        fields = part.split(b" ")
        if fields[0] == name and len(fields) == 3:
            return int(fields[1])
    return PUSHED_OUT if name in record else UNKNOWN


def applied(found: int, acked: int, *, gone: bool) -> int | None:
    """The last number of its stream that a device is told; None if unknown.

    Args:
        found: the store's last number, UNKNOWN or PUSHED_OUT.
        acked: the last number that was acknowledged to the device.
        gone: the history that the device knows is known to be lost.
    """
    if found >= 0:
        return found
    if found == UNKNOWN and (gone or not acked):
        return 0
    return None


class Stream:
    """The stream of one connection.

    Attributes:
        text: the client's name of it.
        acked: the last number that was acknowledged to the device.
        known: whether the store knew the stream when it was asked last.
    """

    __slots__ = ("_done", "_lost", "acked", "known", "text")

    def __init__(self, text: str, acked: int = 0) -> None:
        self.text = text
        self.acked = acked
        self.known = False
        self._done: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)
        self._lost: list[str] = []

    def acknowledge(self, seq: int, correlation_id: str) -> None:
        """The store has an update, and the device is told so."""
        self.known = True
        if seq > self.acked:
            self.acked = seq
            self._done.append((seq, correlation_id))

    def found(self, last: int, *, gone: bool) -> int:
        """The store was asked; returns how many acknowledged updates it has lost.

        Args: as for `applied`.
        """
        told = applied(last, self.acked, gone=gone)
        self.known = told is not None
        if told is None:
            self.acked = 0
            return 0
        count = self._cut(told)
        self.acked = told
        return count

    def _cut(self, last: int) -> int:
        count = max(0, self.acked - last)
        if count:
            self._lost += [name for seq, name in self._done if seq > last and name]
            self._done = deque([pair for pair in self._done if pair[0] <= last], REMEMBERED)
        return count

    def take_lost(self) -> list[str]:
        """Ids of lost updates, once."""
        lost, self._lost = self._lost, []
        return lost
