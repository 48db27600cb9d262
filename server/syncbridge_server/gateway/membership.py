"""The lease of this node, and the detection of dead nodes.

Theory of operation. Every node changes its entry in one list, and reads the list, a dozen times per
lease. `syncbridge.nodes.Watch` tells which entries stand still. The node that finds a dead one and
gets the sweeping lease moves it to the list of the dead, takes its devices offline, with one script
per session, and removes it. If the sweeping node dies too, the next holder of that lease continues;
repeating a part is harmless.

A node that was wrongly considered dead finds its own entry missing. After it has been swept,
`on_forgotten` registers all of its sessions again; likewise when Redis has lost the list.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.nodes import Watch
from syncbridge.records.nodes import (
    SWEEPING,
    Condemn,
    Dismiss,
    KeepLease,
    ListNodes,
    NodeList,
    Renew,
    Renewed,
    TakeLease,
)
from syncbridge.slots import BUCKETS
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.gateway.sweeper import LISTS, Sweeper, ask_all
from syncbridge_server.ports.store import Store

log = structlog.get_logger("gateway")

FORMAT = 2
MAX_PERIOD = 10.0
PERIODS = 12
"""Renewals in one lease, within the bound above."""

MIN_GAP = 1.0
"""Longest pause of this process, in seconds, after which it still trusts its observations."""

RETRY_SECONDS = 1.0
LEASE_MS = 10_000
MAX_NAMED = 1_024
"""Most watched nodes that sessions name and the list does not contain; others wait."""

GOODBYE_SECONDS = 1.0


class Membership:
    """Renews the lease, watches the other nodes, and sweeps dead ones.

    Args:
        timeout: the lease in seconds. on_forgotten: see the module's text.
        in_use: whether the store may still list devices of this node: then the entry stays, to be
            swept.
        clock: Unix seconds, for display.

    Attributes:
        alive: nodes of the list when it was last read, with this one.
        dead: those that are being swept.
    """

    def __init__(
        self,
        store: Store,
        sweeper: Sweeper,
        *,
        node: str,
        timeout: int,
        on_forgotten: Callable[[], None],
        in_use: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.period = min(MAX_PERIOD, timeout / PERIODS)
        self._store = store
        self._sweeper = sweeper
        self._node = node
        self._lease_ms = min(LEASE_MS, timeout * 500)
        self._on_forgotten = on_forgotten
        self._in_use = in_use
        self._clock = clock
        self._started_ms = round(clock() * 1000)
        self._watch = Watch(timeout, max(2 * self.period, MIN_GAP))
        self._count = 0
        self._registered = False
        self._missing = False
        self._named: dict[str, None] = {}
        self._overdue: list[str] = []
        self._leased_until = 0.0
        self._work = AutoResetEvent()
        self.alive: Mapping[str, str] = {}
        self.dead: Mapping[str, str] = {}

    async def run(self) -> None:
        """Renew the lease and sweep dead nodes until cancelled; then leave the list."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep_dead)
                await self._renew_for_ever()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_SECONDS):
                await self._withdraw()

    async def _renew_for_ever(self) -> None:
        soon = min(self.period, RETRY_SECONDS)
        while True:
            pause = self.period if await self.renew() else soon
            await trio.sleep(pause)

    def broke(self) -> None:
        """The connection was interrupted: restart the observation of all nodes."""
        self._watch.broke()
        self._overdue = []

    def named(self, nodes: Iterable[str]) -> None:
        """A session names these nodes. One that is not in the list is watched too. O(n)."""
        for node in nodes:
            listed = node in self.alive or node in self.dead or node == self._node
            if not listed and len(self._named) < MAX_NAMED:
                self._named[node] = None

    async def renew(self) -> bool:
        """Renew the lease once and read the list. False: retry soon."""
        self._count += 1
        entry = f"{self._count} {FORMAT} {self._started_ms}"
        asked = trio.current_time()
        try:
            renewed, listed, dead = await ask_all(
                self._store, [Renew(self._node, entry), ListNodes(), ListNodes(dead=True)]
            )
        except StoreError as error:
            renewed = listed = dead = error
        if not (
            isinstance(renewed, Renewed)
            and isinstance(listed, NodeList)
            and isinstance(dead, NodeList)
        ):
            self.broke()
            return False
        self.alive, self.dead = listed.entries, dead.entries
        self._look(asked)
        self._missing |= renewed.new and self._registered
        self._registered = True
        if self._node in self.dead:
            self._missing = True
            return False
        if self._missing:
            self._missing = False
            log.warning("node_forgotten", node=self._node)
            self._on_forgotten()
        return True

    def _look(self, asked: float) -> None:
        """The dead nodes, of those in the list and those that sessions name."""
        for node in [n for n in self._named if n in self.alive or n in self.dead]:
            del self._named[node]
        entries = dict.fromkeys(self._named, "") | {
            node: entry for node, entry in self.alive.items() if node != self._node
        }
        self._overdue = self._watch.look(entries, asked, trio.current_time())
        if self._overdue or self.dead:
            self._work.set()

    async def _sweep_dead(self) -> None:
        """Sweep dead nodes as they are found, unless another node does, until cancelled."""
        while True:
            await self._work.wait()
            try:
                await self.sweep()
            except StoreError as error:
                log.info("sweep_paused", reason=error.detail)

    async def sweep(self) -> None:
        """Sweep the nodes that are known to be dead, unless another node does. Raises
        StoreError."""
        if not await self._leased():
            return
        now_ms = round(self._clock() * 1000)
        for node in list(self._overdue):
            if node in self._overdue:  # the connection may have been interrupted meanwhile
                await self._ask(Condemn(node, now_ms), Dismiss(node))
                self._named.pop(node, None)
                log.warning("node_dead", node=node)
                await self._sweep(node)
        for node in list(self.dead):
            await self._sweep(node)

    async def _sweep(self, node: str) -> None:
        """Sweep one node and remove it; what fails is left for the next round."""
        before, done = self._sweeper.swept, True
        for first in range(0, BUCKETS, LISTS):
            await self._leased()  # losing it is harmless: another node repeats the work
            done &= await self._sweeper.sweep_lists(node, first)
        if done:
            await self._ask(Dismiss(node, dead=True))
        log.info("node_swept", node=node, devices=self._sweeper.swept - before, whole=done)

    async def _leased(self) -> bool:
        """Whether this node holds the sweeping lease."""
        now, life = trio.current_time(), self._lease_ms / 1000
        if now < self._leased_until:
            taken = await self._store.call(KeepLease(SWEEPING, self._lease_ms))
        else:
            taken = await self._store.call(TakeLease(SWEEPING, self._node, self._lease_ms))
        self._leased_until = now + life if taken.taken else 0.0
        return bool(taken.taken)

    async def _ask(self, *requests: Condemn | Dismiss) -> None:
        for answer in await ask_all(self._store, requests):
            if isinstance(answer, StoreError):
                raise answer

    async def _withdraw(self) -> None:
        if self._in_use():
            return
        try:
            await self._ask(Dismiss(self._node))
        except StoreError:
            pass  # the other nodes find it dead
