"""Counters of this node since its start, for operators."""

from syncbridge.records.sessions import Outcome, Status
from syncbridge_server.telemetry.timing import Timing


class GatewayCounters:
    """Counts outcomes of writes.

    Attributes:
        writes: commits that changed something. created: sessions made by them.
        conflicts: writes refused because of an earlier write.
        written_bytes: keys and values that were stored.
        auth: AUTH messages, by `ok` or the error's name on the wire. resumes: by what a returning
            device received: `delta`, `full`, `rolled_back`.
        answered: outcomes of any kind. commits: how long they took. ticks: the engine's work.
    """

    __slots__ = (
        "answered",
        "auth",
        "commits",
        "conflicts",
        "created",
        "resumes",
        "ticks",
        "writes",
        "written_bytes",
    )

    def __init__(self) -> None:
        self.writes = 0
        self.created = 0
        self.conflicts = 0
        self.written_bytes = 0
        self.answered = 0
        self.commits = Timing()
        self.ticks = Timing()
        self.auth = {"ok": 0}
        self.resumes = {"delta": 0, "full": 0, "rolled_back": 0}

    def count(self, outcome: Outcome) -> None:
        """Take one outcome into account. O(keys changed)."""
        self.answered += 1
        if outcome.status is Status.CONFLICT:
            self.conflicts += 1
        elif outcome.status is Status.OK and outcome.version != outcome.prev_version:
            self.writes += 1
            self.created += outcome.created
            self.written_bytes += sum(map(len, outcome.sets))

    def count_auth(self, result: str = "ok") -> None:
        """An AUTH, first or repeated, was answered."""
        self.auth[result] = self.auth.get(result, 0) + 1

    def count_resume(self, delta: bool, reason: str) -> None:
        """A returning device received a delta or a whole state, for this reason."""
        kind = "rolled_back" if reason in ("epoch", "rolled_back") else "delta" if delta else "full"
        self.resumes[kind] += 1
