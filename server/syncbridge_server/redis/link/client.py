"""The Trio side of the I/O thread: submit, wait, bounds, and whether Redis is there.

Everything here runs on the Trio thread, so that the counters need no lock. Commands count against
the bounds from `submit` until their answers are delivered.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import outcome
import structlog
import trio

from syncbridge.errors import StoreError, StoreOverloaded, StoreUnavailable
from syncbridge_server.redis.link.io_thread import QUEUE_SHARE, IOThread, Job, Signal
from syncbridge_server.redis.link.pipeline import Command, Pipeline
from syncbridge_server.redis.link.wire import CONNECT_SECONDS, Endpoint, pack
from syncbridge_server.redis.scripts import Scripts

log = structlog.get_logger(__name__)

Argument = bytes | str | int | float
Deliver = Callable[[list[Any]], None]

Raise = Callable[[], None]
Replies = list[Any]
"""Named here: an annotation of an inner function is evaluated whenever that is made."""


class RedisIO:
    """Redis for Trio tasks. Implements `syncbridge_server.ports.store.RedisCommands`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads it.
        deadline: seconds within which a command has an answer or a StoreError.
        max_commands, max_bytes: bounds of what is queued and under way together.

    Commands that block in Redis (BLPOP, WAIT, SUBSCRIBE...) must not be used: all share one
    connection.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline: float = 2.0,
        max_commands: int = 16_384,
        max_bytes: int = 67_108_864,
    ) -> None:
        self.endpoint = Endpoint(url)
        self.scripts = Scripts()
        self._queue_seconds = deadline * QUEUE_SHARE
        self._deadline = deadline
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._commands = 0
        self._bytes = 0
        self._connected = False
        self._refusing = ""
        self._refused: list[Job] = []
        self._first_attempt = trio.Event()
        self._thread: IOThread | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RedisIO"]:
        """`start` and `aclose` around a block."""
        await self.start()
        try:
            yield self
        finally:
            await self.aclose()

    async def start(self) -> None:
        """Start the thread and wait for its first attempt to connect, whether it works or not."""
        self._token = trio.lowlevel.current_trio_token()
        pipeline = Pipeline(self.endpoint, self.scripts)
        self._thread = IOThread(pipeline, self, self._token, self._deadline)
        self._thread.start()
        with trio.move_on_after(4 * CONNECT_SECONDS):
            await self._first_attempt.wait()

    async def aclose(self) -> None:
        """Send what is queued, stop the thread; later commands answer StoreUnavailable."""
        thread, self._thread = self._thread, None
        self._connected, self._refusing = False, "closed"
        if thread is None:
            return
        thread.inbox.put(Signal.STOP)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join, 2 * self._deadline)

    @property
    def connected(self) -> bool:
        """False while Redis does not answer."""
        return self._connected

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
        job = Job(commands, size, monotonic() + self._queue_seconds, deliver)
        if self._refusing or self._thread is None:
            self._refuse(job)
            return
        if self._commands + len(commands) > self._max_commands:
            raise StoreOverloaded(f"more than {self._max_commands} commands wait for Redis")
        if self._bytes + size > self._max_bytes:
            raise StoreOverloaded(f"more than {self._max_bytes} bytes wait for Redis")
        self._commands += len(commands)
        self._bytes += size
        self._thread.inbox.put(job)

    async def request(self, commands: Sequence[Command]) -> list[Any]:
        """Submit and wait; one reply or StoreError each.

        When the waiting task is cancelled the commands are still sent.
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

    async def execute(self, *args: Argument) -> Any:
        """One command; the reply as hiredis reads RESP2, not decoded. Raises StoreError."""
        return await self._one(Command(pack(*args)))

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
        """A call of a script, for `submit` and `request`. Scripts of one hash tag keep order."""
        packed = pack(b"EVALSHA", self.scripts.digests[name], len(keys), *keys, *args)
        return Command(packed, lane_of(keys[0]) if keys else "", repeatable)

    async def _one(self, command: Command) -> Any:
        reply = (await self.request([command]))[0]
        if isinstance(reply, StoreError):
            raise reply
        return reply

    def _refuse(self, job: Job) -> None:
        """Answer without Redis, but not before what was submitted earlier has its answer."""
        if len(self._refused) >= self._max_commands:
            raise StoreOverloaded(f"more than {self._max_commands} commands wait for Redis")
        job.replies = [StoreUnavailable(f"Redis: {self._refusing}") for _ in job.commands]
        self._refused.append(job)
        self._token = self._token or trio.lowlevel.current_trio_token()
        self._token.run_sync_soon(self._deliver_refused)

    def _deliver_refused(self) -> None:
        """Hand out refusals when nothing is under way; `finish` calls this for the last of it."""
        if self._commands:
            return
        refused, self._refused = self._refused, []
        for job in refused:
            self._deliver(job)

    def finish(self, jobs: list[Job]) -> None:
        """Called by the thread's posts: hand out answers."""
        for job in jobs:
            self._commands -= len(job.commands)
            self._bytes -= job.size
            self._deliver(job)
        self._deliver_refused()

    def _deliver(self, job: Job) -> None:
        try:
            job.deliver(job.replies)
        except Exception:
            # An error here would end the whole Trio run, for a bug in one receiver.
            log.exception("redis_deliver_failed")

    def went_down(self, reason: str) -> None:
        """Called by the thread's posts: refuse new commands until `came_up`."""
        log.warning("redis_down", reason=reason)
        self._connected = False
        self._refusing = self._refusing or reason or "away"
        self._first_attempt.set()
        if self._thread is not None:
            self._thread.inbox.put(Signal.MARK)

    def came_up(self) -> None:
        """Called by the thread's posts: Redis answers."""
        if self._thread is not None:
            log.info("redis_up")
            self._connected, self._refusing = True, ""
        self._first_attempt.set()


def lane_of(key: str) -> str:
    """The part of a key that decides its slot in a cluster."""
    start = key.find("{")
    end = key.find("}", start)
    return key[start + 1 : end] if -1 < start < end else key
