"""Budgets of a user in the store: a number of sessions, and of bytes in all of them.

Theory of operation. A user's data is spread over the store, and no write could read all of it. So
it is estimated from above: the result of the last count, plus everything written since, as if it
replaced nothing. Small users are never counted. A user who has written an eighth of a budget since
the last count, or is refused, is due for the next one, which corrects the estimate. Each node does
this on its own; n nodes let a user exceed a budget by n/8 of it, and by what is written while a
count runs.

The table is bounded: the user whose last write is oldest is dropped and starts again.
"""

from collections import OrderedDict
from collections.abc import Iterable

KEPT = 16_384
SHARE = 8
AGAIN_SECONDS = 5.0
"""Seconds until a refused user is counted again."""

NEVER = 1 << 62
"""More bytes than anybody writes."""

SESSIONS, STORED = "sessions", "stored_bytes"


class Usage:
    """The estimated usage of a user.

    Attributes:
        sessions: those found by the last count, and those charged since. fresh: those charged
            since. stored: bytes found. written: bytes since. pending: bytes before the count under
            way. quiet: up to this many written bytes, no budget is near; 0 until known. counted_at:
            seconds, time of the last request for a count.
    """

    __slots__ = ("counted_at", "fresh", "pending", "quiet", "sessions", "stored", "written")

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.fresh: set[str] = set()
        self.stored = self.written = self.pending = self.quiet = 0
        self.counted_at = float("-inf")


class Budgets:
    """Holds users to their budgets. A budget of 0 means no limit.

    Args:
        sessions: most of them. stored: most bytes of keys and values in all of them.

    Attributes:
        due: users to count, longest due first.
    """

    def __init__(self, sessions: int, stored: int, kept: int = KEPT) -> None:
        self._most = {SESSIONS: sessions, STORED: stored}
        self._kept = kept
        self._users: OrderedDict[str, Usage] = OrderedDict()
        self.due: dict[str, None] = {}

    def charge(self, user_id: str, session_id: str, size: int, now: float) -> str:
        """Charge a write of `size` bytes, or a join with 0; returns the budget that forbids it.

        Args:
            now: seconds of a monotonic clock.

        Returns:
            "" when it was charged. O(1).
        """
        usage = self._users.get(user_id)
        if (
            usage is not None
            and usage.written + size <= usage.quiet
            and session_id in usage.sessions
        ):
            usage.written += size
            self._users.move_to_end(user_id)
            return ""
        return self._weigh(self._usage(user_id), user_id, session_id, size, now)

    def _weigh(self, usage: Usage, user_id: str, session_id: str, size: int, now: float) -> str:
        excess = self._excess(usage, session_id, size)
        if excess:
            if now - usage.counted_at >= AGAIN_SECONDS:
                self._want(user_id, usage, now)
            return excess
        if session_id not in usage.sessions:
            usage.sessions.add(session_id)
            usage.fresh.add(session_id)
        usage.written += size
        if self._is_share(SESSIONS, len(usage.fresh)) or self._is_share(STORED, usage.written):
            self._want(user_id, usage, now)
        usage.quiet = self._quiet(usage)
        return ""

    def most(self, budget: str) -> int:
        """The bound of a budget."""
        return self._most[budget]

    def begin(self, user_id: str) -> None:
        """A count begins: it may miss later charges."""
        usage = self._usage(user_id)
        usage.fresh.clear()
        usage.pending += usage.written
        usage.written = usage.quiet = 0

    def counted(self, user_id: str, sessions: Iterable[str], stored: int) -> None:
        """Apply the result of a count."""
        usage = self._usage(user_id)
        usage.sessions = set(sessions) | usage.fresh
        usage.stored, usage.pending, usage.quiet = stored, 0, 0

    def _usage(self, user_id: str) -> Usage:
        usage = self._users.pop(user_id, None) or Usage()
        self._users[user_id] = usage
        if len(self._users) > self._kept:
            self._users.popitem(last=False)
        return usage

    def _excess(self, usage: Usage, session_id: str, size: int) -> str:
        sessions, stored = self._most[SESSIONS], self._most[STORED]
        if sessions and session_id not in usage.sessions and len(usage.sessions) >= sessions:
            return SESSIONS
        if stored and size and usage.stored + usage.pending + usage.written + size > stored:
            return STORED
        return ""

    def _quiet(self, usage: Usage) -> int:
        """How many bytes may be written before the budgets must be checked again."""
        most = self._most[STORED]
        if self._is_share(SESSIONS, len(usage.fresh)):
            return 0
        if not most:
            return NEVER
        return min(most // SHARE, most - usage.stored - usage.pending)

    def _is_share(self, budget: str, amount: int) -> bool:
        return 0 < self._most[budget] < amount * SHARE

    def _want(self, user_id: str, usage: Usage, now: float) -> None:
        usage.counted_at = now
        if len(self.due) < self._kept:
            self.due[user_id] = None
