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
from collections.abc import Sequence
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.records.devices import BUCKETS, Claim, Claimed, Release, Sweep, Swept, bucket_of
from syncbridge.records.sessions import Answer, Request
from syncbridge_server.ports.store import Store

log = structlog.get_logger("gateway")

LIMIT = 64
"""Sessions taken from one part in one round; more are taken in the next round at once."""

CLAIM_MS = 10_000
MAX_PERIOD = 2.0
MIN_PERIOD = 0.2
PERIODS = 60
"""Rounds in one presence timeout, within the bounds above."""


class Sweeper:
    """Sweeps; `timeout` is the presence lease in seconds."""

    def __init__(self, store: Store, *, node: str, timeout: int) -> None:
        self._store = store
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
        claimed = [answer.sids for answer in answers if isinstance(answer, Claimed)]
        if not claimed:
            raise next(answer for answer in answers if isinstance(answer, StoreError))
        sids = [sid for part in claimed for sid in part]
        if sids:
            await self._sweep(sids)
        return any(len(part) == LIMIT for part in claimed)

    async def _sweep(self, sids: Sequence[str]) -> None:
        answers = await ask_all(self._store, [Sweep(sid, self._timeout_ms) for sid in sids])
        done: dict[int, list[tuple[str, int]]] = {}
        for sid, answer in zip(sids, answers, strict=True):
            if isinstance(answer, Swept):
                self.swept += answer.left
                done.setdefault(bucket_of(sid), []).append((sid, answer.due))
        await ask_all(self._store, [Release(bucket, swept) for bucket, swept in done.items()])


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
