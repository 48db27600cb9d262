"""What the server asks the store about voice channels, and the webhooks that wait for them.

A channel is read, changed and written back: `write` does nothing, and returns None, after a
concurrent write. What was changed travels to every node, in the order of revisions, as a
`ChannelNews`; a node that misses one reads the channel again. A channel is known by its key
(`syncbridge.voice.naming`), which `ChannelNames` says. Every method raises StoreError as
`syncbridge_server.ports.store` says. Times are Unix ms, those of the caller's clock.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from syncbridge.errors import StoreError
from syncbridge.voice.records import ChannelRecord, Final
from syncbridge.voice.stored import ChannelNews, DeadLetter, Due, Stored, WebhookDelivery
from syncbridge.voice.timeline import TimelineEntry


class Lock(Protocol):
    """A lock that was got."""

    def keep(self, life_ms: int) -> Awaitable[bool]:
        """Renew its expiry. False: it had run out."""


class Channels(Protocol):
    """The voice channels."""

    def read(self, channel_id: str) -> Awaitable[Stored]:
        """A channel; a new record when there is none."""

    def read_many(self, channel_ids: Sequence[str]) -> Awaitable[list[Stored | StoreError]]:
        """Several, in the order asked for, in one round trip.

        One that is damaged is an error (STATE_DAMAGED) in its place.
        """

    def write(
        self,
        stored: Stored,
        record: ChannelRecord,
        *,
        due_at: int | None,
        live: bool,
        news: Sequence[dict[str, Any]] = (),
        finals: Sequence[Final] = (),
        timeline: Sequence[TimelineEntry] = (),
    ) -> Awaitable[int | None]:
        """Write `record` where `stored` was read. The new revision, or None: read it again.

        One atomic step with the due-set, the index of live channels, the finals and the
        timeline that are kept, and the `ChannelNews` that every node gets.
        """

    def delete(self, stored: Stored) -> Awaitable[bool]:
        """Delete a channel, unless it was written meanwhile. Its finals stay.

        Every node gets news without events, of the revision after the one that was read.
        """

    def claim_due(self, now: int, lease_ms: int, limit: int) -> Awaitable[list[Due]]:
        """Channels that are due, the longest waiting first; due again after the lease."""

    def shown(self, channel_id: str) -> Awaitable[bytes]:
        """The beginning of what is stored about a channel, readable or not, to be looked at."""

    def indexed(self, channel_id: str) -> Awaitable[bool]:
        """Whether a channel is due at some time, or live, whatever is stored about it."""

    def withdraw(self, channel_id: str) -> Awaitable[None]:
        """Let a channel be neither due nor live until it is written. It stays as it is stored."""

    def bring_back(self, channel_id: str) -> Awaitable[None]:
        """Let a channel be due and live, whatever is stored about it."""

    def erase(self, channel_id: str) -> Awaitable[bool]:
        """Forget a channel that was withdrawn and not written since. Its finals stay."""

    def live(self) -> AsyncIterator[list[str]]:
        """Ids of all live channels, in pages. Raises when a page cannot be read.

        One that is live all the while is listed at least once; one that comes or goes, perhaps.
        """

    def live_page(self, limit: int, after: str = "") -> Awaitable[list[str]]:
        """Ids of live channels in an order that stays. `after`: the last one that was listed.

        One that is live all the while is listed once.
        """

    def live_count(self) -> Awaitable[int]:
        """How many live channels there are."""

    def finals(self, channel_id: str, limit: int) -> Awaitable[list[Final]]:
        """Calls of a channel that have ended, the latest first."""

    def channel_of(self, session_id: str) -> Awaitable[str | None]:
        """The channel that a provider's session belongs to."""

    def note_session(self, session_id: str, channel_id: str) -> Awaitable[None]:
        """Remember which channel a provider's session belongs to. Before anybody is let in."""

    def lock(
        self, channel_id: str, purpose: str, life_ms: int, wait_ms: int
    ) -> AbstractAsyncContextManager["Lock | None"]:
        """Exclude others, on all nodes, from one deed. None: not got within `wait_ms`.

        Released by compare-and-delete; over by itself after `life_ms`.
        """

    def on_news(self, handler: Callable[[ChannelNews], None]) -> None:
        """`handler` gets the news of every channel, those of this node's own writes included."""


class Named(NamedTuple):
    """A channel under its key. `waddle_id`: whose it is; empty: nobody's yet, or unknown."""

    key: str
    waddle_id: str
    stored: Stored | StoreError


class ChannelNames(Protocol):
    """Which keys the channels of an id have, in which waddles."""

    def claim(self, waddle_id: str, channel_id: str, *, contested: bool = False) -> Awaitable[str]:
        """The key of a waddle's channel, the same from now on. Before a room is opened.

        Args:
            contested: what is stored under the id was found to be another waddle's, written by an
                earlier version: it decides.
        """

    def named(self, channel_id: str, waddles: Collection[str] | None) -> Awaitable[list[Named]]:
        """The channels of an id in these waddles, whether something is stored of them or not.

        None: in any waddle; of many, those that were opened last. What belongs to nobody yet is
        among them. A channel that is damaged is an error in its place.
        """


class WebhookInbox(Protocol):
    """Webhooks between their acceptance and their effect: a stream that all nodes work on."""

    def put(self, delivery: WebhookDelivery) -> Awaitable[bool]:
        """Keep a delivery, durably. False: it is a repetition, and was kept before.

        Raises StoreOverloaded when too many wait.
        """

    def take(self, limit: int, idle_ms: int) -> Awaitable[list[WebhookDelivery]]:
        """Deliveries for this node, also those that another node took `idle_ms` ago and lost.

        Empty when there is nothing; it does not wait.
        """

    def done(self, deliveries: Sequence[WebhookDelivery]) -> Awaitable[None]:
        """These took effect."""

    def bury(self, delivery: WebhookDelivery, reason: str) -> Awaitable[None]:
        """This one cannot be taken in: it becomes a dead letter."""

    def waiting(self) -> Awaitable[int]:
        """How many deliveries have not taken effect."""

    def on_arrival(self, handler: Callable[[], None]) -> None:
        """`handler` is called when deliveries were kept, here or on another node.

        Once for many that come together, so take until there is nothing; and every idle time, for
        those that another node has lost.
        """


class DeadLetters(Protocol):
    """Webhooks that could not be processed, for an operator."""

    def dead(self, limit: int, cursor: str = "") -> Awaitable[tuple[list[DeadLetter], str]]:
        """Dead letters, the latest first, and where the next page begins (empty: nowhere).

        Raises INVALID_FIELD for a cursor that no page has given.
        """

    def replay(self, entry: str) -> Awaitable[bool]:
        """Put a dead letter back among those that wait. False: there is no such letter.

        Its attempts begin anew. Raises StoreOverloaded when too many wait.
        """

    def discard(self, entry: str) -> Awaitable[bool]:
        """Discard a dead letter."""
