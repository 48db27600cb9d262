"""Compares the sessions here with the store: all of them periodically, and at once after a break.

Presence is leased by node (`membership`), so nothing need be renewed for a session. But a message
between nodes may have been lost, so each session is compared within `COMPARE_SECONDS`, by one plain
command, a few each second. The answer has its place in its history, and how many devices are online
under which newest fence. A session in which the store says something else than its devices were
told is *unsure*: it is entered again by a script (`touch`), which names devices that the store does
not have here any more, and its devices are read. A session that nobody has touched for long is
touched as well: that keeps it and its devices from expiring.

After a break of a connection to Redis everything may have changed: messages were lost, and perhaps
what Redis had. Then all sessions are compared in chunks, so that writes of clients are not behind
all of them; then those that are unsure are settled; then the lists in which the store has this
node's sessions are read, for devices that have left and that the store has online again. Where
sessions went back, this is done a few times more: a backup may be put back key by key.

`BOUND` is what such a round may have under way, together with those that say hello again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.records.devices import ListDevices
from syncbridge.records.nodes import ListHeld
from syncbridge.records.sessions import Compare, Compared, Lost, Place, Request, Touch, Touched
from syncbridge.slots import BUCKETS
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.gateway.connection import Connection, LocalSession
from syncbridge_server.gateway.departures import Departures
from syncbridge_server.gateway.fanout import Fanout, numbering
from syncbridge_server.gateway.joining import Joining
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.rollbacks import ComparisonSchedule
from syncbridge_server.gateway.store_queue import Reply, StoreQueue
from syncbridge_server.gateway.sweeper import AT_ONCE, LISTS, Sweeper
from syncbridge_server.gateway.users import UserIndex
from syncbridge_server.isolation import of_record

log = structlog.get_logger("gateway")

CHUNK = 256
"""Requests that are sent together."""

BOUND = 2 * CHUNK
"""Most requests of this file without an answer."""

COMPARE_SECONDS = 300.0
TICK_SECONDS = 1.0
TOUCH_SECONDS = 43_200.0
WAITING_TOUCH_SECONDS = 1_200.0
"""Seconds between two renewals of a session's life; the second value is for sessions without a
write."""

RETRY_SECONDS = 1.0


class Presence:
    """Compares sessions, and registers them again.

    Args:
        timeout: the lease of a node in seconds; sessions are compared in not much more.
        ttl: life of a session in seconds.
        named: told the nodes that sessions name.

    Attributes:
        verifying: a comparison after a break is under way.
        open: requests that have no answer, at most `BOUND`.
    """

    def __init__(
        self,
        registry: Registry,
        store_queue: StoreQueue,
        fanout: Fanout,
        joining: Joining,
        departures: Departures,
        users: UserIndex,
        sweeper: Sweeper,
        *,
        node: str,
        timeout: int,
        ttl: int,
        named: Callable[[Iterable[str]], None],
    ) -> None:
        self._registry = registry
        self._store_queue = store_queue
        self._fanout = fanout
        self._joining = joining
        self._departures = departures
        self._users = users
        self._sweeper = sweeper
        self._node = node
        self._named = named
        self._turn = min(COMPARE_SECONDS, 2.5 * timeout) / 2
        self._touch_after = min(TOUCH_SECONDS, ttl / 4)
        self._doubted = AutoResetEvent()
        self._doubts_all = self._forgotten = False
        self._answered = trio.Event()
        self._failed = False
        self._again = ComparisonSchedule()
        self._lost: dict[int, Connection] = {}
        self.open = 0
        self.verifying = False

    async def run(self) -> None:
        """Compare all sessions in rounds, evenly over half of `COMPARE_SECONDS`.

        Sessions that join during a round are compared in the next one.
        """
        turn = deque[LocalSession]()
        owed = 0.0
        while True:
            await trio.sleep(TICK_SECONDS)
            owed += len(self._registry.sessions) * TICK_SECONDS / self._turn
            if self.verifying:
                owed = 0.0
            while owed >= 1.0:
                turn = turn or deque(self._registry.sessions.values())
                part = [turn.popleft() for _ in range(min(int(owed), CHUNK, len(turn)))]
                owed = owed - len(part) if part else 0.0
                await self._room(len(part))
                self._compare(part)
            if self._unsure and not self.verifying:
                await self._settle_some()
            if self._departures.stale_devices:
                self._doubted.set()
            if self._again.due(self._fanout.rollbacks.sessions, trio.current_time()):
                self.doubt()

    # After a break

    def doubt(self) -> None:
        """Messages or data may have been lost: compare all sessions, soon."""
        self._doubts_all = True
        self._doubted.set()

    def forgotten(self) -> None:
        """The store no longer lists this node in any session: register all of them again, soon."""
        self._forgotten = True
        self.doubt()

    async def verify(self) -> None:
        """Compare all sessions whenever there is doubt, until cancelled.

        First where they are, by one plain command each, so that devices are told soon; then what
        is unsure is settled. What is doubted meanwhile, or could not be asked, is done in another
        round.
        """
        while True:
            await self._doubted.wait()
            self.verifying, self._failed = True, False
            everything, self._doubts_all = self._doubts_all, False
            forgotten, self._forgotten = self._forgotten, False
            stale_devices, self._departures.stale_devices = self._departures.stale_devices, False
            if everything:
                await self._compare_all()
            if forgotten:
                self._unsure.update(self._registry.sessions)
            while self._unsure and not self._failed:
                await self._settle_some()
                await self._room(BOUND)
            whole = not self._failed and not self._unsure
            if whole and (everything or stale_devices):
                whole = await self._remove_stale_devices()
            self.verifying = self._failed = False
            if not whole:
                self._doubts_all |= everything
                self._forgotten |= forgotten
                self._departures.stale_devices |= stale_devices
                self._doubted.set()
                await trio.sleep(RETRY_SECONDS)

    async def _compare_all(self) -> None:
        for chunk in chunks(self._registry.sessions.values()):
            await self._room(CHUNK)
            self._compare(chunk)
        await self._room(BOUND)

    async def _remove_stale_devices(self) -> bool:
        """Take devices offline that the store lists at this node in sessions that are not here.

        They have left, and Redis has lost that, or was never told. Returns False when a list could
        not be read.
        """
        try:
            for first in range(0, BUCKETS, LISTS):
                asked = [ListHeld(bucket, self._node) for bucket in range(first, first + LISTS)]
                while asked:
                    sids, asked = await self._sweeper.read(asked)
                    for start in range(0, len(sids), AT_ONCE):
                        part = sids[start : start + AT_ONCE]
                        gone = [sid for sid in part if sid not in self._registry.sessions]
                        if gone:
                            await self._sweeper.sweep_sessions(self._node, gone)
        except StoreError as error:
            log.debug("held_lists_not_read", detail=error.detail)
            return False
        return True

    # Requests, and what they find

    @property
    def _unsure(self) -> set[str]:
        return self._departures.unsure

    async def _room(self, wanted: int) -> None:
        """Wait until `wanted` more requests fit below the bound."""
        while self.open + min(wanted, BOUND) > BOUND:
            await self._answered.wait()

    def _ask(self, request: Request, reply: Reply, *context: Any) -> None:
        self.open += 1
        self._store_queue.ask(request, self._counted, reply, context)

    def _counted(self, answer: Any, reply: Reply, context: tuple[Any, ...]) -> None:
        self._failed |= isinstance(answer, StoreError) and not of_record(answer)
        self._done()
        reply(answer, *context)
        self._rejoin()

    def _done(self) -> None:
        self.open -= 1
        self._answered.set()
        self._answered = trio.Event()

    def _rejoined(self) -> None:
        self._done()
        self._rejoin()

    def _compare(self, sessions: Iterable[LocalSession]) -> None:
        for session in sessions:
            if session.joined and self._registry.sessions.get(session.id) is session:
                devices = numbering(session)
                self._ask(Compare(session.id, devices), self._compared, session, devices)
        self._store_queue.dispatch()

    def _compared(
        self, answer: Compared | StoreError, session: LocalSession, devices: list[str]
    ) -> None:
        if not isinstance(answer, Compared):
            return
        self._fanout.compared(session, devices, answer)
        if not session.devices:
            return
        nodes = answer.nodes.split()
        self._named(nodes)
        now = trio.current_time()
        session.touched = session.touched or now
        after = self._touch_after if session.version else WAITING_TOUCH_SECONDS
        agrees = self._node in nodes and self._departures.agrees(session, answer)
        if now - session.touched >= after or not agrees:
            self._unsure.add(session.id)

    async def _settle_some(self) -> None:
        """Register some of the unsure sessions again, and read their devices."""
        await self._room(CHUNK)
        for session_id in list(islice(self._unsure, CHUNK // 2)):
            self._unsure.discard(session_id)
            session = self._registry.sessions.get(session_id)
            if session is not None and session.devices:
                pairs = [(name, each.id) for name, each in session.devices.items()]
                self._ask(Touch(session.id, self._node, pairs), self._touched, session)
                self._ask(ListDevices(session.id), self._departures.listed, session)
                self._users.seen(session.owner, session.id)
        self._store_queue.dispatch()

    def _touched(self, answer: Touched | StoreError, session: LocalSession) -> None:
        if not isinstance(answer, Touched):
            log.debug("touch_failed", detail=answer.detail)
            return
        session.touched = trio.current_time()
        self._fanout.compare(session, Place(answer.epoch, answer.version, answer.lineage))
        for lost in answer.lost:
            self._settle(session, lost)

    def _settle(self, session: LocalSession, lost: Lost) -> None:
        """Settle a device that is connected here, and that the store lists elsewhere or nowhere."""
        connection = session.devices.get(lost.device_id)
        if connection is None or connection.released:
            return
        if lost.node or lost.barred > connection.fence:
            # The message that explains it was lost; the list of devices is on its way.
            connection.released = not lost.node
        else:
            self._lost[connection.cid] = connection

    def _rejoin(self) -> None:
        """Register lost connections again, within the bound."""
        while self._lost and self.open < BOUND:
            _, connection = self._lost.popitem()
            if self._joining.rejoin(connection, self._rejoined):
                self.open += 1


def chunks(sessions: Iterable[LocalSession]) -> Iterator[list[LocalSession]]:
    """A snapshot of the sessions, in chunks."""
    listed = list(sessions)
    for start in range(0, len(listed), CHUNK):
        yield listed[start : start + CHUNK]
