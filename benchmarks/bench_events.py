"""What events cost: an update's latency and Redis's CPU, with events off and with one reader.

    python benchmarks/bench_events.py [updates a second] [seconds] [pairs]

Runs on a private Redis with an append-only file. A server and `syncbridge bench updates` have
processes of their own, in pairs off and on, so that other load on the machine meets both alike.
Events are turned on by a reader that follows `GET /events`, and off by removing their record. CPU
of Redis is told for each update, so that a machine that is too busy for the rate does not matter,
with the commands of Redis that there are more of with events on.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.redis_servers import RedisServer
from support.server_kit import ACCESS_SECRET, REFRESH_SECRET, bearer, mint, server_process
from syncbridge.identity import Role

LEAST = 0.01
SYNCBRIDGE = [sys.executable, "-m", "syncbridge_server"]


class Follower:
    """Reads events until it is stopped. `read`: how many; `late`: ms of each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self.read = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        headers, after = bearer(mint("back-end", Role.SERVICE)), "latest"
        with httpx.Client(base_url=self._url, headers=headers, timeout=60.0) as http:
            while not self._stopping.is_set():
                query = {"after": after, "wait": 1, "limit": 1000}
                page = http.get("/events", params=query).json()
                self.read += len(page["events"])
                after = page["cursor"]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


def load(url: str, rate: int, seconds: int, folder: Path) -> dict[str, float]:
    """One run of updates; its figures."""
    out = folder / "figures.json"
    environment = os.environ | {"JWT_SECRET": ACCESS_SECRET, "JWT_REFRESH_SECRET": REFRESH_SECRET}
    ws = url.replace("http", "ws") + "/ws"
    command = [*SYNCBRIDGE, "bench", "updates", "--url", ws, "--rate", str(rate)]
    command += ["--duration", str(seconds), "--json", str(out)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    scenarios = json.loads(out.read_text())["scenarios"]
    found: dict[str, float] = next(one for one in scenarios if one["scenario"] == "updates")
    return found


def main() -> None:
    """Measure and print a table."""
    rate, seconds, pairs = (int(t) for t in (*sys.argv[1:], "2000", "10", "3")[:3])
    rows: dict[str, list[tuple[float, dict[str, int]]]] = {"off": [], "on": []}
    read = 0
    with (
        tempfile.TemporaryDirectory() as name,
        RedisServer(aof=True) as redis,
        redis.client() as client,
        server_process(Path(name), redis.url, SYNCBRIDGE_RATE_LIMIT_ENABLED="false") as server,
    ):
        for turn in range(2 * pairs):
            kind = ("off", "on")[turn % 2]
            client.delete("ev:{events}:state", "ev:{events}:known")
            client.spublish("n2:{ru}*0", b"N2 - 6\nevents")
            time.sleep(12)
            follower = Follower(server.url) if kind == "on" else None
            time.sleep(2)
            client.config_resetstat()
            cpu, sent = used_cpu(client), updates(client)
            figures = load(server.url, rate, seconds, Path(name))
            sent = updates(client) - sent
            spent = (used_cpu(client) - cpu) / sent * 1_000_000
            calls = {name: found["calls"] for name, found in client.info("commandstats").items()}
            if follower is not None:
                follower.stop()
                read += follower.read
            rows[kind].append((spent, {name: count / sent for name, count in calls.items()}))
            print(kind, round(spent, 2), sent, json.dumps(figures), flush=True)
    off, on = (statistics.median(spent for spent, _ in rows[kind]) for kind in ("off", "on"))
    print(f"Redis CPU us an update: off {off:.1f}, on {on:.1f}: {on / off - 1:+.1%}")
    for name, count in sorted(rows["on"][-1][1].items()):
        before = rows["off"][-1][1].get(name, 0.0)
        if count - before > LEAST:
            print(f"{name}: {before:.3f} -> {count:.3f} an update")
    print("events read:", read)


def updates(client: object) -> int:
    """Updates so far: each appends to a journal, which nothing else does."""
    stats = client.info("commandstats")  # type: ignore[attr-defined]
    return int(stats.get("cmdstat_rpush", {"calls": 0})["calls"])


def used_cpu(client: object) -> float:
    """CPU seconds of Redis."""
    info = client.info("cpu")  # type: ignore[attr-defined]
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


if __name__ == "__main__":
    main()
