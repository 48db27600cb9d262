"""Redis for Trio tasks: submission, waiting, bounds and availability.

Commands count against the bounds from `submit` until their answers are delivered.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Protocol

import outcome
import structlog
import trio

from syncbridge.errors import StoreError, StoreOverloaded, StoreUnavailable
from syncbridge.slots import SLOTS
from syncbridge_server.redis.durability import MEMORY, Durability
from syncbridge_server.redis.link.connections import Connections
from syncbridge_server.redis.link.driver import QUEUE_SHARE, Driver
from syncbridge_server.redis.link.endpoint import RedisEndpoint
from syncbridge_server.redis.link.pipeline import Argument, Command, Confirm, Job, plain
from syncbridge_server.redis.link.router import HOME
from syncbridge_server.redis.link.server_info import ServerInfo
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import CONNECT_SECONDS, pack
from syncbridge_server.redis.scripts import HELLO, READING, RELIED_ON, Scripts
from syncbridge_server.telemetry.timing import Timing

log = structlog.get_logger(__name__)

Deliver = Callable[[list[Any]], None]


class Outboxes(Protocol):
    """Observes each call of a script that writes events."""

    def written(self, name: str, keys: Sequence[str]) -> Sequence[str]:
        """The keys of a script's call, and those of events where they must be declared."""

    def created(self, sid: str) -> None:
        """A call has made a session, which is an event besides the change."""


CONFIRMED = dict.fromkeys(RELIED_ON, Confirm.YES) | {HELLO: Confirm.NOTED}

Raise = Callable[[], None]
Replies = list[Any]
"""Named here: an annotation of an inner function is evaluated whenever that is made."""


class RedisIO:
    """The Redis client for Trio tasks. Implements `syncbridge_server.ports.store.RedisCommands`.

    Args:
        url: as `RedisEndpoint` reads it. Of a cluster, that of any server.
        deadline: seconds within which a command has an answer or a StoreError.
        max_commands, max_bytes: bounds of queued and sent commands together. durability: when a
            write counts as done.

    Commands that block in Redis (BLPOP, WAIT, SUBSCRIBE...) must not be used: all share one
    connection, or two where replicas confirm writes: one for jobs that only read.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline: float = 2.0,
        max_commands: int = 16_384,
        max_bytes: int = 67_108_864,
        durability: Durability = MEMORY,
    ) -> None:
        self.durability = durability
        self.endpoint = RedisEndpoint(url)
        self.scripts = Scripts()
        self._queue_seconds = deadline * QUEUE_SHARE
        self._deadline = deadline
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self.times = Timing()
        self._commands = 0
        self._bytes = 0
        self._closed = False
        self.connections = Connections({None: None}, "", tried=False, slots=None)
        self._on_change: list[Callable[[], None]] = []
        self._on_refusal: Callable[[set[str]], None] = _nothing_of
        self.outboxes: Outboxes | None = None
        self._first_attempt = trio.Event()
        self._driver: Driver | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RedisIO"]:
        """`start` and `aclose` around a block."""
        await self.start()
        try:
            yield self
        finally:
            await self.aclose()

    async def start(self) -> None:
        """Wait for the first attempt to connect, whether it works or not."""
        self._driver = Driver(self.endpoint, self.scripts, self, self._deadline, self.durability)
        self._driver.start()
        with trio.move_on_after(4 * CONNECT_SECONDS):
            await self._first_attempt.wait()

    async def aclose(self) -> None:
        """Wait for what is queued, and close; later commands answer StoreUnavailable."""
        driver, self._driver = self._driver, None
        self._closed = True
        if driver is not None:
            with trio.CancelScope(shield=True):
                await driver.stop()

    @property
    def connected(self) -> bool:
        """False while a primary does not answer."""
        return self.connections.complete and not self._closed

    @property
    def refusing(self) -> str:
        """Why some commands are refused at once; empty when none are."""
        return "closed" if self._closed else self.connections.reason

    @property
    def server(self) -> ServerInfo | None:
        """The primary to which commands without keys go; None while it is away."""
        slots = self.connections.slots
        return self.connections.servers.get(slots.owners[HOME] if slots else None)

    def primaries(self) -> list[Address | None]:
        """Every primary; each has keys of its own, which a walk must visit (`Command.at`)."""
        return list(self.connections.servers)

    def watch(self, changed: Callable[[], None], refused: Callable[[set[str]], None]) -> None:
        """Have `changed` called with each change, `refused` with codes of Redis."""
        self._on_refusal = refused
        self.on_change(changed)

    def on_change(self, handler: Callable[[], None]) -> None:
        """`handler` is called when a connection is made or lost, or a slot has moved."""
        self._on_change.append(handler)

    def renew(self, at: Address | None = None) -> None:
        """Replace the connection to a primary after its pending answers."""
        if self._driver is not None:
            self._driver.renew(at)

    def doubt_map(self) -> None:
        """A server did not serve a slot that the map assigns to it: read the map again."""
        if self._driver is not None:
            self._driver.doubt_map()

    @property
    def apart(self) -> bool:
        """Whether reads have separate connections, and no order relative to writes."""
        return self.durability.replicas > 0

    @property
    def queued(self) -> int:
        """Commands that have no answer yet."""
        return self._commands

    def submit(self, commands: Sequence[Command], deliver: Deliver) -> None:
        """Queue commands; `deliver` gets one reply or StoreError each, later, on this thread.

        Raises StoreOverloaded (nothing is queued) when a bound is reached.
        """
        size = 0
        for command in commands:
            size += len(command.packed)
        reads = self.apart and all(command.reads for command in commands)
        job = Job(commands, size, monotonic() + self._queue_seconds, deliver, reads=reads)
        if self._driver is None:
            self._refuse(job)
            return
        if self._commands + len(commands) > self._max_commands:
            raise StoreOverloaded(f"more than {self._max_commands} commands wait for Redis")
        if self._bytes + size > self._max_bytes:
            raise StoreOverloaded(f"more than {self._max_bytes} bytes wait for Redis")
        self._commands += len(commands)
        self._bytes += size
        self._driver.submit(job)

    async def request(self, commands: Sequence[Command]) -> list[Any]:
        """Submit and wait; one reply or StoreError each.

        If the waiting task is cancelled, the commands are still sent.
        """
        task = trio.lowlevel.current_task()
        waiting = True

        def deliver(replies: Replies) -> None:
            if waiting:
                trio.lowlevel.reschedule(task, outcome.Value(replies))

        def abort(_: Raise) -> trio.lowlevel.Abort:
            nonlocal waiting
            waiting = False
            return trio.lowlevel.Abort.SUCCEEDED

        self.submit(commands, deliver)
        replies: list[Any] = await trio.lowlevel.wait_task_rescheduled(abort)
        return replies

    async def request_all(self, commands: Sequence[Command]) -> list[Any]:
        """As `request`, also for no commands. Raises the first StoreError."""
        replies = await self.request(commands) if commands else []
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    async def execute(self, *args: Argument) -> Any:
        """One command; the reply as hiredis reads RESP2, not decoded. Raises StoreError.

        Its first argument is its key, unless it is one of `KEYLESS`.
        """
        return await self._one(plain(*args))

    async def scan(self, at: int, match: str, count: int) -> tuple[int, list[bytes]]:
        """One step of SCAN through the keys of one primary after another.

        `at`: 0, or what the step before has returned, which is 0 at the end. Raises StoreError.
        """
        cursor, index = divmod(at, SLOTS)
        primaries = self.primaries()
        place = primaries[min(index, len(primaries) - 1)]
        words = ("SCAN", cursor, "MATCH", match, "COUNT", count)
        following, keys = await self._one(plain(*words, at=place, repeatable=True))
        if int(following):
            return int(following) * SLOTS + index, keys
        return (index + 1 if index + 1 < len(primaries) else 0), keys

    async def size(self) -> int:
        """How many keys there are, on all primaries. Raises StoreError."""
        asked = [plain("DBSIZE", at=at, repeatable=True) for at in self.primaries()]
        replies = await self.request(asked)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return sum(replies)

    async def script(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[bytes | str | int],
        *,
        repeatable: bool = False,
    ) -> Any:
        """Run `scripts/<name>.lua`. Raises StoreError, KeyError for an unknown name.

        `repeatable`: the script may be sent a second time when the connection breaks.
        """
        return await self._one(self.script_command(name, keys, args, repeatable=repeatable))

    def script_command(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[bytes | str | int],
        *,
        repeatable: bool = False,
    ) -> Command:
        """A call of a script, for `submit` and `request`. Those of one first key keep order."""
        if self.outboxes is not None and name in self.scripts.telling:
            keys = self.outboxes.written(name, keys)
        packed = pack(b"EVALSHA", self.scripts.digests[name], len(keys), *keys, *args)
        key = keys[0] if keys else ""
        confirm = CONFIRMED.get(name, Confirm.NO)
        return Command(packed, key, repeatable, None, confirm, name in READING)

    async def _one(self, command: Command) -> Any:
        reply = (await self.request([command]))[0]
        if isinstance(reply, StoreError):
            raise reply
        return reply

    def _refuse(self, job: Job) -> None:
        """Answer without a connection, but not before `submit` has returned."""
        job.replies = [StoreUnavailable("Redis: closed") for _ in job.commands]
        trio.lowlevel.current_trio_token().run_sync_soon(self._deliver, job)

    def finish(self, jobs: list[Job]) -> None:
        """Called by the driver: hand out answers."""
        now = monotonic()
        for job in jobs:
            self._commands -= len(job.commands)
            self._bytes -= job.size
            self.times.observe(now - job.expires + self._queue_seconds)
            self._deliver(job)

    def _deliver(self, job: Job) -> None:
        try:
            job.deliver(job.replies)
        except Exception:
            # An error here would end the whole Trio run because of a bug in one receiver.
            log.exception("redis_deliver_failed")

    def connections_changed(self, connections: Connections) -> None:
        """Called by the driver."""
        if connections.complete != self.connections.complete:
            log.debug("redis_up" if connections.complete else "redis_down", at=connections.reason)
        self.connections = connections
        if connections.tried:
            self._first_attempt.set()
        for handler in self._on_change:
            handler()

    def refused(self, codes: set[str]) -> None:
        """Called by the driver: Redis refused commands."""
        self._on_refusal(codes)


def _nothing_of(codes: set[str]) -> None:
    """Nobody watches."""
