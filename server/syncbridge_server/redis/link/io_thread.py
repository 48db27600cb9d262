"""The thread that talks to Redis: it drains a queue into batches and posts answers back.

Theory of operation. Trio tasks put jobs on a `SimpleQueue`; the thread takes all that is there (up
to `BATCH_COMMANDS`), runs it as one pipeline, and posts all answers with one `run_sync_soon`. While
it waits for Redis the next batch gathers, so batches grow with load and the cost of a command
falls: the two wake-ups and two system calls of a batch are shared.

All bookkeeping belongs to the Trio thread; the thread owns only the connection. That makes going
down safe without locks: the thread posts `went_down`; the Trio side then refuses new jobs and
answers with a MARK in the queue; the thread fails jobs up to that MARK, and from there on knows
that the queue stays empty while it tries to connect, with a backoff of 50 ms to 1 s. `came_up`
opens the gate again. So a dead Redis costs its callers nothing, and answers keep their order.

A job may wait in the queue for half of the deadline (else StoreUnavailable, nothing was done), and
Redis has the other half to answer (else StoreTimeout). When Redis pauses, for a fork or a slow
disk, one batch waits for its answer and all that comes meanwhile in the queue: equal halves let the
longest pause pass without a failure.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import structlog
import trio

from syncbridge.errors import StoreTimeout, StoreUnavailable
from syncbridge_server.redis.link.pipeline import Command, Pipeline
from syncbridge_server.redis.link.server_info import ServerInfo
from syncbridge_server.redis.link.wire import WireBroken, pack

log = structlog.get_logger(__name__)

BATCH_COMMANDS = 512
BATCH_BYTES = 4_194_304
QUEUE_SHARE = 0.5
IDLE_PING_SECONDS = 2.0
BACKOFF_SECONDS = (0.05, 1.0)
PING = Command(pack("PING"), repeatable=True)


class Job:
    """Commands that were submitted together, and what to do with their replies."""

    __slots__ = ("commands", "deliver", "expires", "replies", "size")

    def __init__(
        self,
        commands: Sequence[Command],
        size: int,
        expires: float,
        deliver: Callable[[list[Any]], None],
    ) -> None:
        self.commands = commands
        self.size = size
        self.expires = expires
        self.deliver = deliver
        self.replies: list[Any] = []


class Signal(Enum):
    """What else can be in the queue."""

    MARK = 0
    STOP = 1
    RENEW = 2


class Owner(Protocol):
    """The Trio side; every method runs on the Trio thread."""

    def finish(self, jobs: list[Job]) -> None: ...
    def went_down(self, reason: str) -> None:
        """Refuse new jobs from now on, and put MARK into the queue."""

    def came_up(self) -> None: ...
    def arrived(self, server: ServerInfo) -> None:
        """A connection was made, the first one or another."""

    def refused(self, codes: set[str]) -> None:
        """Redis refused commands with these codes."""


class IOThread:
    """Runs jobs from `inbox` until STOP. `deadline` in seconds."""

    def __init__(
        self, pipeline: Pipeline, owner: Owner, token: trio.lowlevel.TrioToken, deadline: float
    ) -> None:
        self.inbox: SimpleQueue[Job | Signal] = SimpleQueue()
        self._pipeline = pipeline
        self._owner = owner
        self._post = token.run_sync_soon
        self._deadline = deadline
        self._stopping = False
        self._renew = False
        self._thread = threading.Thread(target=self._main, name="redis-io", daemon=True)

    def start(self) -> None:
        """Start the thread; `came_up` or `went_down` tells how the first connect ended."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread after STOP."""
        self._thread.join(seconds)

    def _main(self) -> None:
        try:
            if self._connect():
                self._post(self._owner.came_up)
            while not self._stopping:
                if self._pipeline.connected or self._connect():
                    self._serve(self._take())
                    self._renew_if_told()
        except trio.RunFinishedError:
            pass
        finally:
            self._pipeline.close()

    def _take(self) -> list[Job]:
        """Wait for jobs and take as many as fit into one batch; none after an idle time."""
        jobs: list[Job] = []
        commands = size = 0
        try:
            item = self.inbox.get(timeout=IDLE_PING_SECONDS)
            while True:
                if item is Signal.STOP:
                    self._stopping = True
                    break
                if item is Signal.RENEW:
                    self._renew = True
                    break
                if isinstance(item, Job):
                    jobs.append(item)
                    commands += len(item.commands)
                    size += item.size
                    if commands >= BATCH_COMMANDS or size >= BATCH_BYTES:
                        break
                item = self.inbox.get_nowait()
        except Empty:
            pass
        return jobs

    def _renew_if_told(self) -> None:
        if self._renew:
            self._renew = False
            self._pipeline.close()
            self._pipeline.reason = "to be made anew"

    def _serve(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        deadline = now + self._deadline * (1 - QUEUE_SHARE)
        if not jobs:
            if not self._stopping and not self._renew:
                self._run([PING], deadline)  # drops the connection when there is no answer
            return
        live = [job for job in jobs if job.expires > now]
        if len(live) < len(jobs):
            _fail([job for job in jobs if job.expires <= now], "waited too long to be sent")
        if live:
            replies = self._run([c for job in live for c in job.commands], deadline)
            first = 0
            for job in live:
                last = first + len(job.commands)
                job.replies = replies[first:last]
                first = last
        self._post(self._owner.finish, jobs)

    def _run(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        before = self._pipeline.server
        try:
            replies = self._pipeline.run(commands, deadline)
            if self._pipeline.server is not before:
                self._tell_server()
            if self._pipeline.refusals:
                self._post(self._owner.refused, self._pipeline.refusals)
                self._pipeline.refusals = set()
            return replies
        except Exception:
            # A bug; but with the thread gone every caller would wait for ever.
            log.exception("redis_batch_failed")
            self._pipeline.close()
            return [StoreTimeout("Redis: internal error, the outcome is not known")] * len(commands)

    def _connect(self) -> bool:
        """Connect, at once if that works, else after having gone down. False: stopped."""
        if not self._pipeline.hung and self._attempt():
            return True
        self._post(self._owner.went_down, self._pipeline.reason)
        self._fail_queue()
        pause, longest = BACKOFF_SECONDS
        while not self._stopping:
            if self._attempt():
                self._post(self._owner.came_up)
                return True
            self._pause(pause * random.uniform(0.75, 1.25))  # noqa: S311
            pause = min(pause * 2, longest)
        return False

    def _attempt(self) -> bool:
        try:
            self._pipeline.connect()
        except WireBroken as broken:
            self._pipeline.reason = broken.reason
            return False
        self._pipeline.hung = False
        self._tell_server()
        return True

    def _tell_server(self) -> None:
        if self._pipeline.server is not None:
            self._post(self._owner.arrived, self._pipeline.server)

    def _fail_queue(self) -> None:
        """Fail all jobs that were queued before the Trio side closed the gate."""
        while True:
            try:
                item = self.inbox.get(timeout=1.0)
            except Empty:
                self._post(_still_running)
                continue
            if isinstance(item, Job):
                _fail([item], self._pipeline.reason)
                self._post(self._owner.finish, [item])
            elif item is not Signal.RENEW:
                self._stopping = item is Signal.STOP
                return

    def _pause(self, seconds: float) -> None:
        """Wait; only STOP can come meanwhile."""
        try:
            item = self.inbox.get(timeout=seconds)
        except Empty:
            return
        if isinstance(item, Job):
            _fail([item], self._pipeline.reason)
            self._post(self._owner.finish, [item])
        elif item is Signal.STOP:
            self._stopping = True


def _fail(jobs: Sequence[Job], reason: str) -> None:
    for job in jobs:
        job.replies = [StoreUnavailable(f"Redis: {reason}") for _ in job.commands]


def _still_running() -> None:
    """Posted only to learn (by RunFinishedError) whether the Trio run is over."""
