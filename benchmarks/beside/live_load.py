"""Runs peers/live_load: builds it, gives it its texts and commands, reads its answers."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beside.contestants import Contestant, Texts
from harness.load import Numbers, Shortfall
from harness.process import Running
from harness.servers import PEERS, Workplace

SOURCE = PEERS / "live_load/live_load.c"
NAME = "live_load"


def build(place: Workplace) -> None:
    """Compile it. Raises FileNotFoundError without a compiler, CalledProcessError."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise FileNotFoundError("the load is a C program, and there is no C compiler")
    command = [compiler, "-O2", "-o", str(place.binary(NAME)), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)


class Load:
    """Devices of one server. Methods raise Shortfall with what the program says."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def tell(self, command: str, *values: float) -> dict[str, Any]:
        """Give a command; returns its first answer. At least one value."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join([command, *map(str, values)]) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that it writes. It writes one within two minutes, or ends."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"failed": "the load has ended"}
        if "failed" in found:
            raise Shortfall(found["failed"])
        return found


@contextlib.contextmanager
def load(
    place: Workplace,
    contestant: Contestant,
    server: Running,
    redis_pid: int,
    texts: Texts,
    group: int,
) -> Iterator[Load]:
    """The program while the block runs, on this process's core."""
    with tempfile.TemporaryDirectory(dir=place.directory) as folder:
        texts.write(Path(folder))
        numbers = [server.port, contestant.path, len(texts.hello), group, server.pid, redis_pid]
        command = [str(place.binary(NAME)), *map(str, numbers), folder]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Load(process)
            finally:
                process.kill()


def phase(name: str, told: dict[str, Any]) -> Numbers:
    """What a command's answer says, under names that begin with the phase's.

    `_share`: of the time, that each kept a core busy. `_errors`: also updates that could not be
    sent, connections that were closed, and messages that came twice.
    """
    delivered = max(told["delivered"], 1)
    shares = {
        f"{name}_{who}_share": told[f"{who}_cpu"] / told["seconds"]
        for who in ("server", "redis", "load")
    }
    return {
        f"{name}_p50_us": told["p50_us"],
        f"{name}_p99_us": told["p99_us"],
        f"{name}_per_s": told["delivered"] / told["seconds"],
        f"{name}_per_cpu_s": told["delivered"] / max(told["server_cpu"], 1e-6),
        f"{name}_cpu_us": told["server_cpu"] / delivered * 1e6,
        f"{name}_redis_us": told["redis_cpu"] / delivered * 1e6,
        f"{name}_errors": told["errors"] + told["closed"] + told["repeated"],
        **shares,
    }


def steady(name: str, told: dict[str, Any]) -> Numbers:
    """The same of an open loop, with how many were refused or not delivered (`_lost`), and how
    late the load itself was (`_sent_late_p99_us`), which is part of the latency."""
    return {
        **phase(name, told),
        f"{name}_lost": told["sent"] - told["delivered"],
        f"{name}_sent_late_p99_us": told["sent_late_p99_us"],
    }
