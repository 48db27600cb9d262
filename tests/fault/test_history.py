"""Sixteen devices write to one session while everything around them breaks; then the history is
held to what the service promises. See tests/history/checker.py for the rules.

`SYNCBRIDGE_HISTORY_OPERATIONS` and `SYNCBRIDGE_HISTORY_SEED` make the run larger or another one.
"""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import trio

from history import naive
from history.checker import check
from history.client import Client
from history.faults import Deployment
from history.recorder import Recorder
from history.records import History
from history.workload import KINDS, Workload
from redis_servers import RedisServer
from server_kit import bearer, mint, new_session

CLIENTS = 16
OPERATIONS = int(os.environ.get("SYNCBRIDGE_HISTORY_OPERATIONS", "10000"))
SEED = int(os.environ.get("SYNCBRIDGE_HISTORY_SEED", "1"))
LIMIT = 90 + OPERATIONS / 200
"""Seconds after which something hangs."""

VARIABLES = {
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    # A device that waits for a node that hangs repeats its write thousands of writes later.
    "SYNCBRIDGE_IDEMPOTENCY_IDS": "1000000",
}

Fault = Callable[[Deployment], Awaitable[None]]
SCHEDULE: list[tuple[float, Fault]] = [
    (0.06, lambda d: d.cut_clients(4)),
    (0.10, lambda d: d.flush_scripts()),
    (0.14, lambda d: d.cut_redis(1)),
    (0.20, lambda d: d.kill_node(1)),
    (0.28, lambda d: d.restart_redis(kill=True)),
    (0.34, lambda d: d.cut_clients(6)),
    (0.38, lambda d: d.pause_redis(0.5)),
    (0.44, lambda d: d.cut_redis(2)),
    (0.50, lambda d: d.pause_node(0, 1.0)),
    (0.56, lambda d: d.flush_scripts()),
    (0.60, lambda d: d.kill_node(0)),
    (0.68, lambda d: d.restart_redis(kill=False)),
    (0.74, lambda d: d.pause_redis(2.5)),
    (0.80, lambda d: d.cut_clients(8)),
    (0.84, lambda d: d.cut_redis(3)),
    (0.88, lambda d: d.pause_node(1, 4.0)),
    (0.92, lambda d: d.flush_scripts()),
]
"""When, as a part of all writes, and what. The long pauses are longer than everybody's patience."""


class Run:
    """One session from its first write to the last device that has converged."""

    def __init__(self, deployment: Deployment, operations: int, seed: int) -> None:
        self.deployment = deployment
        self.session = new_session()
        self.recorder = Recorder()
        self.workload = Workload(operations)
        self.clients = [self._client(number, seed * 1000 + number) for number in range(CLIENTS)]
        self._writing = CLIENTS
        self._over = trio.Event()

    @property
    def history(self) -> History:
        return self.recorder.history

    def _client(self, number: int, seed: int) -> Client:
        dice = random.Random(seed)
        return Client(
            f"d{number}",
            self.session,
            self.recorder,
            lambda: self.deployment.port(dice.randrange(6)),
            self.workload.next,
            dice,
        )

    async def run(self) -> None:
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                for client in self.clients:
                    nursery.start_soon(client.run, self._finish)
                await self._break_things()

    async def _break_things(self) -> None:
        """One fault after another; writes go on meanwhile, but not past the next one."""
        parts = [part for part, _ in SCHEDULE]
        for (part, fault), following in zip(SCHEDULE, [*parts[1:], 1.0], strict=True):
            self.workload.raise_ceiling(following)
            await self.workload.reached(part)
            await fault(self.deployment)

    async def _finish(self) -> int:
        """The last version, when everybody's writes are settled, and the state as Redis has it."""
        self._writing -= 1
        if not self._writing:
            async with httpx.AsyncClient(timeout=10.0) as http:
                url = f"http://127.0.0.1:{self.deployment.port(1)}/session/{self.session}"
                answer = await http.get(url, headers=bearer(mint("ann")))
            body = answer.raise_for_status().json()
            self.history.final, self.history.final_version = body["state_data"], body["version"]
            self._over.set()
        await self._over.wait()
        return self.history.final_version

    def figures(self) -> dict[str, int]:
        """What happened; all of them must have, or the run has shown nothing."""
        calls, proxies = self.history.calls, (self.deployment.back, *self.deployment.front)
        answers = [answer for call in calls for answer in call.answers]
        return {
            "writes": len(calls),
            "versions": self.history.final_version,
            "sent again": sum(call.attempts - 1 for call in calls),
            "answered twice": sum(len(call.answers) > 1 for call in calls),
            "told only later": sum(not (a.committed or a.code) for a in answers),
            "conflicts": sum(answer.code == "version_conflict" for answer in answers),
            "preconditions": sum(answer.code == "precondition_failed" for answer in answers),
            "reconnects": sum(client.reconnects - 1 for client in self.clients),
            "answers cut off": sum(proxy.cuts for proxy in proxies),
            "steps seen": sum(len(stream.steps) for stream in self.history.streams),
        }


@pytest.mark.slow
async def test_history_under_faults(redis_server: RedisServer, tmp_path: Path) -> None:
    """No rule is broken, nobody's write is left unknown, and everything that can happen did."""
    async with Deployment.open(redis_server, tmp_path, **VARIABLES) as deployment:
        run = Run(deployment, OPERATIONS, SEED)
        await run.run()
    print(run.figures())

    assert {} == check(run.history)
    assert OPERATIONS == len(run.history.calls)
    assert set(KINDS) == set(run.workload.counts)
    assert len(SCHEDULE) == len(deployment.done)
    assert 0 not in run.figures().values()


def test_control_without_the_service_is_found_out(redis_server: RedisServer) -> None:
    """Devices that read, change and write back lose what others wrote, and the checker says so."""
    found = check(naive.race(redis_server, 6, 100, SEED))

    assert {"versions", "lost"} <= set(found)
    assert any("belongs to" in text for text in found["versions"])
    assert any("is 0 times in list" in text for text in found["lost"])
