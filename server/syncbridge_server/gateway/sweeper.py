"""Takes the devices of dead nodes offline. `membership` says which nodes are dead.

Each bucket has a list of the node's sessions. One script per session tells every node of the
session and removes the session from the list, so each departure is announced once, whichever node
sweeps, dies meanwhile, or starts again. Only a few scripts run at a time, so that clients do not
wait behind all of them.

A session that cannot be swept is retried in the next round. After enough failures it is set aside,
which removes it from the list.
"""

from collections.abc import Sequence
from typing import Any

import trio

from syncbridge.errors import StoreError
from syncbridge.records.nodes import Held, ListHeld, Release, Sweep, Swept
from syncbridge.records.sessions import Answer, Request
from syncbridge_server.isolation import Isolation, of_record
from syncbridge_server.ports.store import Store

CHORE = "presence"
LISTS = 64
"""Lists that are read together."""

AT_ONCE = 64
"""Sessions that are swept together."""


class Sweeper:
    """Sweeps dead nodes. `timeout`: lease of a node in seconds. `swept`: number of devices taken
    offline."""

    def __init__(self, store: Store, *, timeout: int, isolation: Isolation | None = None) -> None:
        self._store = store
        self._isolation = isolation or Isolation()
        self._timeout_ms = timeout * 1000
        self.swept = 0

    async def sweep_lists(self, node: str, first: int) -> bool:
        """Take the devices of a dead node offline that are in `LISTS` buckets from `first` on.

        Returns False when a session has failed. Raises StoreError: the rest is still to be done.
        """
        done = True
        asked = [ListHeld(bucket, node) for bucket in range(first, first + LISTS)]
        while asked:
            sids, asked = await self.read(asked)
            for start in range(0, len(sids), AT_ONCE):
                done &= await self.sweep_sessions(node, sids[start : start + AT_ONCE])
        return done

    async def read(self, asked: Sequence[ListHeld]) -> tuple[list[str], list[ListHeld]]:
        """The sessions of a page of each list, and the pages that follow."""
        sids: list[str] = []
        more: list[ListHeld] = []
        for question, answer in zip(asked, await ask_all(self._store, asked), strict=True):
            if isinstance(answer, Held):
                sids += answer.sids
                if answer.cursor:
                    more.append(ListHeld(question.bucket, question.node, answer.cursor))
            elif isinstance(answer, StoreError) and not of_record(answer):
                raise answer
        return sids, more

    async def sweep_sessions(self, node: str, sids: Sequence[str]) -> bool:
        """Take a node's devices in some sessions offline; False when one of them has failed."""
        left = [sid for sid in sids if self._isolation.ready(CHORE, sid)]
        done = len(left) == len(sids)
        while left:
            sweeps = [Sweep(sid, node, self._timeout_ms) for sid in left]
            answers = await ask_all(self._store, sweeps)
            more = []
            for sid, answer in zip(left, answers, strict=True):
                if isinstance(answer, Swept):
                    self.swept += answer.left
                    self._isolation.worked(CHORE, sid)
                    more += [sid] if answer.more else []
                elif isinstance(answer, StoreError):
                    done &= await self._failed(node, sid, answer)
            left = more
        return done

    async def _failed(self, node: str, sid: str, error: StoreError) -> bool:
        """Count a failed sweep; True when the session was set aside."""
        if await self._isolation.failed(CHORE, sid, error) is not None:
            return False
        await self._store.call(Release(sid, node))
        return True


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
