"""Which nodes have died: those whose entry stands still for a whole lease, as one observer sees it.

Each node changes its entry in a list periodically. No clocks are compared: an observer notes by its
own clock when it first saw the current value of an entry. An entry that has not changed for
`timeout` and `gap` since then is that of a dead node.

This is valid only while the observer sees the writes of the nodes. So a break (the store was away,
another server answers, messages were lost) begins the time anew for all, and so does a pause
between two looks that is longer than `gap`: the observer itself may have stood still, or the store
have answered nobody. A shorter pause may go unnoticed, so every node gets it as an allowance. Hence
no node is considered dead until `timeout` after recovery.
"""

from collections.abc import Mapping

MAX_WATCHED = 4_096
"""Nodes that are watched; more, and those that were seen last wait until others are gone."""


class Watch:
    """The time is in seconds of any clock that only goes forward.

    Args:
        timeout: the lease. gap: the longest time between two looks that follow each other.
    """

    def __init__(self, timeout: float, gap: float) -> None:
        self._timeout = timeout
        self._gap = gap
        self._seen: dict[str, tuple[str, float]] = {}
        self._looked = 0.0

    def broke(self) -> None:
        """Discard all observations."""
        self._seen.clear()

    def look(self, entries: Mapping[str, str], asked: float, answered: float) -> list[str]:
        """Observe the list; returns the dead nodes, in the order in which they were first seen.

        Args:
            asked, answered: when the question went out and the answer came. The entry was as it is
                at some moment in between, which is reckoned in favour of the node. O(entries).
        """
        if answered - self._looked > self._gap:
            self._seen.clear()
        self._looked = answered
        for gone in [node for node in self._seen if node not in entries]:
            del self._seen[gone]
        for node, entry in entries.items():
            known = self._seen.get(node)
            if known is None and len(self._seen) >= MAX_WATCHED:
                continue
            if known is None or known[0] != entry:
                self._seen[node] = entry, answered
        lease = self._timeout + self._gap
        return [node for node, (_, since) in self._seen.items() if asked - since >= lease]
