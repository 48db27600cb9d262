"""The store of endpoints: what is known of each, and the events that could not be delivered yet."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from syncbridge.events.delivery import Item
from syncbridge.events.endpoints import Endpoint

LETTERS_MOST = 1_000
"""Dead letters of an endpoint; the oldest make room."""


class Status(msgspec.Struct, omit_defaults=True):
    """How deliveries to an endpoint go. Times in Unix ms; 0: never.

    Attributes:
        cursor: up to where everything is delivered or held.
        failing_since: since when nothing is delivered.
        delivered, failed: attempts. dead: events that were given up.
        last_error: of the latest failure. late_ms: from event to delivery, of the latest one.
    """

    cursor: str = ""
    failing_since: int = 0
    delivered: int = 0
    failed: int = 0
    dead: int = 0
    delivered_at: int = 0
    failed_at: int = 0
    last_error: str = ""
    late_ms: int = 0


class Letter(msgspec.Struct):
    """An event that was given up. `entry` names it; `event` is its JSON."""

    entry: str
    event_id: str
    lane: str
    reason: str
    event: bytes


class EndpointStore(Protocol):
    """Endpoints in Redis. Everything raises StoreError."""

    def endpoints(self) -> Awaitable[list[Endpoint]]:
        """All of them, in the order in which they were made; one that is damaged is left out."""

    def count(self) -> Awaitable[int]:
        """How many there are."""

    def find(self, endpoint_id: str) -> Awaitable[Endpoint | None]:
        """One of them; None also for one that is damaged."""

    def put(self, endpoint: Endpoint) -> Awaitable[None]:
        """Store one, new or changed."""

    def disable(self, endpoint_id: str, reason: str, now_ms: int) -> Awaitable[bool]:
        """Send nothing to one any more, and tell `endpoint.disabled`, both or neither.

        False: it is gone, disabled already, or was changed meanwhile.
        """

    def remove(self, endpoint_id: str) -> Awaitable[bool]:
        """Forget one with all that is held for it; False when there is none."""

    def sweep(self, endpoint_id: str) -> Awaitable[None]:
        """Forget what was noted of one that is not there any more, after it was removed."""

    def status(self, endpoint_id: str) -> Awaitable[Status]:
        """How its deliveries go."""

    def save(self, endpoint_id: str, status: Status) -> Awaitable[None]:
        """Note how they go."""

    def held_count(self, endpoint_id: str) -> Awaitable[int]:
        """How many events are held for it."""

    def hold(self, endpoint_id: str, item: Item) -> Awaitable[str]:
        """Store an event apart; its name there."""

    def held(self, endpoint_id: str, after: str) -> Awaitable[tuple[list[Item], str]]:
        """Events that are held, behind a name, in order; and the name to go on with."""

    def note(self, endpoint_id: str, item: Item) -> Awaitable[None]:
        """Note when a held event is tried again."""

    def text(self, endpoint_id: str, entry: str) -> Awaitable[bytes]:
        """What a held event says; empty: it is not held any more."""

    def release(self, endpoint_id: str, entry: str) -> Awaitable[None]:
        """Forget a held event."""

    def bury(self, endpoint_id: str, item: Item, reason: str) -> Awaitable[None]:
        """Make a dead letter of an event."""

    def letters(
        self, endpoint_id: str, limit: int, cursor: str
    ) -> Awaitable[tuple[list[Letter], str]]:
        """Dead letters, the latest first, and the cursor of the next page."""

    def discard(self, endpoint_id: str, entry: str) -> Awaitable[bool]:
        """Discard a dead letter; False when there is none."""

    def replay_letters(self, endpoint_id: str, entries: Sequence[str]) -> Awaitable[int]:
        """Have dead letters delivered again; how many there were."""

    def replay(self, endpoint_id: str, events: Sequence[Item]) -> Awaitable[None]:
        """Have events delivered again."""
