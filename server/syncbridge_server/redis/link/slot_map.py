"""The slot map of a cluster: the server of each slot, as reported by servers."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import AskError, MovedError

from syncbridge.slots import SLOTS, TAGS, slot_of
from syncbridge_server.redis.link.urls import Address

STRIDE = 97
"""Tags that follow one another are in neighbouring slots, which often move together."""

NOBODY = Address("", 0)
"""Owner of a slot that no server serves."""


class SlotMap:
    """Owners by slot. None is the server that the URL names, where it has no other address.

    Attributes:
        primaries: in the order of their first slots.
        whole: whether each slot has a server.
    """

    def __init__(self, ranges: Sequence[tuple[int, int, Address | None]] = ()) -> None:
        self.owners: list[Address | None] = [NOBODY] * SLOTS
        for first, last, owner in ranges:
            self.owners[first : last + 1] = [owner] * (last + 1 - first)
        owners = dict.fromkeys(self.owners)
        self.whole = owners.pop(NOBODY, 0) is not None
        self.primaries = list(owners)

    @classmethod
    def read(cls, reply: Any, told_by: Address | None) -> "SlotMap":
        """From the reply to CLUSTER SLOTS; a server may not know its own host. ValueError."""
        try:
            return cls(
                [
                    (first, last, _address(owner[0], owner[1], told_by))
                    for first, last, owner, *_ in reply
                ]
            )
        except (TypeError, AttributeError) as error:
            raise ValueError("not a slot map") from error

    def news(self, before: "SlotMap") -> bool:
        """Whether this map differs from the one before.

        Slots without a server keep the one they had, which knows where they went: while a replica
        takes over, a server may have heard that the old primary has gone, and not yet who serves
        its slots. `whole` stays False. O(slots).
        """
        if not self.whole:
            pairs = zip(self.owners, before.owners, strict=True)
            self.owners = [old if new == NOBODY else new for new, old in pairs]
            self.primaries = list(dict.fromkeys(own for own in self.owners if own != NOBODY))
        return (self.owners, self.whole) != (before.owners, before.whole)

    def tag(self, owner: Address | None, number: int) -> str:
        """A tag of a bucket that a server has, another one for each number, or "". O(tags)."""
        own = [tag for tag in TAGS if self.owners[slot_of(tag)] == owner]
        return own[number * STRIDE % len(own)] if own else ""

    def move(self, slot: int, owner: Address | None) -> None:
        """One slot has another owner."""
        self.owners[slot] = owner
        if owner not in self.primaries:
            self.primaries.append(owner)


def _address(host: bytes | None, port: int, told_by: Address | None) -> Address | None:
    if host and host != b"?":
        return Address(host.decode(), port)
    return Address(told_by.host, port) if told_by else None


def redirection(text: str, told_by: Address | None) -> tuple[int, Address | None]:
    """The slot and server in MOVED or ASK. Raises ValueError."""
    code, _, rest = text.partition(" ")
    try:
        found = MovedError(rest) if code == "MOVED" else AskError(rest)
    except ValueError as error:
        raise ValueError("not a redirection") from error
    return found.slot_id, _address(found.host.encode(), found.port, told_by)
