"""Topics and their members. See topics.pyx; the hub uses the table underneath."""

from typing import final

__all__ = ["TopicIndex"]

@final
class TopicIndex:
    """The table alone, without sockets: for tests of the invariant and for measurements.

    slots: connection slots, 0 to slots - 1. Raises MemoryError.
    """

    def __new__(cls, slots: int) -> TopicIndex: ...
    def open(self) -> int:
        """A new topic's id."""

    def close(self, topic: int) -> bool:
        """Drop a topic with its memberships; False when there is no such topic."""

    def subscribe(self, topic: int, slot: int) -> bool:
        """True when the slot is a member now; False when topic or slot do not exist."""

    def unsubscribe(self, topic: int, slot: int) -> bool:
        """False when the slot was not a member."""

    def forget(self, slot: int) -> None:
        """Take a slot out of all its topics."""

    def members(self, topic: int) -> list[int]:
        """Slots of the members, in fan-out order."""

    def topics_of(self, slot: int) -> list[int]:
        """Ids of the topics of one slot."""

    def __len__(self) -> int:
        """How many topics are open."""
