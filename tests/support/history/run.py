"""One session from its first write to the last device that has converged, while faults happen."""

import random
from collections.abc import Awaitable, Callable, Sequence

import httpx
import trio

from support.history.client import Client
from support.history.faults import Deployment
from support.history.recorder import Recorder
from support.history.records import History
from support.history.workload import Workload
from support.server_kit import bearer, mint, new_session

CLIENTS = 16

Fault = Callable[[Deployment], Awaitable[None]]
Schedule = Sequence[tuple[float, Fault]]
"""When, as a part of all writes, and what."""


class Run:
    """Sixteen devices write to one session, and what the schedule says happens to it."""

    def __init__(
        self, deployment: Deployment, operations: int, seed: int, schedule: Schedule
    ) -> None:
        self.deployment = deployment
        self._schedule = schedule
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
        parts = [part for part, _ in self._schedule]
        for (part, fault), following in zip(self._schedule, [*parts[1:], 1.0], strict=True):
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
