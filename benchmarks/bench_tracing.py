"""What tracing costs an update: CPU of the server with tracing off, and on with 1 % sampled.

    python benchmarks/bench_tracing.py [--quick] [--rate 2000] [--seconds 10] [--pairs 5]

A server for each, on one Redis; the load of `syncbridge bench updates` meets them in turns, so that
other work on the machine meets both alike. Spans go to a collector in this process. The aims are
0 % off (one comparison an update, which no run can show) and at most 3 % on. `--quick` takes
seconds and shows that all of it works, not what it costs.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bench_events import load
from support.events.otlp_collector import Collector
from support.redis_servers import RedisServer
from support.server_kit import Process, server_process

SHARE = "0.01"


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=5)
    told = parser.parse_args()
    if told.quick:
        told.rate, told.seconds, told.pairs = 500, 2, 1
    return told


def cpu(server: Process) -> float:
    """CPU seconds of a server."""
    times = psutil.Process(server.popen.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and print CPU per update, and what the one has more than the other."""
    told = arguments()
    spent: dict[str, list[float]] = {"off": [], "on": []}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer())
        collector = stack.enter_context(contextlib.closing(Collector()))
        limits = {"SYNCBRIDGE_RATE_LIMIT_ENABLED": "false"}
        traced = {"SYNCBRIDGE_OTLP_URL": collector.url, "SYNCBRIDGE_TRACE_SHARE": SHARE}
        servers = {
            "off": stack.enter_context(server_process(folder, redis.url, **limits)),
            "on": stack.enter_context(server_process(folder, redis.url, **limits, **traced)),
        }
        for turn in range(2 * told.pairs):
            kind = ("off", "on", "on", "off")[turn % 4]
            before = cpu(servers[kind])
            load(servers[kind].url, told.rate, told.seconds, folder)
            updates = told.rate * told.seconds
            spent[kind].append((cpu(servers[kind]) - before) / updates * 1e6)
            print(f"{kind:3} {spent[kind][-1]:8.1f} us of CPU an update", flush=True)
    if not collector.spans:
        raise SystemExit("no span has come")
    ratios = [on / off for off, on in zip(spent["off"], spent["on"], strict=True)]
    print(f"on / off: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"spans: {len(collector.spans)}")


if __name__ == "__main__":
    main()
