"""Server processes under test: started on one core, stopped by their id, never left behind."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SERVER_CORE = 0
LOAD_CORE = 1
CORES = (SERVER_CORE, LOAD_CORE)
START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.005
LOG_TAIL = 2000


class Running(NamedTuple):
    """A started server. `seconds`: from the start of its process until it accepted."""

    pid: int
    port: int
    seconds: float = 0.0


class StartError(RuntimeError):
    """A server did not come up; the text ends with the last lines of its log."""


def free_port() -> int:
    """A port that was just free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare_this_process() -> None:
    """The load side: its own core, and as many descriptors as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {LOAD_CORE} & os.sched_getaffinity(0) or os.sched_getaffinity(0))


@contextlib.contextmanager
def started(
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    *,
    core: int,
    port: int = 0,
    unix: Path | None = None,
) -> Iterator[Running]:
    """Run a server while the block runs; it listens on `port` or on the `unix` socket.

    Raises StartError when it does not accept connections within START_SECONDS.
    """
    cores = {core} & os.sched_getaffinity(1) or os.sched_getaffinity(1)
    begun = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    try:
        _await_ready(process, port, unix, log)
        yield Running(process.pid, port, time.perf_counter() - begun)
    finally:
        _stop(process)


def _await_ready(
    process: "subprocess.Popen[bytes]", port: int, unix: Path | None, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _accepts(port, unix):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-LOG_TAIL:]
            raise StartError(f"{log.stem} did not start:\n{tail}")
        time.sleep(POLL_SECONDS)


def _accepts(port: int, unix: Path | None) -> bool:
    family = socket.AF_INET if unix is None else socket.AF_UNIX
    with socket.socket(family) as probe:
        return probe.connect_ex(("127.0.0.1", port) if unix is None else str(unix)) == 0


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, then SIGKILL. A benchmark has nothing to drain, so the wait is short."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def core_ticks(core: int) -> list[int]:
    """Ticks of a core since the machine started, user to steal in the order of proc(5)."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return [int(tick) for tick in ticks[:8]]
    raise OSError(f"there is no core {core}")


def core_busy(core: int) -> tuple[int, int]:
    """(ticks in which a core worked, all its ticks) since the machine started."""
    counted = core_ticks(core)
    return sum(counted) - counted[3] - counted[4], sum(counted)


def busy_since(core: int, before: tuple[int, int]) -> float:
    """Share of the time since `core_busy` was asked in which a core worked, 0 to 1."""
    worked, ticks = (now - then for now, then in zip(core_busy(core), before, strict=True))
    return worked / max(ticks, 1)
