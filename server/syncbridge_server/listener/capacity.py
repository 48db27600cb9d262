"""Bounds on what is open at once, in which the oldest that waits for its client gives way.

Theory of operation. Places are taken by an `Occupant`: a connection together with the request that
it works on, or one request of an HTTP/2 connection. While it can do nothing but wait for bytes of
its client, it stands in the queue of each of its capacities, oldest first. A newcomer that finds a
capacity full takes the place of the first one in that queue, which is cancelled; when nobody waits,
all are being worked on, and the newcomer is refused. So whoever is silent or slow keeps nobody out,
and no request that has arrived is dropped. Each step costs O(1).

A place in the queue is kept over bytes that merely drip in: an occupant moves to the end when it
begins to wait for something else, or while its body comes at the rate that is asked for.

An occupant whose client does not take its answer stands in a second queue, from which it moves to
the end with every byte that is taken. From there it gives way when nobody waits in the first one
and nothing was taken for STALL_SECONDS.

Above the bound of connections there is a small reserve, in which a connection is read up to one
request head and served only when that asks for a probe (health, metrics). It has RESERVE_SECONDS
for all of it. In the reserve the oldest that wait give way too, so that neither silent connections
nor many probes keep a probe out.
"""

import logging
from collections import OrderedDict

import trio

from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.log import Occasionally

RESERVE_SECONDS = 5.0
"""What a connection in the reserve has for TLS, one request head and the answer."""
STALL_SECONDS = 1.0
"""A client that takes nothing of its answer for so long may have to give way."""
LOG_SECONDS = 10.0
"""Between two log lines about the same bound."""

logger = logging.getLogger("syncbridge.listener")


class Capacity:
    """So many places. Use it through an `Occupant`.

    Args:
        name: what is counted, for logs and metrics.

    Attributes:
        held: places taken. evicted, refused: occupants that gave way, and newcomers for whom
            nobody could, since the start.
        waiting: who waits to be sent something, the oldest first.
        stalled: who waits for something to be taken, that without progress for longest first.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.held = self.evicted = self.refused = 0
        self.waiting: OrderedDict[Occupant, None] = OrderedDict()
        self.stalled: OrderedDict[Occupant, float] = OrderedDict()
        self._occasionally = Occasionally(LOG_SECONDS, trio.current_time)

    def make_room(self) -> bool:
        """Whether there is a place now, if need be that of somebody who waits."""
        if self.held < self.limit or self.evict():
            return True
        self.refused += 1
        self._report()
        return False

    def evict(self) -> bool:
        """Have the oldest that waits give way; False when nobody waits."""
        oldest = self._oldest()
        if oldest is None:
            return False
        oldest.give_way()
        self.evicted += 1
        self._report()
        return True

    def _oldest(self) -> "Occupant | None":
        if self.waiting:
            return next(iter(self.waiting))
        if self.stalled:
            occupant, since = next(iter(self.stalled.items()))
            if since + STALL_SECONDS <= trio.current_time():
                return occupant
        return None

    def forget(self, occupant: "Occupant") -> None:
        """It does not wait any more."""
        self.waiting.pop(occupant, None)
        if self.stalled:
            self.stalled.pop(occupant, None)

    def _report(self) -> None:
        if self._occasionally.due():
            logger.warning(
                "the bound of %d %s is reached: since the start %d that waited for their client"
                " gave way, and %d newcomers found no place",
                self.limit,
                self.name.replace("_", " "),
                self.evicted,
                self.refused,
            )


class Occupant:
    """Whoever has places; those are given up together when it is evicted.

    Args:
        reserved: it is a connection in the reserve.

    Attributes:
        scope: everything that it does, entered by whoever runs it.
        evicted: it has given way, and must end without waiting for anything.
    """

    __slots__ = ("_capacities", "_waits_in", "evicted", "reserved", "scope")

    def __init__(self, reserved: bool = False) -> None:
        self.scope = trio.CancelScope()
        self.reserved = reserved
        self.evicted = False
        self._waits_in: trio.CancelScope | None = None
        self._capacities: list[Capacity] = []

    def take(self, capacity: Capacity) -> bool:
        """Take a place; False when there is none."""
        if not capacity.make_room():
            return False
        capacity.held += 1
        self._capacities.append(capacity)
        return True

    def leave(self, capacity: Capacity) -> None:
        """Give a place back, unless that was done before."""
        if capacity in self._capacities:
            self._capacities.remove(capacity)
            capacity.held -= 1
            if self._waits_in is not None:
                capacity.forget(self)

    def leave_all(self) -> None:
        """Give all places back."""
        while self._capacities:
            self.leave(self._capacities[-1])

    def wait(self, scope: trio.CancelScope | None = None, anew: bool = True) -> None:
        """From now on it only waits for its client, and may have to give way.

        Args:
            scope: is cancelled then; `self.scope` when there is none. At once if it was evicted.
            anew: it begins to wait; else it goes on to, and stays where it is in the queue.
        """
        scope = scope or self.scope
        if self.evicted:
            scope.cancel()
            return
        self._waits_in = scope
        for capacity in self._capacities:
            if capacity.stalled:
                capacity.stalled.pop(self, None)
            capacity.waiting[self] = None
            if anew:
                capacity.waiting.move_to_end(self)

    def stall(self, scope: trio.CancelScope | None = None) -> None:
        """Its client has taken something of its answer, and must take more for it to go on.

        Nothing changes for one that waits to be sent something at the same time.

        Args:
            scope: see `wait`.
        """
        scope = scope or self.scope
        if self.evicted:
            scope.cancel()
        elif not self.waiting:
            self._waits_in = scope
            now = trio.current_time()
            for capacity in self._capacities:
                capacity.stalled[self] = now
                capacity.stalled.move_to_end(self)

    def flow(self) -> None:
        """All of the answer has been taken, so far."""
        if not self.waiting:
            self.work()

    @property
    def waiting(self) -> bool:
        """Whether it waits to be sent something."""
        return any(self in capacity.waiting for capacity in self._capacities)

    def work(self) -> None:
        """What it waited for is there."""
        if self._waits_in is not None:
            self._waits_in = None
            for capacity in self._capacities:
                capacity.forget(self)

    def give_way(self) -> None:
        """Leave to whoever is newer."""
        self.evicted = True
        self.leave_all()
        if self._waits_in is not None:
            self._waits_in.cancel()


class Bounds:
    """The capacities of one process.

    Attributes:
        handshakes: connections whose first bytes, or whose WebSocket handshake, are still arriving.
        connections: HTTP and TLS connections. reserve: those above that bound.
        requests: requests that the application works on. probes: probes above that bound.
        farewells: refused connections that have not read the refusal yet.
    """

    def __init__(self, config: ListenerConfig) -> None:
        self.handshakes = Capacity("handshakes", config.max_handshakes)
        self.connections = Capacity("connections", config.max_connections)
        self.requests = Capacity("requests", config.max_requests)
        self.reserve = Capacity("reserve_connections", config.max_probes)
        self.probes = Capacity("reserve_requests", config.max_probes)
        self.farewells = Capacity("farewells", config.max_handshakes)
        self._paths = frozenset(path.encode() for path in config.probe_paths)

    def relieve(self, count: int) -> None:
        """Have up to `count` connections that wait give way: descriptors are short."""
        order = (self.farewells, self.handshakes, self.connections)
        for _ in range(count):
            if not any(capacity.evict() for capacity in order):
                break

    def admit(self, occupant: Occupant, method: str, target: bytes, body: bool) -> bool:
        """Take the place of a request for its occupant; False when there is none.

        Args:
            target: path and query. body: a body comes with it, so that it is no probe.
        """
        if self.requests.held < self.requests.limit and not occupant.reserved:
            return occupant.take(self.requests)
        if not body and self.is_probe(method, target):
            return occupant.take(self.probes)
        return not occupant.reserved and occupant.take(self.requests)

    def is_probe(self, method: str, target: bytes) -> bool:
        """Whether a request asks for what the reserve is for."""
        return method in ("GET", "HEAD") and target.partition(b"?")[0] in self._paths

    def release(self, occupant: Occupant) -> None:
        """Give the place of a request back."""
        occupant.leave(self.requests)
        occupant.leave(self.probes)

    def figures(self) -> list[tuple[str, float]]:
        """What each capacity has to say, by metric name."""
        capacities = (
            self.handshakes,
            self.connections,
            self.requests,
            self.reserve,
            self.probes,
            self.farewells,
        )
        return [
            figure
            for one in capacities
            for figure in (
                (f"{one.name}_open", one.held),
                (f"{one.name}_evicted_total", one.evicted),
                (f"{one.name}_refused_total", one.refused),
            )
        ]
