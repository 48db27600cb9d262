"""Whose the places of a capacity are: an address has a share of them.

Theory of operation. An occupant belongs to a holder: its address (IPv6 by /64), or, once it has
authenticated, its user. Unix peers, 127.0.0.1, ::1 and a proxy that is not among the trusted ones
stand for many people; they are one holder together, whose share is all but the reserve for others.

A share binds only under pressure, above PRESSURE of the whole: then a newcomer of an address that
has its share takes the place of the oldest of that address that waits, or finds none. Users have
no share: who is known is not counted for an address any more.

`Ranking` has the holder of most waiting occupants at hand, in O(1): a number changes by one at a
time, so the largest does, too.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

T = TypeVar("T")

PRESSURE = 0.75
"""The part of the whole above which shares bind; it is also the share of MANY."""
SHARE = 1 / 16
"""The part of the whole that an address may have under pressure."""
MANY = ""
"""The holder of those who stand for many people."""
FORWARDING = 1_024
"""Addresses that are remembered for having forwarded requests; the oldest is forgotten."""
NETWORK_BITS = 64
_LOCAL = frozenset({"127.0.0.1", "::1"})


@lru_cache(4_096)
def holder_name(client: str) -> str:
    """Whose share a connection of this address counts for; MANY for who has none."""
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
    """Addresses that send X-Forwarded-For without being trusted: they stand for many people."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, None] = OrderedDict()

    def holder(self, client: str) -> str:
        """As `holder_name`, but MANY for an address that forwards."""
        name = holder_name(client)
        return MANY if name in self._names else name

    def add(self, client: str) -> bool:
        """An address has forwarded a request; True when that is new."""
        name = holder_name(client)
        if name == MANY or name in self._names:
            return False
        self._names[name] = None
        if len(self._names) > FORWARDING:
            self._names.popitem(last=False)
        return True


class Holder(Generic[T]):
    """One whose places are counted together.

    Args:
        name: address, MANY, or a user. share: places that it may have under pressure.
        known: it is a user.

    Attributes:
        held: its places. waiting: its occupants that wait for their client, the oldest first.
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
        """Whether it has its share."""
        return self.held >= self.share

    @property
    def oldest(self) -> T | None:
        """Who has waited for longest."""
        return next(iter(self.waiting)) if self.waiting else None


def first_to_go(address: Holder[T] | None, many: Holder[T], age: Callable[[T], int]) -> T | None:
    """Who gives way to a newcomer; None when nobody waits.

    Args:
        address: the one of which most wait. many: those who have no share of their own.
        age: a number that is larger for who has begun to wait later.
    """
    oldest, other = address.oldest if address is not None else None, many.oldest
    if address is None or oldest is None or other is None:
        return oldest or other
    return oldest if address.held > address.share or age(oldest) < age(other) else other


class Ranking(Generic[T]):
    """Holders by how many of their occupants wait."""

    def __init__(self) -> None:
        self._ranks: dict[int, dict[Holder[T], None]] = {}
        self._top = 0

    def add(self, holder: Holder[T], occupant: T) -> None:
        """An occupant waits."""
        if occupant in holder.waiting:
            return
        holder.waiting[occupant] = None
        self._move(holder, len(holder.waiting) - 1)

    def discard(self, holder: Holder[T], occupant: T) -> None:
        """An occupant does not wait any more."""
        if occupant in holder.waiting:
            del holder.waiting[occupant]
            self._move(holder, len(holder.waiting) + 1)

    def first(self) -> Holder[T] | None:
        """The holder of whom most wait; None when nobody waits."""
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
