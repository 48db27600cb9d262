"""What an open dashboard costs the server, and how soon it is painted.

    python benchmarks/pages/bench_dashboard.py [--quick] [--rounds 5] [--seconds 12] [--loads 12]

The shipped server with 10,000 connections. In turns nobody looks, an admin has the dashboard open
(figures come by the socket), or a viewer has (the page asks). What is compared is the CPU of the
server's own process, first with the connections idle, then with 2,000 updates a second, an open
loop. A look costs the same in both; where other work disturbs the machine, an update costs more or
less from turn to turn than the look does, and only the idle turns can show it. Chromium, the load
and Redis share the other core, where they disturb latencies, which are not measured. The aim is at
most 2 % of a core.

Then, with the connections idle, the dashboard is loaded `--loads` times, nothing cached: Chromium's
own times from the start of the navigation to the first paint. The aim is at most 300 ms. `--quick`
takes seconds and shows that all of it works, not what it costs.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.process import LOAD_CORE, Running, busy_since, core_busy, prepare_this_process
from harness.servers import SYNCBRIDGE, Workplace, catalogue, redis_server, sharing
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench import scenarios
from syncbridge_tools.bench.credentials import admin_token, devices, token_mint
from syncbridge_tools.bench.usage import cpu_seconds

SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
KINDS = ("nobody", "admin", "viewer")
SETTLE_SECONDS = 2.0
"""From when the page is there until the CPU counts: its loading is not measured."""


class Browser:
    """`browser.mjs`, a question at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, line: str) -> dict[str, float]:
        """Raises OSError when the browser has ended."""
        questions, answers = self._process.stdin, self._process.stdout
        if questions is None or answers is None:
            raise OSError("the browser was started without pipes")
        questions.write(line + "\n")
        questions.flush()
        answer = answers.readline()
        if not answer:
            raise OSError("the browser has ended")
        found: dict[str, float] = json.loads(answer)
        return found


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium, on this process's core."""
    node = shutil.which("node")
    if node is None:
        raise SystemExit("node is not on the PATH")
    command = [node, str(Path(__file__).with_name("browser.mjs"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Browser(process)


class Bench:
    """A server with its load, and somebody who looks at times."""

    def __init__(self, server: Running, swarm: Swarm, chromium: Browser) -> None:
        self._server = server
        self._swarm = swarm
        self._chromium = chromium
        self._token = admin_token(token_mint())

    def link(self, role: str) -> str:
        """An address that opens the dashboard."""
        url = f"http://127.0.0.1:{self._server.port}"
        headers = {"authorization": f"Bearer {self._token}"}
        answer = httpx.post(f"{url}/admin/links", json={"role": role}, headers=headers, timeout=30)
        return url + str(answer.raise_for_status().json()["path"])

    def turn(self, kind: str, seconds: float, rate: int) -> tuple[float, int]:
        """Share of a core that the server used, and updates that did not arrive."""
        if kind != "nobody":
            self._chromium.ask(f"open {self.link(kind)}")
            time.sleep(SETTLE_SECONDS)
        before, began = cpu_seconds(self._server.pid), time.monotonic()
        missing = self._updates(seconds, rate)
        share = (cpu_seconds(self._server.pid) - before) / (time.monotonic() - began)
        if kind != "nobody":
            self._chromium.ask("close")
        return share, missing

    def _updates(self, seconds: float, rate: int) -> int:
        if not rate:
            self._swarm.idle(seconds)  # who answers no ping is disconnected
            return 0
        result = self._swarm.updates(
            scenarios.update_templates(),
            float(rate),
            seconds,
            senders=range(0, self._swarm.count, 2),
            drain=30.0,
        )
        return round(rate * seconds) - result.delivered

    def load(self) -> tuple[float, float]:
        """Milliseconds to the first paint, and to the first with content."""
        times = self._chromium.ask(f"open {self.link('admin')}")
        self._chromium.ask("close")
        return times["paint"], times["content"]


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--loads", type=int, default=12)
    told = parser.parse_args()
    if told.quick:
        told.connections, told.rate, told.rounds, told.seconds, told.loads = 200, 200, 1, 3.0, 2
    return told


def main() -> None:
    """Measure and print."""
    told = arguments()
    prepare_this_process()
    os.environ.update(SECRETS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = Workplace(folder, SECRETS)
        unix = stack.enter_context(redis_server(place))
        server = stack.enter_context(sharing(catalogue(place)[SYNCBRIDGE], place, unix))
        people = [one.auth_message() for one in devices(token_mint(), told.connections, 2)]
        swarm = Swarm("127.0.0.1", server.port, told.connections)
        stack.callback(swarm.close, reset=True)
        joined = swarm.connect(people, seconds=240.0)
        print(f"{joined.opened} connections, {joined.failed} failed; load {os.getloadavg()}")
        bench = Bench(server, swarm, stack.enter_context(browser()))
        bench.turn("nobody", min(told.seconds, 3.0), told.rate)
        bench.load()
        for rate in (0, told.rate):
            cpu(bench, told.rounds, told.seconds, rate)
        paints(bench, told.loads)


def cpu(bench: Bench, rounds: int, seconds: float, rate: int) -> None:
    """Turns in changing order, and what a look adds within its round."""
    shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS[number % 3 :] + KINDS[: number % 3]:
            busy = core_busy(LOAD_CORE)
            share, missing = bench.turn(kind, seconds, rate)
            shares[kind].append(100 * share)
            other = busy_since(LOAD_CORE, busy)
            print(
                f"{rate}/s, round {number}, {kind:7}{100 * share:7.2f} % of a core; "
                f"{missing} updates missing; the other core {100 * other:.0f} % busy",
                flush=True,
            )
    for kind in KINDS:
        print(f"{rate}/s, {kind:7}{spread(shares[kind])} % of a core")
    for kind in KINDS[1:]:
        added = [a - b for a, b in zip(shares[kind], shares["nobody"], strict=True)]
        print(f"{rate}/s, {kind} adds {spread(added)} % of a core")


def paints(bench: Bench, loads: int) -> None:
    """First paints."""
    found = [bench.load() for _ in range(loads)]
    print(f"first paint {spread([paint for paint, _ in found])} ms, n = {loads}")
    print(f"first paint with content {spread([content for _, content in found])} ms")
    print(f"load {os.getloadavg()}")


def spread(values: list[float]) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
