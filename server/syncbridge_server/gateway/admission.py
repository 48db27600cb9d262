"""Limits on handshakes, and on connections without AUTH, for each address.

Before AUTH, the address is all that the server knows of a client. It may stand for many people (a
company, a mobile network), so the bounds are wide; they only stop one machine from taking all
slots. Addresses that stand for many people by nature have no bound; `listener.shares` lists them.

Each address has a share of the connections without AUTH, which applies once the node is nearly
full. Above that share, and when the node is full, new connections replace those without AUTH, in
the order of `shares.first_to_go`.
"""

import math
from collections.abc import Callable

from syncbridge.errors import ErrorCode
from syncbridge.limits import Limits
from syncbridge.rates.buckets import TokenBuckets
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.listener.contract import Refusal
from syncbridge_server.listener.shares import (
    MANY,
    PRESSURE,
    Holder,
    Ranking,
    first_to_go,
    holder_name,
)


class UnauthenticatedConnections:
    """Connections that have not sent a valid AUTH, by address.

    Args:
        share: how many an address may have under pressure, 0 for no bound.
        holder: address -> whose share it counts for.
    """

    def __init__(self, share: int = 0, holder: Callable[[str], str] = holder_name) -> None:
        self.share = share or 2**31
        self._name = holder
        self._many: Holder[Connection] = Holder(MANY, 0)
        self._holders: dict[str, Holder[Connection]] = {}
        self._of: dict[Connection, Holder[Connection]] = {}
        self._ranking: Ranking[Connection] = Ranking()

    def __len__(self) -> int:
        return len(self._of)

    def add(self, connection: Connection) -> None:
        """A new connection."""
        name = self._name(connection.client)
        if name == MANY:
            holder = self._many
            holder.waiting[connection] = None
        else:
            holder = self._holders.setdefault(name, Holder(name, self.share))
            self._ranking.add(holder, connection)
        holder.held += 1
        self._of[connection] = holder

    def discard(self, connection: Connection) -> None:
        """The connection has sent a valid AUTH, or has closed."""
        holder = self._of.pop(connection, None)
        if holder is None:
            return
        holder.held -= 1
        if holder is self._many:
            del holder.waiting[connection]
            return
        self._ranking.discard(holder, connection)
        if not holder.held:
            del self._holders[holder.name]

    def above_share(self, client: str) -> Connection | None:
        """The oldest connection of an address that has used up its share, else None."""
        holder = self._holders.get(self._name(client))
        return holder.oldest if holder is not None and holder.full else None

    def first(self) -> Connection | None:
        """The connection to replace when the node is full."""
        return first_to_go(self._ranking.first(), self._many, lambda connection: connection.cid)


class AdmissionLimits:
    """Admits or refuses handshakes. A limit of 0 means no limit.

    Args:
        unauthenticated: who has not authenticated, kept by the registry.
        holder: address -> whose share it counts for.
    """

    def __init__(
        self,
        limits: Limits,
        unauthenticated: UnauthenticatedConnections,
        holder: Callable[[str], str] = holder_name,
    ) -> None:
        self._unauthenticated = unauthenticated
        self._holder = holder
        self._most = limits.connections
        self._pressure = math.ceil(limits.connections * PRESSURE)
        self._buckets = None
        if limits.handshakes_per_second:
            rate, burst = limits.handshakes_per_second, limits.handshake_burst
            self._buckets = TokenBuckets(rate, burst)

    def admit(self, client: str, now: float, taken: int) -> Refusal | Connection | None:
        """Whether an address may open another WebSocket.

        Args:
            now: monotonic seconds. taken: connections that are open.

        Returns:
            The refusal; or the connection that the new one replaces; or None.
        """
        full = 0 < self._most <= taken
        if full and not self._unauthenticated:
            return Refusal(503, ErrorCode.OVERLOADED.wire, "the server is full", 5)
        holder = self._holder(client)
        wait = 0.0
        if self._buckets is not None and holder != MANY:
            wait = self._buckets.take(holder, now)
        if wait:
            code, detail = ErrorCode.RATE_LIMITED, "too many handshakes from this address"
            return Refusal(code.status, code.wire, detail, max(1, math.ceil(wait)))
        oldest = self._unauthenticated.above_share(client) if taken >= self._pressure else None
        return oldest or (self._unauthenticated.first() if full else None)
