"""The price of durability: updates with SYNCBRIDGE_DURABILITY `memory`, `fsync` and `replicas:1`.

`python benchmarks/bench_durability.py [--rounds 5] [--seconds 3] [--rate 1000] [--out FILE]`

One server on SERVER_CORE; the load, Redis and its replica share the other core, so that what a
replica costs is in the figures as if it had none of its own. All three have an append-only file;
`fsync` has it synchronized with each answer, on this machine's disk. The three take turns in each
round. `p50_ms` and `p99_ms` run from when an update is due to its acknowledgement, at a steady
rate; `per_s` is what bursts of five updates a session reach, `cpu_us` what one of those costs the
server.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from harness.durable import STORE_DEADLINE, bursts, create, document
from harness.load import Numbers, Shortfall, Size
from harness.machine import describe
from harness.process import free_port, prepare_this_process
from harness.servers import SYNCBRIDGE, Workplace, catalogue, redis_server, sharing
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench import scenarios
from syncbridge_tools.bench.credentials import devices, token_mint

SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
VARIANTS = ("memory", "fsync", "replicas:1")
KEYS = 20
CHANGING = 3
SYNC_SECONDS = 10.0


@contextlib.contextmanager
def store(place: Workplace, durability: str) -> Iterator[Path]:
    """The socket of a Redis that can keep it."""
    if durability == "fsync":
        with redis_server(place, "--appendfsync", "always") as unix:
            yield unix
    elif durability == "memory":
        with redis_server(place) as unix:
            yield unix
    else:
        port = str(free_port())
        at_once = ("--repl-diskless-sync-delay", "0")
        with (
            redis_server(place, "--port", port, *at_once) as unix,
            redis_server(place, "--replicaof", "127.0.0.1", port),
        ):
            await_replica(unix)
            yield unix


def await_replica(unix: Path) -> None:
    """Until it is in step."""
    deadline = time.monotonic() + SYNC_SECONDS
    with redis.Redis(unix_socket_path=str(unix)) as client:
        while client.info("replication").get("slave0", {}).get("state") != "online":
            if time.monotonic() > deadline:
                raise Shortfall("the replica is not in step")
            time.sleep(0.01)


def measure(place: Workplace, durability: str, size: Size, rate: float, seconds: float) -> Numbers:
    """One variant in one round."""
    people = list(devices(token_mint(), 2 * size.sessions, 2))
    settings = {
        "SYNCBRIDGE_DURABILITY": durability,
        "SYNCBRIDGE_STORE_DEADLINE": STORE_DEADLINE,
    }
    ours = catalogue(place)[SYNCBRIDGE]
    with (
        store(place, durability) as unix,
        sharing(ours, place, unix, **settings) as server,
    ):
        create(server, unix, people[::2], document(KEYS))
        swarm = Swarm("127.0.0.1", server.port, len(people))
        try:
            result = swarm.connect([one.auth_message() for one in people])
            if result.failed:
                raise Shortfall(f"{result.failed} connections failed: {result.error}")
            found = bursts(swarm, server, size, "burst")
            most = {"per_s": found["burst_per_s"], "cpu_us": found["burst_cpu_us"]}
            return steady(swarm, rate, seconds) | most
        finally:
            swarm.close(reset=True)


def steady(swarm: Swarm, rate: float, seconds: float) -> Numbers:
    """How late acknowledgements are."""
    result = swarm.updates(
        scenarios.update_templates(CHANGING), rate, seconds, senders=range(0, swarm.count, 2)
    )
    if result.acknowledged != result.sent:
        raise Shortfall(f"{result.sent - result.acknowledged} updates were not acknowledged")
    late = result.acks
    return {name: late.percentile(at) / 1e6 for name, at in (("p50_ms", 50), ("p99_ms", 99))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.update(SECRETS)  # tokens are made here
    prepare_this_process()
    size = Size(0, 0, 0, 0, 0.0, 0.0, (), 0, 0, options.sessions, options.bursts, 0)
    samples: dict[str, list[Numbers]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), SECRETS)
        for number in range(options.rounds):
            for name in VARIANTS:
                found = measure(place, name, size, options.rate, options.seconds)
                samples[name].append(found)
                print(f"round {number + 1} {name}", {n: round(v, 2) for n, v in found.items()})
    medians = {
        name: {one: statistics.median(s[one] for s in rounds) for one in rounds[0]}
        for name, rounds in samples.items()
    }
    if options.out:
        document_ = {"machine": describe(), "medians": medians, "samples": samples}
        options.out.write_text(json.dumps(document_, indent=2))


if __name__ == "__main__":
    sys.exit(main())
