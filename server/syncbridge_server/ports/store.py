"""The store of sessions, plain Redis commands, and the bus between nodes.

Requests, answers and news are those of `syncbridge.records`.

Guarantees a `Store` gives:

* each request is one atomic script; requests of one `submit`, and of one submit after another,
  take effect in the order in which they were submitted, and their results are delivered in it; a
  store that is `apart` promises that for the submissions that hold nothing but reads
  (`syncbridge.records.reads`) among themselves, and for all others among themselves;
* a write that answered `Outcome` is in Redis, and as durable as is configured; `StoreUnavailable`
  and `StoreOverloaded` mean that nothing was done; after `StoreTimeout` the outcome is unknown, and
  repeating the same mutation id tells it (`Status.DUPLICATE`) without doing it twice;
* other nodes that have devices in the session receive each commit as a `Commit`, at most once, in
  version order unless the connection breaks; a hole shows as `prev_version` that does not fit.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from syncbridge.records.sessions import Commit, Deliver, Notice, PresenceChange, Request


class Store(Protocol):
    """Sessions in Redis. See the guarantees at the top of this file."""

    @property
    def apart(self) -> bool:
        """Whether requests that only read have no order with the others."""

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Send requests as one pipeline; `deliver` gets one answer each, on the Trio thread.

        Raises StoreOverloaded when the queue is full (nothing was sent). `deliver` is always
        called, with a StoreError in place of each answer that failed.
        """

    async def call(self, request: Request) -> Any:
        """One request; returns its answer type or raises StoreError."""


class RedisCommands(Protocol):
    """Plain Redis commands, for what is not a session."""

    async def execute(self, *args: bytes | str | int | float) -> Any:
        """One command, reply as redis-py with RESP2 and no decoding; raises StoreError."""

    async def script(
        self, name: str, keys: Sequence[str], args: Sequence[bytes | str | int]
    ) -> Any:
        """Run `scripts/<name>.lua`; loaded again by itself after SCRIPT FLUSH."""

    @property
    def connected(self) -> bool:
        """False while Redis does not answer."""


class Bus(Protocol):
    """Messages between nodes, over Redis pub/sub. Callbacks run on the Trio thread."""

    def on_commits(self, handler: Callable[[Sequence[Commit]], None]) -> None: ...
    def on_presence(self, handler: Callable[[PresenceChange], None]) -> None: ...
    def on_notice(self, kind: str, handler: Callable[[Notice], None]) -> None: ...
    def on_resync(self, handler: Callable[[], None]) -> None:
        """Called after messages may have been lost: replicas must be compared with Redis."""

    def on_unreadable(self, handler: Callable[[str], None]) -> None:
        """Called with the session of a message that cannot be read, "" when that is not known."""

    def tell(self, node: str, notice: Notice) -> None:
        """To one node; `*` for every node including this one. Fire and forget, bounded."""

    def tell_session(self, notice: Notice) -> None:
        """To every other node that has devices in `notice.sid`."""
