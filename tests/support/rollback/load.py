"""Thousands of sessions on one Redis that comes back older: when each socket has the true state.

A benchmark measures it with 10,000 sessions, and a test checks with a tenth that nobody is missed.
"""

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import redis

from support.redis_servers import RedisServer, wait_until
from support.server_kit import ACCESS_SECRET, REFRESH_SECRET, server_process
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench.credentials import Device, devices, token_mint

SNAPSHOT_RESPONSE, STATE_UPDATE = 4, 5
SECONDS = 120.0
VALUES = {
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    "SYNCBRIDGE_ACCESS_LOG": "false",
    "SYNCBRIDGE_STORE_DEADLINE": "30s",
}


class Told(NamedTuple):
    """How it went.

    Attributes:
        sessions: of one device each. told: messages of type SNAPSHOT_RESPONSE that came.
        away: seconds for which Redis was away. last, median: seconds from its first answer until
            that device was told.
        reported: sessions, by the server's log.
        redis_us: CPU of Redis for each session, from its first answer on, microseconds.
    """

    sessions: int
    told: int
    away: float
    median: float
    last: float
    reported: int
    redis_us: float


def roll_back(sessions: int, directory: Path, *, silently: bool = False) -> Told:
    """Save, write everywhere, kill Redis and start it from the file; wait until all are told.

    `silently`: it is not killed, but reads the file while every connection stays.
    """
    os.environ |= {"JWT_SECRET": ACCESS_SECRET, "JWT_REFRESH_SECRET": REFRESH_SECRET}
    people = list(devices(token_mint(), sessions, 1))
    with (
        RedisServer(options=("--enable-debug-command", "yes")) as server,
        server_process(directory, server.url, **VALUES) as node,
    ):
        swarm = Swarm("127.0.0.1", node.port, sessions)
        try:
            joined = swarm.connect([one.auth_message() for one in people], seconds=SECONDS)
            assert joined.failed == 0, joined.error
            write(swarm, people, 1)
            with server.client() as raw:
                raw.save()
                saved = witnesses(raw)
                write(swarm, people, 2)
                wait_until(lambda: witnesses(raw) != saved, "the node's witness has moved on")
            crash = Crash(server, silent=silently)
            done = swarm.receive(
                sessions, SECONDS, wanted_type=SNAPSHOT_RESPONSE, trigger=crash.start
            )
            crash.thread.join(SECONDS)
            wait_until(lambda: reported(node.log) >= done.done, "the server says so")
            spent = cpu_seconds(server)
        finally:
            swarm.close(reset=True)
        back = crash.back - crash.begun
        return Told(
            sessions,
            done.done,
            back,
            done.latency.percentile(50) / 1e9 - back,
            done.latency.percentile(100) / 1e9 - back,
            reported(node.log),
            (spent - crash.spent) * 1e6 / sessions,
        )


def witnesses(raw: redis.Redis) -> list[Any]:
    """What the nodes have written there to find that Redis went back without a break."""
    return [raw.get(key) for key in sorted(raw.scan_iter("w:*"))]


def cpu_seconds(server: RedisServer) -> float:
    """What the main thread of Redis has used."""
    with server.client() as raw:
        used = raw.info("cpu")
    return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


def reported(log: Path) -> int:
    """How many sessions a server says that went back."""
    counts = re.findall(r"store_rolled_back.*?sessions=(\d+)", log.read_text())
    return sum(map(int, counts))


def write(swarm: Swarm, people: list[Device], value: int) -> None:
    """One update of each session, acknowledged."""
    message = {"type": 5, "payload": {"key": "n", "value": value, "operation": "SET"}}
    text = json.dumps(message, separators=(",", ":")).encode()

    def send() -> None:
        for index in range(len(people)):
            assert swarm.send(index, text)

    done = swarm.receive(len(people), SECONDS, wanted_type=STATE_UPDATE, trigger=send)
    assert done.done == len(people)


class Crash:
    """Redis goes back to its file, beside a swarm that goes on reading.

    `silent`: no connection breaks.
    """

    def __init__(self, server: RedisServer, *, silent: bool) -> None:
        self._server = server
        self._silent = silent
        self.begun = self.back = self.spent = 0.0
        self.thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin; returns at once."""
        self.begun = time.perf_counter()
        self.thread.start()

    def _run(self) -> None:
        if self._silent:
            with self._server.client() as raw:
                raw.execute_command("DEBUG", "RELOAD", "NOSAVE")
        else:
            self._server.kill()
            self._server.start()
        self.back = time.perf_counter()
        self.spent = cpu_seconds(self._server)
