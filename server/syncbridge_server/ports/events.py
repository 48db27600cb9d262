"""The store of events: outboxes, the log that they are carried into, and whether anybody reads.

docs/decisions/0012-events.md says what stands where.
"""

from collections.abc import Awaitable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec

from syncbridge.errors import StoreError
from syncbridge.events.cursor import Cursor


class Listening(msgspec.Struct, frozen=True):
    """Whether events are written. Times in Unix ms of Redis's clock.

    Attributes:
        since: names the time in which they are; empty: they are not.
        ends: when that ends unless somebody reads again. values: likewise, values.
        settled: every node that was there at first writes them.
    """

    since: str = ""
    ends: int = 0
    values: int = 0
    settled: bool = False


class Part(msgspec.Struct, frozen=True):
    """The next entries of an outbox.

    Attributes:
        entries: name and fields, in order.
        left: sessions of the round that were not told yet. waiting: those of the next one.
        added: entries that it ever had. length: those that it has. first: the oldest of them. Not
            asked for (0, 0, empty) while the entry before these is there: nothing is missing then.
    """

    entries: Sequence[tuple[bytes, Sequence[bytes]]]
    left: int
    waiting: int
    added: int
    length: int
    first: bytes


class Place(msgspec.Struct, frozen=True):
    """Up to where an outbox was carried: an entry, and its number among all that it ever had."""

    entry: str = "0-0"
    number: int = 0

    def __str__(self) -> str:
        return f"{self.entry} {self.number}"


class Round(IntEnum):
    """What is done about sessions that have changed, before an outbox is read."""

    NONE = 0
    GO_ON = 1
    BEGIN = 2


class Want(NamedTuple):
    """What is asked of an outbox: what follows a place.

    `forget`: the entry up to which it may forget, but for that one; empty: nothing.
    """

    tag: str
    place: Place
    round: Round = Round.NONE
    forget: str = ""


class Load(NamedTuple):
    """Events of an outbox on their way into the log, and its places before and after them."""

    tag: str
    place: Place
    after: Place
    events: Sequence[bytes]


class EventStore(Protocol):
    """Events in Redis. Everything raises StoreError; lists have one in the place of an answer."""

    tags: Sequence[str]

    def listening(self) -> Awaitable[Listening]:
        """Whether events are written."""

    def listen(self, life_ms: int, values_ms: int) -> Awaitable[Listening]:
        """Have them written for so long, with values or (0) without."""

    def cease(self) -> Awaitable[bool]:
        """Stop that if its time is over and there is no endpoint; whether it has stopped."""

    def know(self, node: str, since: str) -> Awaitable[None]:
        """A node writes events from here on, in all that it sends."""

    def ignorant(self, since: str) -> Awaitable[list[str]]:
        """Nodes that live and do not write events yet."""

    def settle(self, since: str) -> Awaitable[None]:
        """Every node writes events: those that come later do so from their start."""

    def note(self, tags: Sequence[str], changed: Sequence[str]) -> Awaitable[bool]:
        """Events may be in these outboxes, and sessions have changed under those tags.

        Returns whether no other outbox was noted already.
        """

    def noted(self) -> Awaitable[set[str]]:
        """Outboxes that were noted since this was asked the last time."""

    def changed(self) -> Awaitable[set[str]]:
        """Likewise, tags under which sessions have changed."""

    def nodes(self) -> Awaitable[dict[str, str]]:
        """Nodes that live, and what each has said last of itself, which changes while it does."""

    def places(self) -> Awaitable[dict[str, Place]]:
        """Up to where each outbox was carried."""

    def take(
        self, wanted: Sequence[Want], most: int, *, values: bool
    ) -> Awaitable[Sequence[Part | StoreError]]:
        """What follows a place in some outboxes, at most so many entries of each.

        Of sessions that have changed `session.updated` is written first, with values or without,
        where a round is asked for. One that had an error may be among those that were told.
        """

    def expire(self, tags: Sequence[str]) -> Awaitable[Sequence[int | StoreError]]:
        """Write `session.expired` for those that are gone; ms until the next look at each tag."""

    def walked(self, since: str) -> Awaitable[bool]:
        """Whether all sessions that were there are known, so that their end will be told."""

    def walk(self, at: int) -> Awaitable[int]:
        """Note some sessions that are there; where to go on, 0 at the end."""

    def walk_done(self, since: str) -> Awaitable[None]:
        """All of them are known, for the time in which events are written."""

    def carry(self, loads: Sequence[Load]) -> Awaitable[tuple[list[Place | None], int]]:
        """Append the events of some outboxes to the log, and move their places.

        Returns for each None, or the place that it has when that is another one: nothing was done
        for it then. And how many old events the log has dropped.
        """

    def trim(self, tags: Sequence[tuple[str, str]]) -> Awaitable[None]:
        """Forget what outboxes have up to an entry."""

    def fade(self) -> Awaitable[None]:
        """Nobody reads: what is known of sessions may go when the last of them is gone."""

    def read(self, after: Cursor, most: int) -> Awaitable[list[tuple[Cursor, bytes]]]:
        """Entries of the log behind a place."""

    def last(self) -> Awaitable[Cursor]:
        """The place of the newest entry."""
