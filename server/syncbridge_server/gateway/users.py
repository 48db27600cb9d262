"""The sessions of each user: an index beside the sessions, written rarely, from which usage is
counted.

In a cluster it is in another slot than the sessions, so no script can write both. A node writes it
when a device joins, on writes, and when it renews a session with connected devices, at most once a
minute for each session. So its order is accurate to a minute. Readers look at each session, and
drop those that no longer exist.

Users near their budgets are counted from it in the background (`rates.budgets`).
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.records.devices import ListSessions, Peek, Peeked, Remember
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.gateway.quota import UserQuota
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.sweeper import ask_all
from syncbridge_server.ports.store import Store

log = structlog.get_logger("gateway")

PERIOD = 60.0
MAX_REMEMBERED = 65_536
COUNTED_AT_ONCE = 64
PAGE = 256
SETTLED_SECONDS = 1.0
"""Seconds after which a charge is certainly in the index."""


class UserIndex:
    """Writes the index, and counts usage from it. `clock`: Unix seconds."""

    def __init__(
        self, store: Store, store_queue: StoreQueue, quota: UserQuota, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._store_queue = store_queue
        self._budgets = quota.budgets
        self._clock = clock
        self._written: dict[tuple[str, str], float] = {}
        self._due = AutoResetEvent()
        quota.on_due = self._wake

    def seen(self, user_id: str, session_id: str) -> None:
        """Note activity of a user in a session. O(1)."""
        key, now = (user_id, session_id), self._clock()
        if not user_id or now - self._written.get(key, -PERIOD) < PERIOD:
            return
        self._written.pop(key, None)
        self._written[key] = now
        if len(self._written) > MAX_REMEMBERED:
            del self._written[next(iter(self._written))]
        self._store_queue.ask(Remember(user_id, session_id), self._remembered, key)

    def _remembered(self, answer: Any, key: tuple[str, str]) -> None:
        if isinstance(answer, StoreError):
            self._written.pop(key, None)

    def _wake(self) -> None:
        self._due.set()

    async def run(self) -> None:
        """Count the users that are due, until cancelled."""
        while True:
            await self._due.wait()
            while self._budgets.due:
                await self._count_some()

    async def _count_some(self) -> None:
        due = self._budgets.due
        users = list(islice(due, COUNTED_AT_ONCE))
        for user_id in users:
            del due[user_id]
            self._budgets.begin(user_id)
        await trio.sleep(SETTLED_SECONDS)
        for user_id in users:
            try:
                await self._count(user_id)
            except StoreError as error:
                log.info("user_count_failed", reason=error.detail)

    async def _count(self, user_id: str) -> None:
        """Count what a user has in the store. Raises StoreError."""
        sizes: dict[str, int] = {}
        after = None
        while True:
            listed = await self._store.call(ListSessions(user_id, PAGE, after))
            asked = [sid for sid, _ in listed.sessions]
            answers = await ask_all(self._store, [Peek(sid) for sid in asked]) if asked else []
            for sid, peeked in zip(asked, answers, strict=True):
                if not isinstance(peeked, Peeked) or is_of(peeked, user_id):
                    sizes[sid] = peeked.size if isinstance(peeked, Peeked) else 0
            if not listed.more:
                break
            sid, activity = listed.sessions[-1]
            after = activity, sid
        self._budgets.counted(user_id, sizes, sum(sizes.values()))


def is_of(peeked: Peeked, user_id: str) -> bool:
    """Whether a session exists and belongs to this user."""
    return peeked.owner == user_id and (peeked.exists or bool(peeked.online))
