"""Which sessions have expired: when each outbox is to be looked at for that, and who is known.

Sessions are known from the event that they were made. Those that are older than the time in which
events are written are found by a walk through all keys, once, a little at a time.
"""

from collections.abc import Sequence

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge_server.events.switch import EventSwitch
from syncbridge_server.ports.events import EventStore

log = structlog.get_logger("events")

LOOK_SECONDS = 3_600.0
"""Between two looks under a tag, at most: nodes may be given another life of a session."""

STEP_SECONDS = 0.05
"""Between two steps of the walk, each of some hundred keys."""

RETRY_SECONDS = 2.0


def summary(failed: Sequence[tuple[str, StoreError]]) -> dict[str, object]:
    """One line in the log for the outboxes of a call that failed: the first and its reason."""
    tag, error = failed[0]
    return {"outbox": tag, "more": len(failed) - 1, "reason": error.detail}


class Expiry:
    """Looks under the tags in which something is due."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._due: dict[str, float] = {}

    def begin(self) -> None:
        """All is to be looked at: who carried before has known when."""
        self._due = {}

    def due(self, now: float) -> list[str]:
        """Tags that are to be looked at."""
        return [tag for tag in self._store.tags if self._due.get(tag, 0.0) <= now]

    async def tell(self, tags: Sequence[str], now: float) -> set[str]:
        """Write what has expired under tags that are due; the tags that were looked at."""
        looked, failed = set(), list[tuple[str, StoreError]]()
        for tag, wait in zip(tags, await self._store.expire(tags), strict=True):
            if isinstance(wait, StoreError):
                failed.append((tag, wait))
                continue
            looked.add(tag)
            self._due[tag] = now + min(wait / 1000, LOOK_SECONDS)
        if failed:
            log.warning("expiry_not_told", **summary(failed))
        return looked

    async def run(self, switch: EventSwitch) -> None:
        """Have all sessions known that were there before events were written, for ever."""
        walked = ""
        while True:
            await switch.wait()
            since = switch.since
            try:
                if switch.carrying and since and walked != since and await self._walk(switch):
                    walked = since
            except StoreError as error:
                log.warning("sessions_not_walked", reason=error.detail)
            await trio.sleep(RETRY_SECONDS)

    async def _walk(self, switch: EventSwitch) -> bool:
        """Through all of them; whether they are known.

        It begins when every node writes events: a session that is made later is one of them.
        """
        since, at = switch.since, 0
        if await self._store.walked(since):
            return True
        if not (await self._store.listening()).settled:
            return False
        while at := await self._store.walk(at):
            await trio.sleep(STEP_SECONDS)
            if not switch.carrying or switch.since != since:
                return False
        await self._store.walk_done(since)
        self._due = {}
        return True
