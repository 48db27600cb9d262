"""Shares of a capacity: how many of its places an address may have.

Theory of operation. An occupant belongs to a holder: its address (IPv6 by /64), or its user once it
has authenticated. Unix peers, 127.0.0.1, ::1 and untrusted proxies stand for many people; together
they are one holder, MANY, with its own share.

A share binds only under pressure, above PRESSURE of all places: then a newcomer of an address with
a full share takes the place of that address's oldest waiting occupant, or is refused. Users have no
share: an authenticated user does not count for an address.

`Ranking` finds the holder with the most waiting occupants in O(1): each count changes by one at a
time, and so does the largest.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

T = TypeVar("T")

PRESSURE = 0.75
"""Part of all places above which shares bind; also the share of MANY."""
SHARE = 1 / 16
"""Part of all places that an address may have under pressure."""
MANY = ""
"""The holder of addresses that stand for many people."""
FORWARDING = 1_024
"""Most addresses remembered as forwarding; the oldest is forgotten."""
NETWORK_BITS = 64
_LOCAL = frozenset({"127.0.0.1", "::1"})


@lru_cache(4_096)
def holder_name(client: str) -> str:
    """The holder of connections from this address; MANY if it has no share of its own."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return MANY
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif str(address) not in _LOCAL:
            return f"{IPv6Address(int(address) >> NETWORK_BITS << NETWORK_BITS)}/{NETWORK_BITS}"
    return MANY if str(address) in _LOCAL else str(address)


class Forwarding:
    """Untrusted addresses that send X-Forwarded-For: they stand for many people."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, None] = OrderedDict()

    def holder(self, client: str) -> str:
        """As `holder_name`, but MANY for an address that forwards."""
        name = holder_name(client)
        return MANY if name in self._names else name

    def add(self, client: str) -> bool:
        """Note that an address has forwarded a request; True if it is new."""
        name = holder_name(client)
        if name == MANY or name in self._names:
            return False
        self._names[name] = None
        if len(self._names) > FORWARDING:
            self._names.popitem(last=False)
        return True


class Holder(Generic[T]):
    """An address, a user or MANY, whose places are counted together.

    Args:
        name: address, MANY, or user. share: most places under pressure.
        known: it is a user.

    Attributes:
        held: its places. waiting: its occupants that wait for their clients, oldest first.
    """

    __slots__ = ("held", "known", "name", "share", "waiting")

    def __init__(self, name: str, share: int, known: bool = False) -> None:
        self.name = name
        self.share = share
        self.known = known
        self.held = 0
        self.waiting: OrderedDict[T, None] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether its share is full."""
        return self.held >= self.share

    @property
    def oldest(self) -> T | None:
        """The occupant that has waited longest."""
        return next(iter(self.waiting)) if self.waiting else None


def first_to_go(address: Holder[T] | None, many: Holder[T], age: Callable[[T], int]) -> T | None:
    """The occupant that gives way to a newcomer; None when nobody waits.

    Args:
        address: the address with the most waiting occupants. many: the holder MANY.
        age: larger for an occupant that began to wait later.
    """
    oldest, other = address.oldest if address is not None else None, many.oldest
    if address is None or oldest is None or other is None:
        return oldest or other
    return oldest if address.held > address.share or age(oldest) < age(other) else other


class Ranking(Generic[T]):
    """Holders by the number of their waiting occupants."""

    def __init__(self) -> None:
        self._ranks: dict[int, dict[Holder[T], None]] = {}
        self._top = 0

    def add(self, holder: Holder[T], occupant: T) -> None:
        """Count a waiting occupant."""
        if occupant in holder.waiting:
            return
        holder.waiting[occupant] = None
        self._move(holder, len(holder.waiting) - 1)

    def discard(self, holder: Holder[T], occupant: T) -> None:
        """Uncount an occupant."""
        if occupant in holder.waiting:
            del holder.waiting[occupant]
            self._move(holder, len(holder.waiting) + 1)

    def first(self) -> Holder[T] | None:
        """The holder with the most waiting occupants; None when nobody waits."""
        return next(iter(self._ranks[self._top])) if self._top else None

    def _move(self, holder: Holder[T], before: int) -> None:
        rank = self._ranks.get(before)
        if rank is not None:
            del rank[holder]
            if not rank:
                del self._ranks[before]
        now = len(holder.waiting)
        if now:
            self._ranks.setdefault(now, {})[holder] = None
        if now > self._top or self._top not in self._ranks:
            self._top = now
