"""Messages between nodes: `syncbridge_server.ports.store.Bus` over Redis pub/sub.

One thread for each primary waits on a second connection (`listener.py`), subscribed to the channels
of this node whose slots that primary serves. Messages that arrive together are decoded together and
posted to Trio with one `run_sync_soon`. Sending is an ordinary command without a wait.

Pub/sub is at most once: what is published while a subscription is away is lost. So the resync
handlers run *after* each new subscription is in place: each compares its replicas with Redis, and
later commits arrive by message.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreOverloaded
from syncbridge.records.sessions import Commit, Notice, PresenceChange
from syncbridge.slots import TAGS, session_key, slot_of
from syncbridge_server.redis.bus.listener import Listener
from syncbridge_server.redis.bus.messages import (
    COMMON_TAGS,
    ECHO,
    common_channel,
    common_channels,
    decode,
    encode_notice,
    node_channels,
    notice_channel,
    session_of,
)
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.link.router import HOME
from syncbridge_server.redis.link.server_info import ServerInfo
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import CONNECT_SECONDS

log = structlog.get_logger(__name__)

ALL_NODES = "*"
ALONE_SECONDS = 1.0
"""Seconds for which this node assumes that there is no other one."""

CommitHandler = Callable[[Sequence[Commit]], None]
NoticeHandler = Callable[[Notice], None]
PresenceHandler = Callable[[PresenceChange], None]
Answered = Callable[[list[Any]], None]


def _ignore(replies: list[Any]) -> None:
    """Nobody waits for these."""


class Subscriber:
    """The listener of one primary, and its state.

    Attributes:
        server: the server that holds its subscriptions, or None. reason: why the connection is
            down. missed: a message may have been missed. tried: the first attempt has succeeded or
            failed.
    """

    def __init__(self, listener: Listener, *, missed: bool) -> None:
        self.listener = listener
        self.server: ServerInfo | None = None
        self.reason = ""
        self.missed = missed
        self.tried = False


class RedisBus:
    """Implements `syncbridge_server.ports.store.Bus`.

    Everything but the listeners runs on the Trio thread. `gaps` counts lost channels on a working
    connection, because a slot moved.

    Args:
        io: running client, used for sending and for the address.
        node: id of this node, without spaces; not `*`.
    """

    def __init__(self, io: RedisIO, node: str) -> None:
        self._io = io
        self._node = node
        self._commits: list[CommitHandler] = []
        self._presence: list[PresenceHandler] = []
        self._notices: dict[str, list[NoticeHandler]] = {}
        self._resyncs: list[Callable[[], None]] = []
        self._unreadable: list[Callable[[str], None]] = []
        self._subscribers: dict[Address | None, Subscriber] = {}
        self._token: trio.lowlevel.TrioToken | None = None
        self.gaps = 0
        self._first = trio.Event()
        self._on_change: Callable[[], None] = _nothing
        self._on_echo: Callable[[bytes], None] = _nothing_of
        self._alone_until = 0.0

    @property
    def alone(self) -> bool:
        """Whether no other node was listening a moment ago: then messages can be skipped."""
        return time.monotonic() < self._alone_until

    @property
    def node(self) -> str:
        """Id of this node."""
        return self._node

    @property
    def connected(self) -> bool:
        """Whether every subscription is in place, as far as is known."""
        return bool(self._subscribers) and all(
            subscriber.server for subscriber in self._subscribers.values()
        )

    @property
    def servers(self) -> dict[Address | None, ServerInfo | None]:
        """For each primary the server that holds the subscriptions, or None."""
        return {at: subscriber.server for at, subscriber in self._subscribers.items()}

    @property
    def server(self) -> ServerInfo | None:
        """The server for commands without keys, if it holds its subscriptions."""
        slots = self._io.connections.slots
        return self.servers.get(slots.owners[HOME] if slots else None)

    @property
    def reason(self) -> str:
        """Why a subscription is missing; empty when none is."""
        return next(
            (subscriber.reason for subscriber in self._subscribers.values() if subscriber.reason),
            "",
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RedisBus"]:
        """`start` and `aclose` around a block."""
        await self.start()
        try:
            yield self
        finally:
            await self.aclose()

    async def start(self) -> None:
        """Start listening and wait for the first subscriptions, or for their failure."""
        self._token = trio.lowlevel.current_trio_token()
        self._io.on_change(self._follow)
        self._follow()
        with trio.move_on_after(4 * CONNECT_SECONDS):
            await self._first.wait()
        self._first.set()

    async def aclose(self) -> None:
        """Stop listening."""
        self._token = None
        subscribers, self._subscribers = self._subscribers, {}
        for subscriber in subscribers.values():
            subscriber.listener.close()
        with trio.CancelScope(shield=True):
            for subscriber in subscribers.values():
                await trio.to_thread.run_sync(subscriber.listener.join, 4 * CONNECT_SECONDS)

    def _follow(self) -> None:
        """Listen to each primary for the slots that it serves, and to no other server."""
        if self._token is None:
            return
        channels = self._channels()
        for at in self._subscribers.keys() - channels.keys():
            self._subscribers.pop(at).listener.close()
        for at, names in channels.items():
            if at not in self._subscribers:
                listener = Listener(self._io.endpoint, at, self._token, self)
                # Messages before the subscription were missed, except at the start.
                self._subscribers[at] = Subscriber(listener, missed=self._first.is_set())
                listener.assign(names)
                listener.start()
            else:
                self._subscribers[at].listener.assign(names)

    def _channels(self) -> dict[Address | None, list[str]]:
        """For each primary the channels in its slots."""
        slots = self._io.connections.slots
        found: dict[Address | None, list[str]] = {at: [] for at in self._io.primaries()}
        names = node_channels(self._node) + common_channels(self._io.endpoint.database)
        for tag, name in zip(TAGS + COMMON_TAGS, names, strict=True):
            at = slots.owners[slot_of(tag)] if slots else None
            if at in found:
                found[at].append(name)
        return found

    def on_commits(self, handler: CommitHandler) -> None:
        """`handler` gets the commits of other nodes, in batches."""
        self._commits.append(handler)

    def on_presence(self, handler: PresenceHandler) -> None:
        """`handler` gets joins and departures of devices on other nodes."""
        self._presence.append(handler)

    def on_notice(self, kind: str, handler: NoticeHandler) -> None:
        """`handler` gets the notices of one kind."""
        self._notices.setdefault(kind, []).append(handler)

    def on_resync(self, handler: Callable[[], None]) -> None:
        """`handler` is called after messages may have been lost, once messages arrive again."""
        self._resyncs.append(handler)

    def on_unreadable(self, handler: Callable[[str], None]) -> None:
        """`handler` gets the session of each message that cannot be read, "" for an unknown one."""
        self._unreadable.append(handler)

    def watch(self, changed: Callable[[], None], echoed: Callable[[bytes], None]) -> None:
        """Have `changed` called when a subscription is made or lost, `echoed` with each echo."""
        self._on_change, self._on_echo = changed, echoed

    def renew(self, at: Address | None = None) -> None:
        """Close the connection to a primary and make another; a resync follows."""
        subscriber = self._subscribers.get(at)
        if subscriber is not None:
            subscriber.listener.interrupt()

    def tell(self, node: str, notice: Notice) -> None:
        """Publish to one node, or with `*` to every node, this one included. Lost when Redis is
        away or busy."""
        if node == ALL_NODES:
            channel = common_channel(TAGS[0], self._io.endpoint.database)
            self._send(plain("SPUBLISH", channel, encode_notice(notice)), self._counted)
        else:
            self._send(plain("SPUBLISH", notice_channel(node), encode_notice(notice)))

    def tell_session(self, notice: Notice) -> None:
        """Publish to every other node that has devices in `notice.sid`."""
        args = (self._node, encode_notice(notice))
        self._send(self._io.script_command("tell", (session_key(notice.sid, "m"),), args))

    def _counted(self, replies: list[Any]) -> None:
        """Note how many nodes a notice to all has reached."""
        if replies[0] == 1:
            self._alone_until = time.monotonic() + ALONE_SECONDS
        else:
            self._alone_until = 0.0

    def _send(self, command: Command, answered: Answered = _ignore) -> None:
        try:
            self._io.submit([command], answered)
        except StoreOverloaded:
            log.warning("redis_notice_dropped")

    def receive(self, payloads: list[bytes]) -> None:
        """Called by the listeners' posts."""
        commits: list[Commit] = []
        for payload in payloads:
            if payload[:1] == ECHO:
                self._on_echo(payload)
                continue
            try:
                message = decode(payload)
            except ValueError:
                log.warning("redis_message_unreadable", size=len(payload))
                for doubt in self._unreadable:
                    _guarded(doubt, session_of(payload))
                continue
            if isinstance(message, Commit):
                commits.append(message)
                continue
            # What was published before a notice is delivered before it.
            self._deliver_commits(commits)
            commits = []
            handlers: Sequence[Callable[[Any], None]] = (
                self._presence
                if isinstance(message, PresenceChange)
                else self._notices.get(message.kind, ())
            )
            for handler in handlers:
                _guarded(handler, message)
        self._deliver_commits(commits)

    def _deliver_commits(self, commits: list[Commit]) -> None:
        if commits:
            for handler in self._commits:
                _guarded(handler, commits)

    def subscribed(self, at: Address | None, server: ServerInfo) -> None:
        """Called by the listeners' posts: all channels of a primary are subscribed."""
        subscriber = self._subscribers.get(at)
        if subscriber is None:
            return
        subscriber.server, subscriber.reason = server, ""
        missed, subscriber.missed = subscriber.missed, False
        self._settle(subscriber)
        if missed:
            log.debug("redis_bus_up")
            for handler in self._resyncs:
                _guarded(handler)

    def incomplete(self, at: Address | None) -> None:
        """Called by the listeners' posts: a channel of a primary is no longer subscribed."""
        subscriber = self._subscribers.get(at)
        if subscriber is not None:
            subscriber.missed = True
            self.gaps += 1

    def displaced(self, at: Address | None) -> None:
        """Called by the listeners' posts: a slot is not where the map says."""
        self._io.doubt_map()

    def lost(self, at: Address | None, reason: str) -> None:
        """Called by the listeners' posts: no connection to a primary."""
        subscriber = self._subscribers.get(at)
        if subscriber is None:
            return
        if not subscriber.reason:
            log.debug("redis_bus_down", reason=reason)
        subscriber.missed = True
        subscriber.server, subscriber.reason = None, reason
        self._settle(subscriber)

    def _settle(self, subscriber: Subscriber) -> None:
        subscriber.tried = True
        if all(other.tried for other in self._subscribers.values()):
            self._first.set()
        self._on_change()


def _nothing() -> None:
    """Nobody watches."""


def _nothing_of(payload: bytes) -> None:
    """Nobody watches."""


def _guarded(handler: Callable[..., None], *args: Any) -> None:
    """Call a handler. Its error must not end the Trio run, nor stop the other handlers."""
    try:
        handler(*args)
    except Exception:
        log.exception("redis_bus_handler_failed")
