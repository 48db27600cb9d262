"""Takes devices offline whose node has died: their leases run out and nobody renews them.

Theory of operation. An index in 64 parts names the sessions in which a lease may be over. Every
node asks for what is due in each part once a period; a lease on the part lets one node at a time
have it, so that the others' questions cost next to nothing. In two phases, because the index and
the sessions are in different slots of a cluster:

1. `Claim` moves due sessions out of the index. A device that joins from now on enters its session
   anew, so nothing is lost between the phases; a claim that is not released in time, because its
   sweeper has died as well, is given to the next one.
2. `Sweep`, one script a session, compares each lease again, takes the dead devices offline and
   tells every node in the session. `Release` enters the session again for its next lease.

So each departure is told exactly once, whoever sweeps and whoever dies, within the timeout and
about two periods. Nothing here keeps state between rounds. A round costs 64 short scripts in one
pipeline, plus one for each session that is due.
"""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.records.devices import BUCKETS, Claim, Claimed, Release, Sweep, Swept
from syncbridge.records.sessions import Answer, Request
from syncbridge_server.isolation import Isolation, of_record
from syncbridge_server.ports.store import Store

log = structlog.get_logger("gateway")

CHORE = "presence"
LIMIT = 64
"""Sessions taken from one part in one round; more are taken in the next round at once."""

CLAIM_MS = 10_000
MAX_PERIOD = 2.0
MIN_PERIOD = 0.2
PERIODS = 60
"""Rounds in one presence timeout, within the bounds above."""


class Sweeper:
    """Sweeps; `timeout` is the presence lease in seconds."""

    def __init__(
        self, store: Store, *, node: str, timeout: int, isolation: Isolation | None = None
    ) -> None:
        self._store = store
        self._isolation = isolation or Isolation()
        self._node = node
        self._timeout_ms = timeout * 1000
        self.period = min(MAX_PERIOD, max(MIN_PERIOD, timeout / PERIODS))
        self.swept = 0

    async def run(self) -> None:
        """Sweep once a period, for ever."""
        while True:
            await trio.sleep(self.period * random.uniform(0.9, 1.1))  # noqa: S311
            try:
                while await self.sweep():
                    await trio.lowlevel.checkpoint()
            except StoreError as error:
                log.debug("Sweep Failed", detail=error.detail)

    async def sweep(self) -> bool:
        """One round; whether there may be more. Raises StoreError when nothing could be asked."""
        lease_ms = int(self.period * 1000)
        claims = [Claim(bucket, self._node, lease_ms, CLAIM_MS, LIMIT) for bucket in range(BUCKETS)]
        answers = await ask_all(self._store, claims)
        claimed = {
            bucket: answer.sids
            for bucket, answer in enumerate(answers)
            if isinstance(answer, Claimed)
        }
        if not claimed:
            raise next(answer for answer in answers if isinstance(answer, StoreError))
        if any(claimed.values()):
            await self._sweep(claimed)
        return any(len(part) == LIMIT for part in claimed.values())

    async def _sweep(self, claimed: Mapping[int, Sequence[str]]) -> None:
        """Sweep sessions, by the part in which they were found, and let go of them."""
        found = [(bucket, sid) for bucket, sids in claimed.items() for sid in sids]
        sweeps = [Sweep(sid, self._timeout_ms) for _, sid in found]
        done: dict[int, list[tuple[str, int]]] = {}
        for (bucket, sid), answer in zip(found, await ask_all(self._store, sweeps), strict=True):
            due = await self._due(sid, answer)
            if due is not None:
                done.setdefault(bucket, []).append((sid, due))
        await ask_all(self._store, [Release(bucket, swept) for bucket, swept in done.items()])

    async def _due(self, sid: str, answer: Answer | StoreError) -> int | None:
        """When a session is looked at again; 0: not by itself, None: when its claim runs out."""
        if isinstance(answer, Swept):
            self.swept += answer.left
            self._isolation.worked(CHORE, sid)
            return answer.due
        if not isinstance(answer, StoreError) or not of_record(answer):
            return None
        pause = await self._isolation.failed(CHORE, sid, answer)
        return 0 if pause is None else round((time.time() + pause) * 1000)


async def ask_all(store: Store, requests: Sequence[Request]) -> Sequence[Answer | StoreError]:
    """Requests as one pipeline; one answer each. Raises StoreOverloaded."""
    done = trio.Event()
    found: list[Any] = []

    def deliver(answers: Sequence[Answer | StoreError]) -> None:
        found.extend(answers)
        done.set()

    store.submit(requests, deliver)
    await done.wait()
    return found
