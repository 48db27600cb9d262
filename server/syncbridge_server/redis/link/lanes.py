"""Commands of a slot that Redis has not executed, and those behind them.

Theory of operation. While a slot moves between servers, or a script is missing, a command answers
MOVED, ASK, TRYAGAIN, CLUSTERDOWN or NOSCRIPT: nothing was done. Those behind it are under way
already, and may succeed. Were each that failed simply sent again, a client's writes would change
places: 236 times in 239 moves of a slot, measured.

So at its first failure a lane is opened. What comes later is parked; what was sent is awaited. If a
later one of the same key was done, the earlier ones are not sent any more: they are told that
nothing was done.
The others go again in order: the first alone, because only its answer shows whether the way is
right; the rest behind it, together; and then what was parked. It begins anew when one fails again,
after a pause of 1, 2, 4 ... 50 ms where time helps, until the job's time is over.

A lane also stays closed while the map of slots has a new server for it and the old one still owes
answers.
"""

from collections import deque
from collections.abc import Callable, Iterator

from syncbridge_server.redis.link.pipeline import PendingCommand
from syncbridge_server.redis.link.urls import Address

NOT_DONE = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "NOSCRIPT"})
NEEDS_TIME = frozenset({"TRYAGAIN", "CLUSTERDOWN"})
PAUSE_SECONDS = (0.001, 0.05)
TRIES_WITHOUT_PAUSE = 1


class BlockedLane:
    """A lane in which a command was not executed.

    Attributes:
        waiting: sent commands without an answer.
        failed: not executed, to be repeated, in order. parked: later ones, in order. alone: the
            first failed one has been sent alone.
        resume: seconds of the clock at which to go on, once nothing is waited for.
        code: of the last failure.
        asked: server that ASK named for the first that failed; None for the slot's owner. It says
            nothing about other keys, which may still be where they were.
        proven: the first that failed was done now.
    """

    __slots__ = (
        "alone",
        "asked",
        "code",
        "failed",
        "parked",
        "pause",
        "proven",
        "resume",
        "waiting",
    )

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.failed: deque[PendingCommand] = deque()
        self.parked: deque[PendingCommand] = deque()
        self.alone = False
        self.proven = False
        self.resume = 0.0
        self.pause = 0.0
        self.code = ""
        self.asked: Address | None = None

    def fail(self, item: PendingCommand, code: str, asked: Address | None, now: float) -> None:
        """A command was answered with one of `NOT_DONE`; `asked` is where ASK sends it."""
        item.tries += 1
        self.code, self.proven = code, False
        self.again(item)
        if self.failed[0] is item:
            self.asked = asked
        at_once = code == "ASK" or (item.tries <= TRIES_WITHOUT_PAUSE and code not in NEEDS_TIME)
        shortest, longest = PAUSE_SECONDS
        self.pause = 0.0 if at_once else min(max(2 * self.pause, shortest), longest)
        self.resume = now + self.pause

    def settled(self, item: PendingCommand, *, done: bool) -> list[PendingCommand]:
        """A command was answered. Returns earlier commands that must no longer be sent."""
        self.waiting -= 1
        if self.alone:
            self.alone = False
            self.proven = done
            self.pause = 0.0
            return []
        if not done:
            return []
        key = item.command.key
        overtaken = [failed for failed in self.failed if failed.command.key == key]
        if overtaken:
            self._keep(lambda failed: failed.command.key != key)
        return overtaken

    def again(self, item: PendingCommand) -> None:
        """A command's connection broke; it is sent a second time, or was never sent."""
        self.waiting -= 1
        if self.alone:
            self.alone = False
            self.failed.appendleft(item)
        else:
            self.failed.append(item)

    def first(self, item: PendingCommand) -> None:
        """What was done before all of these, but perhaps for nothing, is sent again before them."""
        self.failed.appendleft(item)
        self.asked, self.proven = None, False

    @property
    def passable(self) -> bool:
        """Whether the rest may go its usual way together: the slot's owner did what it was sent."""
        return not self.failed or (self.proven and self.code in ("MOVED", "NOSCRIPT"))

    def take_first(self) -> PendingCommand:
        """The first failed command, which is sent alone."""
        self.alone, self.waiting, self.asked = True, 1, None
        return self.failed.popleft()

    def _keep(self, stays: Callable[[PendingCommand], bool]) -> None:
        self.failed = deque(filter(stays, self.failed))
        self.asked = None  # that was for the one that was first

    def expired(self, now: float) -> list[PendingCommand]:
        """Remove the commands that must no longer be sent."""
        late = [item for item in (*self.failed, *self.parked) if item.job.expires <= now]
        if late:
            self._keep(lambda item: item.job.expires > now)
            self.parked = deque(item for item in self.parked if item.job.expires > now)
        return late

    def due(self) -> Iterator[float]:
        """When to look at this lane again; nothing while only an answer can change anything."""
        for waits in (self.failed, self.parked):
            if waits:
                yield waits[0].job.expires
        if not self.waiting:
            yield self.resume
