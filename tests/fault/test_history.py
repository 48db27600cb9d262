"""Sixteen devices write to one session while everything around them breaks; then the history is
held to what the service promises. See tests/support/history/checker.py for the rules.

`SYNCBRIDGE_HISTORY_OPERATIONS` and `SYNCBRIDGE_HISTORY_SEED` make the run larger or another one.
"""

import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from support.history import naive
from support.history.checker import check
from support.history.client import Client
from support.history.faults import Deployment
from support.history.lost import forget_lost
from support.history.places import place
from support.history.recorder import Recorder
from support.history.records import History
from support.history.workload import KINDS, Workload
from support.redis_places import anywhere, client_of
from support.server_kit import bearer, mint, new_session

CLIENTS = 16
OPERATIONS = int(os.environ.get("SYNCBRIDGE_HISTORY_OPERATIONS", "10000"))
SEED = int(os.environ.get("SYNCBRIDGE_HISTORY_SEED", "1"))
PARTS = {"single": 1, "sentinel": 10, "cluster": 10}
"""Of how many writes one is made in each place, unless all are asked for."""
if "SYNCBRIDGE_HISTORY_OPERATIONS" in os.environ:
    PARTS = dict.fromkeys(PARTS, 1)

VARIABLES = {
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
}

Fault = Callable[[Deployment], Awaitable[None]]
SCHEDULE: list[tuple[float, Fault]] = [
    (0.06, lambda d: d.cut_clients(4)),
    (0.10, lambda d: d.flush_scripts()),
    (0.14, lambda d: d.cut_redis(1)),
    (0.20, lambda d: d.kill_node(1)),
    (0.28, lambda d: d.kill_redis()),
    (0.34, lambda d: d.cut_clients(6)),
    (0.38, lambda d: d.pause_redis(0.5)),
    (0.44, lambda d: d.cut_redis(2)),
    (0.50, lambda d: d.pause_node(0, 1.0)),
    (0.56, lambda d: d.flush_scripts()),
    (0.60, lambda d: d.kill_node(0)),
    (0.68, lambda d: d.move_redis()),
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
        self.session = deployment.place.session = new_session()
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
        """Bounded: what takes longer hangs."""
        with trio.fail_after(300 + self.workload.operations / 50):
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

    async def _finish(self) -> tuple[int, str]:
        """The last place, when everybody's writes are settled, and the state as Redis has it."""
        self._writing -= 1
        if not self._writing:
            async with httpx.AsyncClient(timeout=10.0) as http:
                url = f"http://127.0.0.1:{self.deployment.port(1)}/session/{self.session}"
                answer = await http.get(url, headers=bearer(mint("ann")))
                while answer.status_code == 503:  # as any caller; `run` bounds it
                    print("the last read:", answer.text)
                    await trio.sleep(float(answer.headers["retry-after"]))
                    answer = await http.get(url, headers=bearer(mint("ann")))
            body = answer.raise_for_status().json()
            self.history.final, self.history.final_version = body["state_data"], body["version"]
            self.history.final_lineage = body["lineage"]
            self._over.set()
        await self._over.wait()
        return self.history.final_version, self.history.final_lineage

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
@pytest.mark.parametrize("kind", PARTS)
async def test_history_under_faults(kind: str, tmp_path: Path) -> None:
    """No rule is broken, nobody's write is left unknown, and everything that can happen did."""
    operations = OPERATIONS // PARTS[kind]
    with place(kind) as where:
        async with Deployment.open(where, tmp_path, **VARIABLES) as deployment:
            run = Run(deployment, operations, SEED)
            await run.run()
    lost = forget_lost(run.history)
    print(kind, run.figures(), {"shown and lost": lost})

    assert not lost or kind != "single", "its Redis loses nothing"
    assert {} == check(run.history)
    assert operations == len(run.history.calls)
    assert set(KINDS) == set(run.workload.counts)
    assert len(SCHEDULE) == len(deployment.done)
    assert 0 not in run.figures().values()


@pytest.mark.parametrize("kind", PARTS)
def test_control_without_the_service_is_found_out(kind: str) -> None:
    """Devices that read, change and write back lose what others wrote, and the checker says so."""
    with anywhere(kind) as where:
        found = check(naive.race(partial(client_of, where.url), 6, 100, SEED))

    assert {"versions", "lost"} <= set(found)
    assert any("belongs to" in text for text in found["versions"])
    assert any("is 0 times in list" in text for text in found["lost"])
