"""Devices that join one session, beside as many that join in pairs.

    python benchmarks/bench_joins.py [devices] [rounds]

The shipped server with a Redis of its own, rate limits off, both new for each run; the load and
Redis share the second core. The two kinds of sessions take turns, round by round, so that other
load on the machine meets them alike; medians, and the least and greatest of the rounds. Bytes are
those of messages that the clients received, from the first join until two seconds after the last;
memory is the growth of the server's private pages, and of what Redis says that it uses.
"""

import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import redis

from harness.process import prepare_this_process
from harness.servers import SYNCBRIDGE, Workplace, catalogue, redis_server, sharing
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench.credentials import devices, token_mint
from syncbridge_tools.bench.usage import cpu_seconds, sample

JOIN_SECONDS = 120.0
AFTER_SECONDS = 2.0
CONCURRENCY = 64


class Run(NamedTuple):
    """One kind of sessions in one round; CPU in microseconds and memory in bytes, a device."""

    joins_per_s: float
    server_cpu: float
    redis_cpu: float
    received: float
    memory: float
    redis_memory: float
    open: float


def main() -> None:
    count, rounds = (int(a) for a in (*sys.argv[1:], *("5000", "3")[len(sys.argv) - 1 :]))
    keys = {"JWT_SECRET": secrets.token_hex(32), "JWT_REFRESH_SECRET": secrets.token_hex(32)}
    os.environ.update(keys)
    prepare_this_process()
    runs: dict[int, list[Run]] = {count: [], 2: []}
    for _ in range(rounds):
        for size, found in runs.items():
            with tempfile.TemporaryDirectory(prefix="syncbridge-joins-") as directory:
                found.append(measure(Workplace(Path(directory), keys), count, size))
    report(count, runs[count], runs[2])


def measure(place: Workplace, count: int, size: int) -> Run:
    """`count` devices join, in sessions of `size`."""
    settings = {"SYNCBRIDGE_MAX_DEVICES_PER_SESSION": str(max(count, 32))}
    messages = [one.auth_message() for one in devices(token_mint(), count, size)]
    with (
        redis_server(place) as unix,
        sharing(catalogue(place)[SYNCBRIDGE], place, unix, **settings) as server,
        redis.Redis(unix_socket_path=str(unix)) as store,
    ):
        swarm = Swarm("127.0.0.1", server.port, count)
        pid, used = store.info("server")["process_id"], store.info("memory")["used_memory"]
        before, redis_before = sample(server.pid), cpu_seconds(pid)
        try:
            joined = swarm.connect(messages, concurrency=CONCURRENCY, seconds=JOIN_SECONDS)
            received = joined_bytes = swarm.totals.payload_bytes
            swarm.idle(AFTER_SECONDS)
            received = joined_bytes + swarm.totals.payload_bytes
            after, redis_after = sample(server.pid).since(before), cpu_seconds(pid)
            grown = store.info("memory")["used_memory"] - used
        finally:
            swarm.close(reset=True)
    return Run(
        joined.opened / joined.seconds,
        after.cpu / count * 1e6,
        (redis_after - redis_before) / count * 1e6,
        received / count,
        after.private / count,
        grown / count,
        joined.opened,
    )


ROWS: tuple[tuple[str, Callable[[Run], float]], ...] = (
    ("open", lambda run: run.open),
    ("joins a second", lambda run: run.joins_per_s),
    ("server CPU a join, us", lambda run: run.server_cpu),
    ("Redis CPU a join, us", lambda run: run.redis_cpu),
    ("bytes received a join", lambda run: run.received),
    ("server memory a connection, bytes", lambda run: run.memory),
    ("Redis memory a device, bytes", lambda run: run.redis_memory),
)


def report(count: int, one: list[Run], pairs: list[Run]) -> None:
    """A table, and the ratio by which a session of thousands is judged."""
    print(f"{'':36}{f'one session of {count:,}':>28}{f'{count // 2:,} pairs':>28}")
    for name, value in ROWS:
        print(f"{name:36}{spread([*map(value, one)]):>28}{spread([*map(value, pairs)]):>28}")
    ratios = [a.joins_per_s / b.joins_per_s for a, b in zip(one, pairs, strict=True)]
    print(f"\njoins/s, one session against pairs: {statistics.median(ratios):.2f}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


if __name__ == "__main__":
    main()
