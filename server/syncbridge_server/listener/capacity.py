"""Bounds on what is open at once. At a bound, the oldest that waits for its client gives way.

Theory of operation. Places are taken by an `Occupant`: a connection with its current request, or
one request of an HTTP/2 connection. While it only waits for bytes from its client, it stands in its
holder's queue in each of its capacities, oldest first (`shares` defines holders). A newcomer that
finds a capacity full takes the place of a waiting occupant, which is cancelled. The victim belongs
to the address with the most waiting occupants, if that is above its share; else it is the older, by
its wait, of that address and of the holder without a share; else it belongs to the user with the
most waiting occupants. When nobody waits, all are busy, and the newcomer is refused. So silent or
slow clients keep nobody out, and no request that has arrived is dropped.

Most waits end long before places run short. So the start of a wait is only noted, in order, and
enters the queues when somebody has to give way. Each step costs O(1), that one spread over the
waits that it catches up with.

Bytes that drip in do not improve an occupant's position: it moves to the end when it begins to wait
for something else, or while its body arrives at the required rate.

An occupant whose client does not read its answer stands in a second queue, and moves to its end
whenever the client reads something. It gives way when nobody waits in the first queue and its
client has read nothing for STALL_SECONDS. When its client has no such time left (`uptake`), it
stands in the first queue.

Above the bound of connections there is a small reserve, in which a connection is read up to one
request head and served only if that is a probe (health, metrics). It has RESERVE_SECONDS in all. In
the reserve, too, the oldest that wait give way: neither silent connections nor many probes keep a
probe out.
"""

import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Iterable

import trio

from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.shares import (
    MANY,
    PRESSURE,
    SHARE,
    Forwarding,
    Holder,
    Ranking,
    first_to_go,
    holder_name,
)
from syncbridge_server.log import Occasionally

RESERVE_SECONDS = 5.0
"""Time of a connection in the reserve for TLS, one request head and the answer."""
STALL_SECONDS = 1.0
"""A client that reads nothing of its answer for this long may have to give way."""
LOG_SECONDS = 10.0
"""Pause between two log lines about the same bound."""

FORWARDED = b"x-forwarded-for"

logger = logging.getLogger("syncbridge.listener")

Field = tuple[bytes, bytes]


_waits = itertools.count()


class Capacity:
    """A number of places. Use it through an `Occupant`.

    Args:
        name: what is counted, for logs and metrics. shared: whether addresses have shares
        (`shares`).

    Attributes:
        held: places taken. evicted, refused: occupants that gave way, and newcomers that found no
        place, since the start.
        pressure: number of taken places above which shares bind.
        stalled: occupants whose clients must read; the longest without progress first.
    """

    def __init__(self, name: str, limit: int, shared: bool = True) -> None:
        self.name = name
        self.limit = limit
        self.held = self.evicted = self.refused = 0
        self.stalled: OrderedDict[Occupant, float] = OrderedDict()
        self._begun: dict[Occupant, Holder[Occupant]] = {}  # they wait, and are in no queue yet
        self.pressure = math.ceil(limit * PRESSURE) if shared else limit
        self._share = max(1, int(limit * SHARE)) if shared else limit
        self._many: Holder[Occupant] = Holder(MANY, self.pressure)
        self._addresses: dict[str, Holder[Occupant]] = {}
        self._users: dict[str, Holder[Occupant]] = {}
        self._silent_addresses: Ranking[Occupant] = Ranking()
        self._silent_users: Ranking[Occupant] = Ranking()
        self._occasionally = Occasionally(LOG_SECONDS, trio.current_time)

    @property
    def waiting(self) -> list["Occupant"]:
        """Occupants that may give way at once. O(occupants)."""
        self._catch_up()
        holders = (self._many, *self._addresses.values(), *self._users.values())
        return [occupant for holder in holders for occupant in holder.waiting]

    def holder(self, name: str, known: bool) -> Holder["Occupant"]:
        """The user of this name if `known`; else the address."""
        if not known and name == MANY:
            return self._many
        holders = self._users if known else self._addresses
        found = holders.get(name)
        if found is None:
            found = holders[name] = Holder(name, self.limit if known else self._share, known)
        return found

    @property
    def relaxed(self) -> bool:
        """Whether shares do not bind."""
        return self.held < self.pressure

    def has_room(self, holder: Holder["Occupant"]) -> bool:
        """Whether a place is free."""
        return self.relaxed or (self.held < self.limit and not holder.full)

    def make_room(self, holder: Holder["Occupant"]) -> bool:
        """See that a place is free, if need be by an eviction; False when that fails."""
        if self.has_room(holder):
            return True
        self._catch_up()
        victim = (holder.oldest or self._stalled()) if holder.full else self._victim()
        if self._evict(victim):
            return True
        self.refused += 1
        self.drop(holder)
        self._report()
        return False

    def evict(self) -> bool:
        """Evict one waiting occupant; False when nobody waits."""
        self._catch_up()
        return self._evict(self._victim())

    def _evict(self, victim: "Occupant | None") -> bool:
        if victim is None:
            return False
        victim.give_way()
        self.evicted += 1
        self._report()
        return True

    def _victim(self) -> "Occupant | None":
        """The occupant that gives way, see the top of this file."""
        address = self._silent_addresses.first()
        oldest = first_to_go(address, self._many, lambda occupant: occupant.since)
        if oldest is not None:
            return oldest
        user = self._silent_users.first()
        return user.oldest if user is not None else self._stalled()

    def _stalled(self) -> "Occupant | None":
        if self.stalled:
            occupant, since = next(iter(self.stalled.items()))
            if since + STALL_SECONDS <= trio.current_time():
                return occupant
        return None

    def drop(self, holder: Holder["Occupant"]) -> None:
        """Forget a holder without places."""
        if not holder.held and holder is not self._many:
            (self._users if holder.known else self._addresses).pop(holder.name, None)

    def wait(self, occupant: "Occupant", holder: Holder["Occupant"], anew: bool) -> None:
        """An occupant waits for its client, see `Occupant.wait`."""
        if occupant in self._begun or occupant in holder.waiting:
            if not anew:
                return
            self._unqueue(occupant, holder)
        self._begun[occupant] = holder

    def waits(self, occupant: "Occupant", holder: Holder["Occupant"]) -> bool:
        """Whether an occupant may give way at once."""
        return occupant in self._begun or occupant in holder.waiting

    def forget(self, occupant: "Occupant", holder: Holder["Occupant"]) -> None:
        """An occupant no longer waits."""
        if self._begun.pop(occupant, None) is None:
            self._unqueue(occupant, holder)
        if self.stalled:
            self.stalled.pop(occupant, None)

    def stall(self, occupant: "Occupant", holder: Holder["Occupant"], spent: bool) -> None:
        """An occupant waits for its client to read; see `Occupant.stall`."""
        if spent:
            self.stalled.pop(occupant, None)
            self.wait(occupant, holder, anew=False)
        else:
            self._unqueue(occupant, holder)
            self.stalled[occupant] = trio.current_time()
            self.stalled.move_to_end(occupant)

    def _catch_up(self) -> None:
        """Queue the occupants that have begun to wait since the last call."""
        for occupant, holder in self._begun.items():
            if holder is self._many:
                holder.waiting[occupant] = None
            else:
                self._ranking(holder).add(holder, occupant)
        self._begun.clear()

    def _unqueue(self, occupant: "Occupant", holder: Holder["Occupant"]) -> None:
        if self._begun.pop(occupant, None) is not None:
            return
        if holder is self._many:
            holder.waiting.pop(occupant, None)
        else:
            self._ranking(holder).discard(holder, occupant)

    def _ranking(self, holder: Holder["Occupant"]) -> Ranking["Occupant"]:
        return self._silent_users if holder.known else self._silent_addresses

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
    """Holds places, and gives all of them up when it is evicted.

    Args:
        reserved: it is a connection in the reserve. holder: owner of its places, see
        `shares.holder_name`.

    Attributes:
        scope: cancel scope of its work, entered by its runner.
        evicted: it has given way, and must end without waiting.
        waiting: it waits for bytes from its client. since: sequence number of its wait.
        known: `holder` is a user.
    """

    __slots__ = (
        "_places",
        "_waits_in",
        "evicted",
        "holder",
        "known",
        "reserved",
        "scope",
        "since",
        "waiting",
    )

    def __init__(self, reserved: bool = False, holder: str = MANY) -> None:
        self.scope = trio.CancelScope()
        self.reserved = reserved
        self.holder = holder
        self.known = self.evicted = self.waiting = False
        self.since = 0
        self._waits_in: trio.CancelScope | None = None
        self._places: dict[Capacity, Holder[Occupant]] = {}

    def take(self, capacity: Capacity, address: str | None = None) -> bool:
        """Take a place; False when there is none.

        Args:
            address: origin of a request, if that is not the holder of its connection.
        """
        name = self.holder if address is None or self.known else address
        holder = capacity.holder(name, self.known)
        if capacity.held >= capacity.pressure:
            if not capacity.make_room(holder):
                return False
            holder = capacity.holder(name, self.known)  # who gave way may have been its last
        capacity.held += 1
        holder.held += 1
        self._places[capacity] = holder
        return True

    def leave(self, capacity: Capacity) -> bool:
        """Give a place back; False when it has none."""
        holder = self._places.pop(capacity, None)
        if holder is None:
            return False
        capacity.held -= 1
        if self._waits_in is not None:
            capacity.forget(self, holder)
        holder.held -= 1
        if not holder.held:
            capacity.drop(holder)
        return True

    def leave_all(self) -> None:
        """Give all places back."""
        while self._places:
            self.leave(next(reversed(self._places)))

    def belong(self, name: str, known: bool = True) -> None:
        """Move its places to another holder.

        Args:
            name: a user if `known`; else see `shares.holder_name`.
        """
        if (name, known) == (self.holder, self.known):
            return
        self.holder, self.known = name, known
        for capacity, before in list(self._places.items()):
            after = self._places[capacity] = capacity.holder(name, known)
            if capacity.waits(self, before):
                capacity.forget(self, before)
                capacity.wait(self, after, anew=True)
            before.held -= 1
            after.held += 1
            capacity.drop(before)

    def wait(self, scope: trio.CancelScope | None = None, anew: bool = True) -> None:
        """Begin to wait for the client; it may now have to give way.

        Args:
            scope: cancelled then, by default `self.scope`; at once if it was evicted. anew: a new
            wait; else it continues one, and keeps its position in the queue.
        """
        scope = scope or self.scope
        if self.evicted:
            scope.cancel()
            return
        if anew or self._waits_in is None:
            self.since = next(_waits)
        self._waits_in = scope
        self.waiting = True
        for capacity, holder in self._places.items():
            if capacity.stalled:
                capacity.stalled.pop(self, None)
            capacity.wait(self, holder, anew)

    def stall(self, scope: trio.CancelScope | None = None, spent: bool = False) -> None:
        """Its client has read a part of its answer, and must read more.

        Does nothing while it also waits for bytes from its client.

        Args:
            scope: see `wait`.
            spent: the client has no time left; it may have to give way at once.
        """
        scope = scope or self.scope
        if self.evicted:
            scope.cancel()
        elif not self.waiting:
            self.since = next(_waits)
            self._waits_in = scope
            for capacity, holder in self._places.items():
                capacity.stall(self, holder, spent)

    def flow(self) -> None:
        """The client has read all of the answer so far."""
        if not self.waiting:
            self.work()

    def work(self) -> None:
        """Its wait has ended."""
        if self._waits_in is not None:
            self._waits_in = None
            self.waiting = False
            for capacity, holder in self._places.items():
                capacity.forget(self, holder)

    def give_way(self) -> None:
        """Give way to a newer occupant."""
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
        farewells: refused connections whose peers have not read the refusal yet.
        forwarding: untrusted addresses that stand for many people.
    """

    def __init__(self, config: ListenerConfig, forwarding: Forwarding | None = None) -> None:
        self.handshakes = Capacity("handshakes", config.max_handshakes)
        self.connections = Capacity("connections", config.max_connections)
        self.requests = Capacity("requests", config.max_requests)
        self.reserve = Capacity("reserve_connections", config.max_probes, shared=False)
        self.probes = Capacity("reserve_requests", config.max_probes, shared=False)
        self.farewells = Capacity("farewells", config.max_handshakes, shared=False)
        self.forwarding = forwarding or Forwarding()
        self._proxies = config.proxies
        self._paths = frozenset(path.encode() for path in config.probe_paths)

    def relieve(self, count: int) -> None:
        """Evict up to `count` waiting connections: descriptors are short."""
        order = (self.farewells, self.handshakes, self.connections)
        for _ in range(count):
            if not any(capacity.evict() for capacity in order):
                break

    def holder(self, peer: str) -> str:
        """The holder of a peer's connections."""
        return MANY if self._proxies.trusts(peer) else self.forwarding.holder(peer)

    def requester(self, occupant: Occupant, peer: str, headers: Iterable[Field]) -> str:
        """The holder of a connection's request, by its header fields."""
        forwarded = [value.decode("latin-1") for name, value in headers if name == FORWARDED]
        if not forwarded:
            return occupant.holder
        if self._proxies.trusts(peer):
            return holder_name(self._proxies.resolve(peer, forwarded))
        self.forwards(peer)
        if not occupant.known:
            occupant.belong(MANY, known=False)
        return MANY

    def forwards(self, peer: str) -> None:
        """A peer has sent X-Forwarded-For: unless it is trusted, it loses its share."""
        if self._proxies.trusts(peer) or not self.forwarding.add(peer):
            return
        logger.warning(
            "%s sends X-Forwarded-For and is not trusted: its clients cannot be told apart and"
            " have no shares of their own; SYNCBRIDGE_TRUSTED_PROXIES would allow it",
            peer,
        )

    def admit(
        self,
        occupant: Occupant,
        method: str,
        target: bytes,
        body: bool,
        address: str | None = None,
    ) -> bool:
        """Take a request's place for its occupant; False when there is none.

        Args:
            target: path and query. body: it has a body, and so is no probe.
            address: see `Occupant.take`.
        """
        requests = self.requests
        if not occupant.reserved and requests.held < requests.pressure:
            return occupant.take(requests, address)
        if not body and self.is_probe(method, target):
            return occupant.take(self.probes, address)
        return not occupant.reserved and occupant.take(requests, address)

    def is_probe(self, method: str, target: bytes) -> bool:
        """Whether a request is a probe, which the reserve serves."""
        return method in ("GET", "HEAD") and target.partition(b"?")[0] in self._paths

    def release(self, occupant: Occupant) -> None:
        """Give a request's place back."""
        if not occupant.leave(self.requests):
            occupant.leave(self.probes)

    def figures(self) -> list[tuple[str, float]]:
        """Figures of each capacity, by metric name."""
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
