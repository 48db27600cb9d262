"""Heartbeats on 10,000 WebSockets while REST runs at full speed, or broadcasts, on the same server.

`PYTHONPATH=benchmarks python benchmarks/bench_fairness.py [--connections 10000] [--rate 1000]
[--seconds 5] [--rounds 3] [--out FILE]`

Every connection sends a heartbeat in turn, `rate` a second in all, as an open loop: each is due at
its time, and its latency runs from then until its acknowledgement. Meanwhile `http_load` keeps 32
requests of a session with a token and Redis under way. The server has SERVER_CORE; heartbeats, HTTP
load and Redis share the other one, so how late the generator itself was is reported beside, and is
part of the latency. The same is measured without REST, and with a broadcast to all connections
every BROADCAST_SECONDS; each of those takes the server some 60 ms of writing, so a server that
writes it in one go answers nothing for so long, and the p99 of the heartbeats is that.
"""

import argparse
import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench_http import CONNECTIONS, SECRETS, Contestant, contestants, serving, workplace
from harness.load import Shortfall
from harness.machine import describe
from harness.process import prepare_this_process
from harness.servers import Workplace, redis_server
from harness.stolen import undisturbed
from syncbridge_core.swarm import UPDATE_VALUE, Swarm
from syncbridge_tools.bench.credentials import admin_token, devices, token_mint
from syncbridge_tools.bench.usage import cpu_seconds

TARGET_MS = 20.0
BROADCAST_SECONDS = 0.25


def heartbeat() -> bytes:
    """HEARTBEAT whose correlation id, which the acknowledgement repeats, is its number."""
    message = {"type": 1, "payload": {}, "timestamp": int(time.time()), "correlation_id": "ID"}
    return json.dumps(message).encode().replace(b"ID", UPDATE_VALUE)


def beat(swarm: Swarm, rate: float, seconds: float) -> dict[str, float]:
    """One open loop over all connections."""
    result = swarm.updates(
        [heartbeat()], rate, seconds, senders=range(swarm.count), warmup=seconds / 5, drain=2.0
    )
    if result.acknowledged < result.sent or result.unsent:
        raise Shortfall(f"{result.acknowledged} of {result.sent} heartbeats were answered")
    return {
        "beats": result.sent,
        "p50_ms": result.acks.percentile(50) / 1e6,
        "p99_ms": result.acks.percentile(99) / 1e6,
        "generator_p99_ms": result.lag.percentile(99) / 1e6,
    }


def measure(one: Contestant, place: Workplace, load: Path, options: Any) -> dict[str, float]:
    """Start the server, connect everybody, beat without and with REST."""
    with serving(one, place.directory) as server:
        swarm = Swarm("127.0.0.1", server.port, options.connections)
        people = devices(token_mint(), options.connections, 2)
        opened = swarm.connect([person.auth_message() for person in people], seconds=120.0)
        if opened.failed:
            raise Shortfall(f"{opened.failed} connections failed: {opened.error}")
        try:
            alone = beat(swarm, options.rate, options.seconds)
            with broadcasting(server.port) as sent:
                broadcasts = beat(swarm, options.rate, options.seconds)
            if min(sent) < options.connections:
                raise Shortfall(f"broadcasts reached {sent} connections")
            command = [str(load), str(server.port), str(CONNECTIONS), str(options.seconds + 1)]
            beside = undisturbed(
                "beside",
                lambda: beat_beside(swarm, server.pid, command, one.request, options),
            )
        finally:
            swarm.close(reset=True)
    return {
        **{f"alone_{name}": value for name, value in alone.items()},
        **{f"broadcast_{name}": value for name, value in broadcasts.items()},
        "broadcasts": len(sent),
        **beside,
    }


@contextmanager
def broadcasting(port: int) -> Iterator[list[int]]:
    """One broadcast after another to everybody; how many each of them went to."""
    delivered: list[int] = []
    ended = threading.Event()
    headers = {"Authorization": f"Bearer {admin_token(token_mint())}"}

    def work() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            while not ended.wait(BROADCAST_SECONDS):
                body = {"message": "x" * 150, "audience": "all"}
                answer = client.post("/admin/broadcast", json=body)
                delivered.append(answer.raise_for_status().json()["delivered"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield delivered
    finally:
        ended.set()
        thread.join()


def beat_beside(
    swarm: Swarm, pid: int, command: list[str], request: bytes, options: Any
) -> dict[str, float]:
    """The same while REST is loaded."""
    before = cpu_seconds(pid)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as requests:
        assert requests.stdin is not None
        assert requests.stdout is not None
        requests.stdin.write(request)
        requests.stdin.close()
        time.sleep(0.5)
        beats = beat(swarm, options.rate, options.seconds - 1)
        answered = json.loads(requests.stdout.read())
    return {
        **{f"beside_{name}": value for name, value in beats.items()},
        "rest_per_s": answered["answers"] / answered["seconds"],
        "rest_p99_ms": answered["p99_us"] / 1000,
        "server_cpu_share": (cpu_seconds(pid) - before) / answered["seconds"],
    }


def figure(what: str, name: str, samples: list[dict[str, float]]) -> dict[str, Any]:
    """A line of the report."""
    p99 = statistics.median(sample[name] for sample in samples)
    return {"figure": what, "value": round(p99, 2), "target": TARGET_MS, "met": p99 < TARGET_MS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.update(SECRETS)
    prepare_this_process()
    samples: list[dict[str, float]] = []
    with workplace() as (place, load), redis_server(place) as redis:
        one = next(c for c in contestants(str(redis), place) if c.case == "session GET")
        for number in range(options.rounds):
            samples.append(measure(one, place, load, options))
            shown = {name: round(value, 2) for name, value in samples[-1].items()}
            print(f"round {number + 1}", json.dumps(shown), flush=True)
    what = f"p99 of heartbeats on {options.connections} WebSockets"
    figures = [
        figure(f"{what} beside REST, ms", "beside_p99_ms", samples),
        figure(f"{what} beside four broadcasts a second, ms", "broadcast_p99_ms", samples),
    ]
    print(json.dumps(figures))
    if options.out:
        document = {"machine": describe(), "figures": figures, "samples": samples}
        options.out.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
