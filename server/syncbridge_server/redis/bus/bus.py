"""Messages between nodes: `syncbridge_server.ports.store.Bus` over Redis pub/sub.

A thread of its own waits on a second connection, subscribed to this node's channel and to the
common one. What arrives together is decoded together and posted to Trio with one `run_sync_soon`.
Sending goes through the I/O thread and is not waited for.

Pub/sub is at most once: what is published while the connection is away is lost. So whenever a
subscription has been made anew, the resync handlers run *after* it stands; each compares its
replicas with Redis, and what is committed from then on arrives. A connection that is silent for
`PING_SECONDS` is asked for a PONG, and given up when that is missing, so that one that died without
a word is noticed within `PING_SECONDS + PONG_SECONDS`.
"""

import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreOverloaded
from syncbridge.records.sessions import Commit, Notice, PresenceChange
from syncbridge_server.redis.bus.messages import (
    common_channel,
    decode,
    encode_notice,
    node_channels,
    notice_channel,
)
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.link.wire import CONNECT_SECONDS, Endpoint, Wire, WireBroken, pack
from syncbridge_server.redis.stores.keys import meta_key

log = structlog.get_logger(__name__)

PING_SECONDS = 5.0
PONG_SECONDS = 2.0
BACKOFF_SECONDS = (0.05, 1.0)
ALL_NODES = "*"
ALONE_SECONDS = 1.0
"""How long it is believed that there is no other node."""

CommitHandler = Callable[[Sequence[Commit]], None]
NoticeHandler = Callable[[Notice], None]
PresenceHandler = Callable[[PresenceChange], None]
Answered = Callable[[list[Any]], None]


def _ignore(replies: list[Any]) -> None:
    """Nobody waits for these."""


class Listener:
    """The thread: subscribe, read, post; again after each break.

    Args:
        receive: called on the Trio thread with the payloads that arrived together.
        subscribed: called on the Trio thread when a subscription stands.
        lost: called on the Trio thread when it broke or could not be made, with the reason.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channels: Sequence[str],
        common: str,
        token: trio.lowlevel.TrioToken,
        receive: Callable[[list[bytes]], None],
        subscribed: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._channels = channels
        self._common = common
        self._post = token.run_sync_soon
        self._receive = receive
        self._subscribed = subscribed
        self._lost = lost
        self._closing = threading.Event()
        self._wire: Wire | None = None
        self._thread = threading.Thread(target=self._main, name="redis-bus", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Wake the thread by shutting its socket down, and wait for its end."""
        self._closing.set()
        wire = self._wire
        if wire is not None:
            wire.interrupt()
        self._thread.join(seconds)

    def _main(self) -> None:
        pause, longest = BACKOFF_SECONDS
        try:
            while not self._closing.is_set():
                try:
                    self._listen()
                except WireBroken as broken:
                    if self._closing.is_set():
                        return
                    self._post(self._lost, broken.reason)
                    pause = BACKOFF_SECONDS[0] if broken.sent else min(2 * pause, longest)
                self._closing.wait(pause * random.uniform(0.75, 1.25))  # noqa: S311
        except trio.RunFinishedError:
            pass

    def _listen(self) -> None:
        """One connection from subscribing to its end, which is always WireBroken."""
        wire = self._wire = self._endpoint.connect()
        try:
            if self._closing.is_set():
                return
            # One command a channel: in a cluster those of several slots are refused together.
            shards = [pack("SSUBSCRIBE", channel) for channel in self._channels]
            wire.send(b"".join([*shards, pack("SUBSCRIBE", self._common)]), CONNECT_SECONDS)
            self._confirm(wire)
            self._post(self._subscribed)
            self._read(wire)
        finally:
            self._wire = None
            wire.close()

    def _confirm(self, wire: Wire) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        missing = len(self._channels) + 1
        early: list[bytes] = []
        while missing > 0:
            messages = wire.receive(max(0.001, deadline - time.monotonic()))
            if not messages:
                raise WireBroken("no subscription in time", sent=False, hung=True)
            for message in messages:
                if not isinstance(message, list):
                    raise WireBroken("subscription refused", sent=False)
                missing -= message[0] in (b"subscribe", b"ssubscribe")
            early += _payloads(messages)
        if early:
            self._post(self._receive, early)

    def _read(self, wire: Wire) -> None:
        asked = False
        while True:
            messages = wire.receive(PONG_SECONDS if asked else PING_SECONDS)
            if messages:
                asked = False
                payloads = _payloads(messages)
                if payloads:
                    self._post(self._receive, payloads)
            elif asked:
                raise WireBroken("silent", sent=True, hung=True)
            else:
                asked = True
                wire.send(pack("PING"), PONG_SECONDS)


def _payloads(messages: Sequence[Any]) -> list[bytes]:
    return [
        message[2]
        for message in messages
        if isinstance(message, list) and message[0] in (b"message", b"smessage")
    ]


class RedisBus:
    """Implements `syncbridge_server.ports.store.Bus`.

    Everything but the listener runs on the Trio thread.

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
        self._listener: Listener | None = None
        self._first = trio.Event()
        self._subscribed = False
        self._whole = True
        self._alone_until = 0.0

    @property
    def alone(self) -> bool:
        """Whether a moment ago no other node listened, as far as is known: news may be spared."""
        return time.monotonic() < self._alone_until

    @property
    def connected(self) -> bool:
        """Whether the subscription stands, as far as is known."""
        return self._subscribed

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RedisBus"]:
        """`start` and `aclose` around a block."""
        await self.start()
        try:
            yield self
        finally:
            await self.aclose()

    async def start(self) -> None:
        """Start listening and wait for the first subscription, or for its failure."""
        self._listener = Listener(
            self._io.endpoint,
            node_channels(self._node),
            common_channel(self._io.endpoint.database),
            trio.lowlevel.current_trio_token(),
            self._receive,
            self._came_up,
            self._went_down,
        )
        self._listener.start()
        with trio.move_on_after(4 * CONNECT_SECONDS):
            await self._first.wait()

    async def aclose(self) -> None:
        """Stop listening."""
        listener, self._listener = self._listener, None
        self._subscribed = False
        if listener is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(listener.stop, 4 * CONNECT_SECONDS)

    def on_commits(self, handler: CommitHandler) -> None:
        """`handler` gets the commits of other nodes, in batches."""
        self._commits.append(handler)

    def on_presence(self, handler: PresenceHandler) -> None:
        """`handler` gets the devices that came or went on other nodes."""
        self._presence.append(handler)

    def on_notice(self, kind: str, handler: NoticeHandler) -> None:
        """`handler` gets the notices of one kind."""
        self._notices.setdefault(kind, []).append(handler)

    def on_resync(self, handler: Callable[[], None]) -> None:
        """`handler` is called after messages may have been lost, once messages arrive again."""
        self._resyncs.append(handler)

    def tell(self, node: str, notice: Notice) -> None:
        """To one node, or to `*`, every node with this one. Lost when Redis is away or busy."""
        if node == ALL_NODES:
            channel = common_channel(self._io.endpoint.database)
            self._send(Command(pack("PUBLISH", channel, encode_notice(notice))), self._counted)
        else:
            self._send(Command(pack("SPUBLISH", notice_channel(node), encode_notice(notice))))

    def tell_session(self, notice: Notice) -> None:
        """To every other node that has devices in `notice.sid`."""
        args = (self._node, encode_notice(notice))
        self._send(self._io.script_command("tell", (meta_key(notice.sid),), args))

    def _counted(self, replies: list[Any]) -> None:
        """How many nodes a notice for all of them has reached."""
        if replies[0] == 1:
            self._alone_until = time.monotonic() + ALONE_SECONDS
        else:
            self._alone_until = 0.0

    def _send(self, command: Command, answered: Answered = _ignore) -> None:
        try:
            self._io.submit([command], answered)
        except StoreOverloaded:
            log.warning("redis_notice_dropped")

    def _receive(self, payloads: list[bytes]) -> None:
        commits: list[Commit] = []
        for payload in payloads:
            try:
                message = decode(payload)
            except ValueError:
                log.warning("redis_message_unreadable", size=len(payload))
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

    def _came_up(self) -> None:
        self._subscribed = True
        whole, self._whole = self._whole, True
        self._first.set()
        if not whole:
            log.info("redis_bus_up")
            for handler in self._resyncs:
                _guarded(handler)

    def _went_down(self, reason: str) -> None:
        if self._subscribed or self._whole:
            log.warning("redis_bus_down", reason=reason)
        self._subscribed = self._whole = False
        self._first.set()


def _guarded(handler: Callable[..., None], *args: Any) -> None:
    """An error in a handler must not end the Trio run, nor keep others from their messages."""
    try:
        handler(*args)
    except Exception:
        log.exception("redis_bus_handler_failed")
