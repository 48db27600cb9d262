"""Bounds on what is open at once, in which the oldest that waits for its client gives way.

Theory of operation. Places are taken by an `Occupant`: a connection together with the request that
it works on, or one request of an HTTP/2 connection. While it can do nothing but wait for bytes of
its client, it stands in the queue of its holder in each of its capacities, oldest first (`shares`
says who the holders are). A newcomer that finds a capacity full takes the place of one that waits,
which is cancelled: of the address of which most wait, if that is above its share; else of the
older one, by its wait, of that address and of those who have no share; else of the user of whom
most wait. When nobody waits, all are being worked on, and the newcomer is refused. So whoever is
silent or slow keeps nobody out, and no request that has arrived is dropped.

Most of who waits is sent something long before a place is short. So who begins to wait is only
noted, in order, and enters the queues when somebody has to give way. Each step costs O(1), that
one spread over the waits that it catches up with.

A place in the queue is kept over bytes that merely drip in: an occupant moves to the end when it
begins to wait for something else, or while its body comes at the rate that is asked for.

An occupant whose client does not take its answer stands in a second queue, from which it moves to
the end with what is taken. From there it gives way when nobody waits in the first one and nothing
was taken for STALL_SECONDS. Whose client has no such time left (`uptake`) stands in the first one.

Above the bound of connections there is a small reserve, in which a connection is read up to one
request head and served only when that asks for a probe (health, metrics). It has RESERVE_SECONDS
for all of it. In the reserve the oldest that wait give way too, so that neither silent connections
nor many probes keep a probe out.
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
"""What a connection in the reserve has for TLS, one request head and the answer."""
STALL_SECONDS = 1.0
"""A client that takes nothing of its answer for so long may have to give way."""
LOG_SECONDS = 10.0
"""Between two log lines about the same bound."""

FORWARDED = b"x-forwarded-for"

logger = logging.getLogger("syncbridge.listener")

Field = tuple[bytes, bytes]


_waits = itertools.count()


class Capacity:
    """So many places. Use it through an `Occupant`.

    Args:
        name: what is counted, for logs and metrics.
        shared: whether addresses have shares of it, see `shares`.

    Attributes:
        held: places taken. evicted, refused: occupants that gave way, and newcomers for whom
            nobody could, since the start.
        pressure: places from which on shares bind.
        stalled: who waits for something to be taken, that without progress for longest first.
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
        """Who may give way at once. O(those that have places)."""
        self._catch_up()
        holders = (self._many, *self._addresses.values(), *self._users.values())
        return [occupant for holder in holders for occupant in holder.waiting]

    def holder(self, name: str, known: bool) -> Holder["Occupant"]:
        """The user of this name when that is `known`; else the address."""
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
        """Whether there is a place without taking one from somebody."""
        return self.relaxed or (self.held < self.limit and not holder.full)

    def make_room(self, holder: Holder["Occupant"]) -> bool:
        """Whether there is a place now, if need be that of somebody who waits."""
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
        """Have one that waits give way; False when nobody waits."""
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
        """Who gives way, see the top of this file."""
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
        """Forget a holder that has no place."""
        if not holder.held and holder is not self._many:
            (self._users if holder.known else self._addresses).pop(holder.name, None)

    def wait(self, occupant: "Occupant", holder: Holder["Occupant"], anew: bool) -> None:
        """It waits for its client, see `Occupant.wait`."""
        if occupant in self._begun or occupant in holder.waiting:
            if not anew:
                return
            self._unqueue(occupant, holder)
        self._begun[occupant] = holder

    def waits(self, occupant: "Occupant", holder: Holder["Occupant"]) -> bool:
        """Whether it is one of those who may give way at once."""
        return occupant in self._begun or occupant in holder.waiting

    def forget(self, occupant: "Occupant", holder: Holder["Occupant"]) -> None:
        """It does not wait any more."""
        if self._begun.pop(occupant, None) is None:
            self._unqueue(occupant, holder)
        if self.stalled:
            self.stalled.pop(occupant, None)

    def stall(self, occupant: "Occupant", holder: Holder["Occupant"], spent: bool) -> None:
        """It waits for something to be taken; see `Occupant.stall`."""
        if spent:
            self.stalled.pop(occupant, None)
            self.wait(occupant, holder, anew=False)
        else:
            self._unqueue(occupant, holder)
            self.stalled[occupant] = trio.current_time()
            self.stalled.move_to_end(occupant)

    def _catch_up(self) -> None:
        """Queue those that have begun to wait since the last time."""
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
    """Whoever has places; those are given up together when it is evicted.

    Args:
        reserved: it is a connection in the reserve.
        holder: whose places these are, as `shares.holder_name` says.

    Attributes:
        scope: everything that it does, entered by whoever runs it.
        evicted: it has given way, and must end without waiting for anything.
        waiting: it waits to be sent something. since: which wait of all that began this one is.
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
            address: of whom a request comes, where that is not the holder of its connection.
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
        """Its places are those of another holder from now on.

        Args:
            name: a user when that is `known`; else as `shares.holder_name` says.
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
        """From now on it only waits for its client, and may have to give way.

        Args:
            scope: is cancelled then; `self.scope` when there is none. At once if it was evicted.
            anew: it begins to wait; else it goes on to, and stays where it is in the queue.
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
        """Its client has taken something of its answer, and must take more for it to go on.

        Nothing changes for one that waits to be sent something at the same time.

        Args:
            scope: see `wait`.
            spent: it has no time left to do so, and may have to give way at once.
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
        """All of the answer has been taken, so far."""
        if not self.waiting:
            self.work()

    def work(self) -> None:
        """What it waited for is there."""
        if self._waits_in is not None:
            self._waits_in = None
            self.waiting = False
            for capacity, holder in self._places.items():
                capacity.forget(self, holder)

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
        forwarding: addresses that stand for many people without being trusted.
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
        """Have up to `count` connections that wait give way: descriptors are short."""
        order = (self.farewells, self.handshakes, self.connections)
        for _ in range(count):
            if not any(capacity.evict() for capacity in order):
                break

    def holder(self, peer: str) -> str:
        """Whose places the connections of a peer are."""
        return MANY if self._proxies.trusts(peer) else self.forwarding.holder(peer)

    def requester(self, occupant: Occupant, peer: str, headers: Iterable[Field]) -> str:
        """Whose place the request of a connection is, by its header fields."""
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
        """A peer has sent X-Forwarded-For: unless it is trusted, it has no share from now on."""
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
        """Take the place of a request for its occupant; False when there is none.

        Args:
            target: path and query. body: a body comes with it, so that it is no probe.
            address: see `Occupant.take`.
        """
        requests = self.requests
        if not occupant.reserved and requests.held < requests.pressure:
            return occupant.take(requests, address)
        if not body and self.is_probe(method, target):
            return occupant.take(self.probes, address)
        return not occupant.reserved and occupant.take(requests, address)

    def is_probe(self, method: str, target: bytes) -> bool:
        """Whether a request asks for what the reserve is for."""
        return method in ("GET", "HEAD") and target.partition(b"?")[0] in self._paths

    def release(self, occupant: Occupant) -> None:
        """Give the place of a request back."""
        if not occupant.leave(self.requests):
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
