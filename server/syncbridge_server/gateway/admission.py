"""How many handshakes, and how many connections without AUTH, one address may have.

Before AUTH an address is all that is known of a client. It may stand for many people (a company, a
mobile network), so the bounds are wide; they stop one machine from taking all places. Who stands
for many people by its nature has none: `listener.shares` says who that is.

An address has a share of the connections without AUTH, which binds once so many places are taken
that they could become short. Above it, and when there is no place at all, connections without AUTH
give way to new ones, in the order of `shares.first_to_go`.
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
        """It has sent a valid AUTH, or is gone."""
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
        """The oldest of an address that has its share; None when it has not."""
        holder = self._holders.get(self._name(client))
        return holder.oldest if holder is not None and holder.full else None

    def first(self) -> Connection | None:
        """Who gives way when there is no place."""
        return first_to_go(self._ranking.first(), self._many, lambda connection: connection.cid)


class AdmissionLimits:
    """Judges handshakes. A bound of 0 in the limits is none.

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
            now: monotonic seconds. taken: places that are taken.

        Returns:
            Why not; or the connection that has to give way to it; or None.
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
