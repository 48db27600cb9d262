"""Redis' sockets in Trio's loop: moves bytes, keeps time, and reports to the client.

Theory of operation. `submit` passes a job to the router and writes at once what may be written, so
a command is sent before `submit` returns. One task for each connection waits until it is readable,
and hands out the replies. Writes do not wait for answers: a connection has up to `MOST_BATCHES`
writes in flight, and later commands leave together at the next answer. Batches therefore grow with
load, and the cost of a command falls. The router, which knows no socket, decides everything; the
client keeps the bounds. Connections are made on threads, because redis-py blocks.

A job may wait to be sent for half of the deadline (else StoreUnavailable, nothing was done), and
Redis has the other half to answer (else StoreTimeout). When Redis pauses, for a fork or a slow
disk, sent commands wait for answers and later ones wait in the queue: equal halves tolerate the
longest pause. Before a deadline is judged, arrived data is read: a process that was paused must not
blame Redis.

Where replicas must confirm writes there are two routers: reads have their own connections, so that
none of them waits for a replica.
"""

import random
import ssl
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol

import hiredis
import structlog
import trio

from syncbridge.errors import StoreTimeout
from syncbridge_server.redis.durability import Durability
from syncbridge_server.redis.link.connections import Connections, snapshot
from syncbridge_server.redis.link.endpoint import RedisEndpoint
from syncbridge_server.redis.link.link import Link
from syncbridge_server.redis.link.pipeline import Job
from syncbridge_server.redis.link.router import IDLE_SECONDS, Router
from syncbridge_server.redis.link.server_info import ServerInfo, ask, interview
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import (
    CONNECT_SECONDS,
    NO_DATABASE,
    READ_BYTES,
    Wire,
    WireBroken,
    pack,
)
from syncbridge_server.redis.scripts import Scripts

log = structlog.get_logger(__name__)

QUEUE_SHARE = 0.5
MOST_CONNECTING = 16
"""Most threads that connect at a time."""
_MORE = object()
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """The receiver of answers and changes."""

    def finish(self, jobs: list[Job]) -> None: ...
    def connections_changed(self, connections: Connections) -> None:
        """A connection was made or lost, or slots have moved."""

    def refused(self, codes: set[str]) -> None:
        """Redis refused commands with these codes."""


class Conversation:
    """A live connection of a link. `blocked`: the system takes no more bytes for now."""

    __slots__ = ("blocked", "link", "reader", "router", "secure", "socket", "wire")

    def __init__(self, wire: Wire, router: Router, link: Link) -> None:
        self.wire = wire
        self.router = router
        self.link = link
        self.socket = wire.socket
        self.socket.setblocking(False)
        self.reader = hiredis.Reader(notEnoughData=_MORE)
        self.secure = isinstance(self.socket, ssl.SSLSocket)
        self.blocked = False


class Driver:
    """Runs jobs from `start` to `stop`. `deadline` in seconds."""

    def __init__(
        self,
        endpoint: RedisEndpoint,
        scripts: Scripts,
        owner: Owner,
        deadline: float,
        durability: Durability,
    ) -> None:
        self._durability = durability
        self._endpoint = endpoint
        self._scripts = scripts
        self._owner = owner
        self._deadline = deadline
        self._answer_seconds = deadline * (1 - QUEUE_SHARE)
        self._soonest = min(deadline * QUEUE_SHARE, self._answer_seconds, IDLE_SECONDS)
        self._jobs: dict[Job, None] = {}
        self._routers = self._new_routers()
        self._conversations: dict[Link, Conversation] = {}
        self._buffer = bytearray(READ_BYTES)
        self._telling = False
        self._drained = trio.Event()
        self._ended = trio.Event()
        self._stopping = False
        self._nursery: trio.Nursery | None = None
        self._alarm = trio.CancelScope()
        self._armed = inf
        self._token = trio.lowlevel.current_trio_token()
        self._connecting = trio.CapacityLimiter(MOST_CONNECTING)

    def start(self) -> None:
        """Begin to connect; `connections_changed` tells how the first attempt ended."""
        trio.lowlevel.spawn_system_task(self._run)

    async def stop(self) -> None:
        """Wait for what is under way, for `deadline` at most, and close all connections."""
        self._stopping = True
        with trio.move_on_after(self._deadline):
            if self._jobs:
                await self._drained.wait()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        await self._ended.wait()

    def submit(self, job: Job) -> None:
        """Write a job's commands, or queue or refuse them. Nothing is delivered before it returns.

        O(commands), and a system call.
        """
        self._jobs[job] = None
        self._do(self._routers[-1 if job.reads else 0].submit, job, monotonic())
        self._tell_soon()

    def renew(self, address: Address | None) -> None:
        """Close the connection to a server after what is under way, and make another."""
        for router in self._routers:
            self._do(router.renew, address)
        self._tell_soon()

    def doubt_map(self) -> None:
        """The map of slots may have changed."""
        for router in self._routers:
            self._do(router.doubt_map)
        self._tell_soon()

    def _new_routers(self) -> list[Router]:
        """The routers: for writes and what is ordered with them; for reads, if they are
        separate."""
        seconds, replicas = self._answer_seconds, self._durability.replicas
        writing = Router(self._loads, seconds, _jitter, replicas=replicas)
        return [writing, Router(self._loads, seconds, _jitter)] if replicas else [writing]

    def _passed(self, now: float) -> None:
        for router in self._routers:
            router.passed(now)

    def _loads(self) -> list[bytes]:
        return [pack("SCRIPT", "LOAD", text) for text in self._scripts.sources.values()]

    async def _run(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                self._do(self._passed, monotonic())
                await self._keep_time()
        finally:
            self._end()

    def _do(self, act: Callable[..., None], *args: Any) -> None:
        """Change the router's state, then carry out its requests."""
        try:
            act(*args)
            self._settle(monotonic())
        except Exception:
            # A bug; but without an answer every caller would wait for ever.
            log.exception("redis_batch_failed")
            self._start_over()

    def _settle(self, now: float) -> None:
        """Write, close and connect as the router requests, and set the timer."""
        for conversation in tuple(self._conversations.values()):
            if not conversation.blocked:
                self._write(conversation, now)
        for router in self._routers:
            if router.closing:
                self._hang_up(router)
            if router.opening and self._nursery is not None:
                opening, router.opening = router.opening, []
                for address in opening:
                    self._nursery.start_soon(self._connect, router, address)
            if self._armed > now + self._soonest or not router.steady:
                self._arm(router.due(), now)

    def _arm(self, due: float | None, now: float) -> None:
        if due is not None and due < self._armed:
            self._armed = due
            self._alarm.deadline = trio.current_time() + due - now

    async def _keep_time(self) -> None:
        """Let the router handle what is due."""
        while True:
            with trio.CancelScope() as self._alarm:
                self._alarm.deadline = trio.current_time() + self._armed - monotonic()
                await trio.sleep_forever()
            self._armed = inf
            now = monotonic()
            for conversation in tuple(self._conversations.values()):
                self._read(conversation)
            self._do(self._passed, now)
            self._tell()

    # Connections

    async def _connect(self, router: Router, address: Address | None) -> None:
        open_ = partial(self._open, address)
        wire, server, reason = await trio.to_thread.run_sync(
            open_, abandon_on_cancel=True, limiter=self._connecting
        )
        self._do(self._opened, router, address, wire, server, reason)
        self._tell()

    def _open(self, address: Address | None) -> tuple[Wire | None, ServerInfo | None, str]:
        """On a thread: connect, check version and role, load the scripts; or return the reason of
        the failure."""
        try:
            wire = self._endpoint.connect(address)
        except WireBroken as broken:
            return None, None, broken.reason
        try:
            deadline = monotonic() + CONNECT_SECONDS
            asked = partial(interview, for_map=address is None, durability=self._durability)
            server = asked(wire, deadline)
            if server.cluster and self._endpoint.database:
                raise WireBroken(NO_DATABASE, sent=False)
            ask(wire, self._loads(), deadline)
        except (WireBroken, ValueError) as error:
            wire.close()
            return None, None, str(error)
        if self._ended.is_set():  # no longer wanted
            wire.close()
        return wire, server, ""

    def _opened(
        self,
        router: Router,
        address: Address | None,
        wire: Wire | None,
        server: ServerInfo | None,
        reason: str,
    ) -> None:
        if wire is None or server is None:
            router.refused(address, reason, monotonic())
            return
        for other in self._routers:
            other.wake(address)
        known = router in self._routers
        link = router.opened(address, server, monotonic()) if known else None
        if link is None or link in self._conversations or self._nursery is None:
            wire.close()
            return
        conversation = self._conversations[link] = Conversation(wire, router, link)
        self._nursery.start_soon(self._converse, conversation)

    def _hang_up(self, router: Router) -> None:
        closing, router.closing = router.closing, []
        for link in closing:
            conversation = self._conversations.pop(link, None)
            if conversation is not None:
                _close(conversation)

    # Bytes

    def _write(self, conversation: Conversation, now: float) -> None:
        link, router = conversation.link, conversation.router
        router.expire(link, now)
        try:
            while output := link.outgoing(now):
                link.wrote(conversation.socket.send(output))
        except _BLOCKED:
            conversation.blocked = True
            if self._nursery is not None:
                self._nursery.start_soon(self._unblock, conversation)
        except OSError as error:
            router.lost(link, f"connection lost: {type(error).__name__}", now)

    async def _unblock(self, conversation: Conversation) -> None:
        """Write again when the system takes more bytes."""
        try:
            await trio.lowlevel.wait_writable(conversation.socket)
        except (trio.ClosedResourceError, ValueError, OSError):
            return
        conversation.blocked = False
        self._do(_nothing)
        self._tell()

    async def _converse(self, conversation: Conversation) -> None:
        """Hand replies to the router as they come, until the connection is closed."""
        try:
            while self._conversations.get(conversation.link) is conversation:
                await trio.lowlevel.wait_readable(conversation.socket)
                self._read(conversation)
                self._tell()
        except trio.ClosedResourceError:
            pass

    def _read(self, conversation: Conversation) -> None:
        replies: list[Any] = []
        reason = ""
        try:
            self._receive(conversation, replies)
        except _BLOCKED:
            pass
        except (OSError, hiredis.ProtocolError) as error:
            reason = f"connection lost: {type(error).__name__}"
        if replies or reason:
            self._do(self._arrived, conversation, replies, reason)

    def _receive(self, conversation: Conversation, replies: list[Any]) -> None:
        """Read until nothing is left; after an error too, `replies` has what arrived."""
        buffer, reader = self._buffer, conversation.reader
        size = len(buffer)
        while size == len(buffer) or conversation.secure:
            size = conversation.socket.recv_into(buffer)
            if not size:
                raise ConnectionResetError("closed by Redis")
            reader.feed(buffer, 0, size)  # type: ignore[arg-type]
            while (reply := reader.gets()) is not _MORE:
                replies.append(reply)

    def _arrived(self, conversation: Conversation, replies: list[Any], reason: str) -> None:
        link, router = conversation.link, conversation.router
        if len(replies) > len(link.sent):
            replies, reason = replies[: len(link.sent)], "more replies than commands"
        now = monotonic()
        if replies:
            router.received(link, replies, now)
        if reason:
            router.lost(link, reason, now)

    # Who is told

    def _tell_soon(self) -> None:
        """Report immediate results of an outside call in a later turn of the loop."""
        for router in self._routers:
            if (router.finished or router.changed or router.refusals) and not self._telling:
                self._telling = True
                self._token.run_sync_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        routers = self._routers
        if any(router.changed for router in routers):
            for router in routers:
                router.changed = False
            self._owner.connections_changed(snapshot(routers[-1], routers[0]))
        for router in routers:
            if router.refusals:
                refusals, router.refusals = router.refusals, set()
                self._owner.refused(refusals)
            if router.finished:
                finished, router.finished = router.finished, []
                for job in finished:
                    self._jobs.pop(job, None)
                self._owner.finish(finished)
        if self._stopping and not self._jobs:
            self._drained.set()

    def _start_over(self) -> None:
        """Answer everything, and start again with new connections."""
        self._give_up("internal error")
        self._routers[0].closing.extend(self._conversations)
        self._hang_up(self._routers[0])
        self._routers = self._new_routers()
        self._armed = inf
        self._do(self._passed, monotonic())

    def _give_up(self, reason: str) -> None:
        jobs, self._jobs = list(self._jobs), {}
        for job in jobs:
            unknown = StoreTimeout(f"Redis: {reason}; the outcome is not known")
            job.replies = [unknown for _ in job.commands]
        if jobs:
            self._token.run_sync_soon(self._owner.finish, jobs)

    def _end(self) -> None:
        self._nursery = None
        self._ended.set()
        try:
            self._give_up("closed")
        except trio.RunFinishedError:
            pass
        for conversation in self._conversations.values():
            _close(conversation)


def _close(conversation: Conversation) -> None:
    trio.lowlevel.notify_closing(conversation.socket)
    conversation.wire.close()


def _nothing() -> None:
    """The router's state is as it was."""


def _jitter() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311
