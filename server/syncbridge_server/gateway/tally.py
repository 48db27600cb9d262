"""What this node has written since its start, for operators."""

from syncbridge.records.sessions import Outcome, Status


class Tally:
    """Counts outcomes of writes.

    Attributes:
        writes: commits that changed something. created: sessions made by them.
        conflicts: writes refused because somebody else had been faster.
        written_bytes: keys and values that were stored.
    """

    __slots__ = ("conflicts", "created", "writes", "written_bytes")

    def __init__(self) -> None:
        self.writes = 0
        self.created = 0
        self.conflicts = 0
        self.written_bytes = 0

    def count(self, outcome: Outcome) -> None:
        """Take one outcome into account. O(keys changed)."""
        if outcome.status is Status.CONFLICT:
            self.conflicts += 1
        elif outcome.status is Status.OK and outcome.version != outcome.prev_version:
            self.writes += 1
            self.created += outcome.created
            self.written_bytes += sum(map(len, outcome.sets))
