"""HTTP beside other servers: a small JSON GET; a session read and written with a token and Redis.

`python benchmarks/bench_http.py [--rounds 15] [--seconds 1] [--out FILE]`

The servers of a case share SERVER_CORE and take turns: one works while the others sleep, a second
each, so that what disturbs one disturbs all. The load, a compiled closed loop with 32 connections
whose requests all differ, and Redis have the other core. Besides answers per second there are
answers per second of the server's CPU, which does not count time that somebody else had its core;
ratios are of those.

The write is one key of 80 bytes, a new value each time, client wins. With Go each request has one
connection to Redis for itself, of 32; SyncBridge sends what came together as one pipeline.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from harness.machine import describe
from harness.process import (
    SERVER_CORE,
    Running,
    free_port,
    prepare_this_process,
    started,
)
from harness.servers import BENCHMARKS, BUILD_SECONDS, PEERS, Workplace, redis_server
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.settings import Settings
from syncbridge_tools.bench.usage import cpu_seconds

CONNECTIONS = 32
WARM_SECONDS = 0.5
GO = "Go net/http, go-redis"
USER = "bench"
SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
STATE = {f"setting_{number:02}": "0123456789" * 8 for number in range(11)}


class Contestant(NamedTuple):
    """A server and the request it is asked."""

    case: str
    name: str
    command: Callable[[int], list[str]]
    request: bytes
    target: float | None
    env: dict[str, str]
    prepare: Callable[[int], None] | None = None


def request(path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request that the load makes different each time: its id, or its body if it has one."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "Host: 127.0.0.1:8080"]
    lines += ["User-Agent: bench/1.0", "Accept: */*", "Accept-Encoding: identity", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    else:
        lines.append("X-Request-ID: 00000000")
    return "\r\n".join([*lines, "", ""]).encode() + body


def contestants(redis: str, place: Workplace) -> list[Contestant]:
    """All servers, in the order of a round. The first of a case is ours."""
    python, rest = sys.executable, str(BENCHMARKS / "servers/rest.py")
    session = str(uuid.uuid4())
    settings = Settings(jwt_secret=SECRETS["JWT_SECRET"], jwt_refresh_secret="b" * 40)
    token = build_tokens(settings)[0].mint_access(Grant(USER, Role.USER, "", ""), time.time(), 900)
    bearer = f"Authorization: Bearer {token[0]}"
    read = request(f"/session/{session}", bearer)
    change = {
        "session_id": session,
        "base_version": 1,
        "changes": {"setting_03": "00000000" + "0123456789" * 7 + "ab"},
        "resolution_strategy": "client_wins",
    }
    post = request("/session/incremental", bearer, body=json.dumps(change).encode())
    env = {
        **SECRETS,
        "REDIS_ADDR": f"unix://{redis}",
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
        "SYNCBRIDGE_ACCESS_LOG": "false",
        "BENCH_USER": USER,
        "BENCH_SESSION": session,
        "BENCH_STATE": json.dumps(STATE),
        "GOMAXPROCS": "1",
    }

    def write(port: int) -> None:
        body = {"session_id": session, "user_id": USER, "state_data": STATE}
        headers = {"Authorization": f"Bearer {token[0]}"}
        url = f"http://127.0.0.1:{port}/session/snapshot"
        status = httpx.post(url, json=body, headers=headers).status_code
        if status not in (201, 409):  # 409: an earlier round has written it
            raise RuntimeError(f"the session could not be written: {status}")

    def document(kind: str) -> Callable[[int], list[str]]:
        return lambda port: [python, rest, str(port), kind]

    doc = request("/doc")
    ours = lambda _: [python, "-m", "syncbridge_server", "serve"]  # noqa: E731
    peer = lambda port: [python, str(PEERS / "uvicorn_redis/app.py"), str(port)]  # noqa: E731
    script, binary = str(PEERS / "incremental.lua"), place.binary("go_http")

    def go(port: int) -> list[str]:
        return [str(binary), "-listen", f"127.0.0.1:{port}", "-script", script]

    everybody = [
        Contestant("small GET", "our listener", document("fast"), doc, None, {}),
        Contestant("small GET", "uvicorn", document("uvicorn"), doc, 1.1, {}),
        Contestant("small GET", "Hypercorn on Trio", document("stock"), doc, 10.0, {}),
        Contestant("session GET", "SyncBridge", ours, read, None, env, write),
        Contestant("session GET", "uvicorn, redis.asyncio", peer, read, 1.5, env),
        Contestant("session GET", GO, go, read, None, env),
        Contestant("incremental POST", "SyncBridge", ours, post, None, env, write),
        Contestant("incremental POST", "uvicorn, redis.asyncio", peer, post, 1.5, env),
        Contestant("incremental POST", GO, go, post, None, env),
    ]
    return [one for one in everybody if one.name != GO or binary.exists()]


def measure(
    case: list[Contestant], load: Path, rounds: int, seconds: float, folder: Path
) -> dict[str, list[dict[str, float]]]:
    """Start all servers of a case, load one after the other, stop them. Samples by name."""
    samples: dict[str, list[dict[str, float]]] = {one.name: [] for one in case}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(one, folder)) for one in case]
        for one, server in zip(case, servers, strict=True):
            run(load, server, one.request, WARM_SECONDS)
        for number in range(rounds):
            for one, server in zip(case, servers, strict=True):
                found = window(one, load, server, seconds)
                samples[one.name].append(found)
                print(f"round {number + 1} {one.case}: {one.name}", _round(found), flush=True)
    return samples


@contextlib.contextmanager
def serving(one: Contestant, folder: Path) -> Iterator[Running]:
    """A running server."""
    port = free_port()
    env = {**one.env, "SERVER_ADDR": f"127.0.0.1:{port}"}
    log = folder / f"{port}.log"
    with started(one.command(port), env, log, core=SERVER_CORE, port=port) as server:
        if one.prepare:
            one.prepare(port)
        yield server


def window(one: Contestant, load: Path, server: Running, seconds: float) -> dict[str, float]:
    """What a server does for some seconds."""
    before = cpu_seconds(server.pid)
    result = run(load, server, one.request, seconds)
    cpu = cpu_seconds(server.pid) - before
    return {
        "per_second": result["answers"] / result["seconds"],
        "per_cpu_second": result["answers"] / max(cpu, 0.01),
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
    }


def run(load: Path, server: Running, data: bytes, seconds: float) -> dict[str, Any]:
    command = [str(load), str(server.port), str(CONNECTIONS), str(seconds)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=seconds + 30)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return dict(json.loads(done.stdout))


@contextlib.contextmanager
def workplace() -> Iterator[tuple[Workplace, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), SECRETS)
        load, source = place.binary("http_load"), PEERS / "http_load/http_load.c"
        subprocess.run(["cc", "-O2", "-o", str(load), str(source)], check=True, timeout=60)
        build_go(place.binary("go_http"))
        yield place, load


def build_go(binary: Path) -> None:
    """Compile the Go peer, or say that it is left out."""
    try:
        command = ["go", "build", "-o", str(binary), "."]
        subprocess.run(command, cwd=PEERS / "go_http", check=True, timeout=BUILD_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"the Go peer did not build and is not measured: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_this_process()
    samples: dict[str, list[dict[str, float]]] = {}
    with workplace() as (place, load), redis_server(place) as redis:
        everybody = [one for one in contestants(str(redis), place) if options.only in one.case]
        for case in dict.fromkeys(one.case for one in everybody):
            chosen = [one for one in everybody if one.case == case]
            found = measure(chosen, load, options.rounds, options.seconds, place.directory)
            samples |= {f"{case}: {name}": numbers for name, numbers in found.items()}
    results = report(everybody, samples)
    print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.out:
        options.out.write_text(json.dumps({"machine": describe(), **results}, indent=2))


def _round(numbers: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in numbers.items()}


def report(
    everybody: list[Contestant], samples: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Print medians and ratios with their range; returns them with all samples."""
    lines = []
    for one in everybody:
        ours = next(first for first in everybody if first.case == one.case)
        if one is ours:
            continue
        pairs = zip(
            samples[f"{one.case}: {ours.name}"], samples[f"{one.case}: {one.name}"], strict=True
        )
        ratios = sorted(a["per_cpu_second"] / b["per_cpu_second"] for a, b in pairs)
        median = statistics.median(ratios)
        lines.append(
            {
                "figure": f"{one.case}: {ours.name} / {one.name}",
                "ratio": round(median, 2),
                "range": [round(ratios[0], 2), round(ratios[-1], 2)],
                "target": one.target,
                "met": one.target is None or median >= one.target,
            }
        )
        print(json.dumps(lines[-1]))
    return {"ratios": lines, "samples": samples}


if __name__ == "__main__":
    main()
