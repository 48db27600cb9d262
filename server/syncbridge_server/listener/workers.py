"""Several processes on one address: the parent binds, starts, watches and restarts workers.

Theory of operation. Each worker has its own listening sockets in one SO_REUSEPORT group, so the
kernel spreads connections evenly, without a thundering herd. The parent binds all of them and
keeps its copies: while a crashed worker is being restarted, its connections wait in the queue
instead of being reset. Before a stop the parent closes its copies, else connections would wait in
queues that nobody reads. Workers are processes started anew (no fork of a running event loop), in
process groups of their own, so that Ctrl-C reaches them once, through the parent. Each holds the
read end of a pipe; when the parent dies, it reads end of file and stops.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

from syncbridge_server.listener.bind import bind, listen
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.shutdown import STOP_SIGNALS
from syncbridge_server.signals import HELD, release_signals

WORKER_VARIABLE = "SYNCBRIDGE_WORKER"
POLL_SECONDS = 1.0
FORCED_SECONDS = 5.0

logger = logging.getLogger("syncbridge.workers")

StartWorker = Callable[[int, Sequence[socket.socket]], "subprocess.Popen[bytes]"]


class RestartPolicy:
    """When a crashed worker is started again. Pure; times in seconds of one monotonic clock.

    The delay doubles with every crash inside the window, from `base` to `cap`. With the
    `limit`-th crash inside the window the answer is None: restarting does not help.
    """

    def __init__(
        self, limit: int = 5, window: float = 60.0, base: float = 0.1, cap: float = 5.0
    ) -> None:
        self._limit = limit
        self._window = window
        self._base = base
        self._cap = cap
        self._crashes: deque[float] = deque()

    def crashed(self, now: float) -> float | None:
        """Record a crash; return the delay until the restart, or None to give up."""
        while self._crashes and now - self._crashes[0] >= self._window:
            self._crashes.popleft()
        self._crashes.append(now)
        if len(self._crashes) >= self._limit:
            return None
        return float(min(self._cap, self._base * 2 ** (len(self._crashes) - 1)))


def bind_for_workers(config: ListenerConfig, workers: int) -> list[list[socket.socket]]:
    """One list of listening sockets for each worker; early connections wait in the backlog.

    Raises OSError, ValueError.

    Port 0 is resolved once. Unix sockets and inherited descriptors are shared by all.
    """
    first = bind(config.binds, shared=True, mode=config.unix_mode)
    groups = [first, *([_sibling(sock) for sock in first] for _ in range(workers - 1))]
    for group in groups:
        listen(group, config.backlog)
    return groups


def _sibling(sock: socket.socket) -> socket.socket:
    """Another socket of the same group; the same one when there is no group."""
    if sock.family == socket.AF_UNIX or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        return sock
    host, port, *_ = sock.getsockname()
    if sock.family != socket.AF_INET6:
        return bind([f"{host}:{port}"], shared=True)[0]
    only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return bind([f"[{host}]:{port}"], shared=True, only=bool(only))[0]


class Spawner:
    """Starts worker processes that inherit their sockets and the lifeline.

    Args:
        argv: command line of a worker, which calls `inheritance()`.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._lifeline, self._ours = os.pipe()

    def __call__(self, index: int, sockets: Sequence[socket.socket]) -> "subprocess.Popen[bytes]":
        descriptors = [sock.fileno() for sock in sockets]
        value = f"{index}:{self._lifeline}:{','.join(map(str, descriptors))}"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)  # the worker inherits it
        try:
            return subprocess.Popen(
                self._argv,
                env={**os.environ, WORKER_VARIABLE: value},
                pass_fds=[self._lifeline, *descriptors],
                process_group=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Close the lifeline; workers that still run stop."""
        os.close(self._lifeline)
        os.close(self._ours)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a worker inherits: its number, the lifeline's descriptor, its listening sockets."""

    index: int
    lifeline: int
    sockets: list[socket.socket]


def inheritance() -> Inheritance | None:
    """Read what `Spawner` handed down; None in a process that is not a worker.

    Raises ValueError when the variable is not what Spawner writes.
    """
    value = os.environ.pop(WORKER_VARIABLE, "")
    if not value:
        return None
    index, lifeline, descriptors = value.split(":")
    sockets = [socket.socket(fileno=int(number)) for number in descriptors.split(",")]
    for sock in sockets:
        sock.setblocking(False)
    return Inheritance(int(index), int(lifeline), sockets)


@dataclass(slots=True)
class _Worker:
    """One worker. `due`: when to start its process again; None while it runs."""

    index: int
    sockets: Sequence[socket.socket]
    process: "subprocess.Popen[bytes] | None" = None
    due: float | None = 0.0


@dataclass(slots=True)
class Supervisor:
    """Keeps one process running for each socket list until a signal. Blocks; not for a Trio thread.

    Args:
        start_worker: starts worker `index` on its sockets.
        sockets: from `bind_for_workers`; closed by `run`.
        drain_timeout: how long workers may take to stop before they are killed, in seconds.
    """

    start_worker: StartWorker
    sockets: Sequence[Sequence[socket.socket]]
    drain_timeout: float = 30.0
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    clock: Callable[[], float] = time.monotonic
    _signals: int = 0
    _workers: list[_Worker] = field(default_factory=list)

    def run(self) -> int:
        """Run until one of STOP_SIGNALS or too many crashes; return the exit status, 0 or 1."""
        self._workers = [_Worker(index, socks) for index, socks in enumerate(self.sockets)]
        with self._signal_descriptor() as woken:
            healthy = True
            try:
                while healthy and not self._signals:
                    self._start_due()
                    healthy = self._collect()
                    if healthy and not self._signals:
                        self._wait(woken, self._until_due())
            finally:
                clean = self._stop(woken)
        return 0 if healthy and clean else 1

    def _start_due(self) -> None:
        now = self.clock()
        for worker in self._workers:
            if worker.due is not None and worker.due <= now:
                worker.process = self.start_worker(worker.index, worker.sockets)
                worker.due = None
                logger.info("worker %d started, pid %d", worker.index, worker.process.pid)

    def _collect(self) -> bool:
        """Reap workers that ended; False when they end too often."""
        for worker in self._workers:
            if worker.process is None or worker.process.poll() is None:
                continue
            code, worker.process = worker.process.returncode, None
            delay = self.policy.crashed(self.clock())
            if delay is None:
                logger.error("worker %d ended with %d; too many in a row", worker.index, code)
                return False
            logger.error("worker %d ended with %d; again in %.1f s", worker.index, code, delay)
            worker.due = self.clock() + delay
        return True

    def _until_due(self) -> float:
        now = self.clock()
        times = [worker.due - now for worker in self._workers if worker.due is not None]
        return max(0.0, min([POLL_SECONDS, *times]))

    def _stop(self, woken: socket.socket) -> bool:
        """End every worker: SIGTERM, again for a second signal to us, at last SIGKILL."""
        for sock in {sock for sockets in self.sockets for sock in sockets}:
            sock.close()
        self._tell(signal.SIGTERM)
        seen = self._signals
        deadline = self.clock() + self.drain_timeout + FORCED_SECONDS
        while self._running() and self.clock() < deadline:
            self._wait(woken, min(POLL_SECONDS, max(0.0, deadline - self.clock())))
            if self._signals > max(seen, 1):
                seen = self._signals
                deadline = min(deadline, self.clock() + FORCED_SECONDS)
                self._tell(signal.SIGTERM)
        self._tell(signal.SIGKILL)
        processes = [worker.process for worker in self._workers if worker.process is not None]
        codes = [process.wait() for process in processes]
        return not any(codes)

    def _running(self) -> list["subprocess.Popen[bytes]"]:
        processes = [worker.process for worker in self._workers if worker.process is not None]
        return [process for process in processes if process.poll() is None]

    def _tell(self, number: signal.Signals) -> None:
        for process in self._running():
            process.send_signal(number)

    def _wait(self, woken: socket.socket, seconds: float) -> None:
        if select.select([woken], [], [], seconds)[0]:
            woken.recv(4096)

    @contextlib.contextmanager
    def _signal_descriptor(self) -> Iterator[socket.socket]:
        """A socket that becomes readable with every SIGCHLD and every one of STOP_SIGNALS.

        SIGHUP is passed on to the workers.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        previous = {number: signal.signal(number, self._count) for number in STOP_SIGNALS}
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: self._tell(signal.SIGHUP))
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        release_signals()
        try:
            yield reader
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)
            reader.close()
            writer.close()

    def _count(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
