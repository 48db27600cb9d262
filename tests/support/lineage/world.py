"""The world of the lineage model: one session, one Redis, two nodes, two clients, and its rules.

Everything is an immutable tuple, so that a whole world can be a member of a set. Every write has a
name of its own, and the state of the session is the tuple of its writes: nothing heals by being
overwritten. `changes.py` says what may happen, `search.py` looks at all of it.
"""

from enum import Enum
from typing import NamedTuple

NODES = (0, 1)
CLIENTS = (0, 1)


class Naming(Enum):
    """What represents a version in a comparison."""

    NUMBER = "epoch and number, as in format 1"
    NONCE = "number and the random number of its write, without the version before"
    CHAIN = "a token chained to the one before: as good as the whole history"


class Rules(NamedTuple):
    """The rules of decision record 9; each may be taken away.

    Attributes:
        naming: see `Naming`.
        format_1: the node's rules of format 1: an older number is seen, a read of it is no news.
        compare_on_bus: compare sessions once more when the bus is subscribed anew (rule 5).
        hold: commits wait while a read is under way (rule 2).
        reckon: who joins or is reset compares its sequence with the store's.
        reckon_after_break: a comparison after a break reads the writers' sequences (rule 6).
        gaps: a sequence number that is not the next is refused.
    """

    naming: Naming = Naming.CHAIN
    format_1: bool = False
    compare_on_bus: bool = True
    hold: bool = True
    reckon: bool = True
    reckon_after_break: bool = True
    gaps: bool = True


FORMAT_1 = Rules(Naming.NUMBER, format_1=True, hold=False, reckon=False, gaps=False)


class Write(NamedTuple):
    """One write. `nonce` is drawn by the node that sends it; sent again, it stays the same."""

    name: str
    maker: int
    seq: int
    nonce: int


State = tuple[Write, ...]


class Redis(NamedTuple):
    """The log of what Redis did: writes, and the numbers of nodes that registered."""

    log: tuple[Write | int, ...] = ()
    nonce: int = 0

    @property
    def state(self) -> State:
        """The writes, oldest first."""
        return tuple(entry for entry in self.log if isinstance(entry, Write))


class Commit(NamedTuple):
    """A write and the state that it was made on."""

    base: State
    write: Write

    @property
    def after(self) -> State:
        """The state with the write."""
        return (*self.base, self.write)


class Answer(NamedTuple):
    """An answer of the command connection.

    Attributes:
        kind: `done`, `duplicate`, `gap`, `at` (a comparison), `read` or `hello`.
        state: of Redis then; of `done`, before the write.
        client, write: whose request, and which write.
        known: Redis could verify the place that was asked from.
        base: of `read`, that place.
        after_break: of `at`, why it was asked.
    """

    kind: str
    state: State
    client: int = 0
    write: Write | None = None
    known: bool = False
    base: State = ()
    after_break: bool = False


class Node(NamedTuple):
    """One node. All clients that joined here hold its replica `doc`.

    Attributes:
        answers, bus: what the two connections still bring, in order.
        cut: the command connection is gone. deaf: the bus is; what it has received still comes.
        reading: a read is under way. held: commits that wait for it.
    """

    doc: State | None = None
    answers: tuple[Answer, ...] = ()
    bus: tuple[Commit, ...] = ()
    cut: bool = False
    deaf: bool = False
    reading: bool = False
    held: tuple[Commit, ...] = ()


class Client(NamedTuple):
    """One device.

    Attributes:
        node: where it is connected. doc: what it shows.
        writing: sent and not answered. acked: acknowledged. lost: reported lost.
        written: number of writes it has made. seq: the last sequence number.
    """

    node: int | None = None
    joined: bool = False
    doc: State = ()
    writing: Write | None = None
    acked: tuple[Write, ...] = ()
    lost: frozenset[str] = frozenset()
    written: int = 0
    seq: int = 0


class Budget(NamedTuple):
    """Remaining events: writes, rollbacks, lost bus messages, node deaths, disconnects."""

    writes: int = 3
    rollbacks: int = 1
    drops: int = 1
    deaths: int = 1
    partings: int = 2


class World(NamedTuple):
    """The complete state at one moment."""

    redis: Redis = Redis()
    nodes: tuple[Node, ...] = (Node(), Node())
    clients: tuple[Client, ...] = (Client(), Client())
    left: Budget = Budget()


class Broken(Exception):
    """An invariant does not hold: its name, and how."""

    def __init__(self, invariant: str, detail: str = "") -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def names(state: State) -> str:
    """A state to be read."""
    return ".".join(write.name for write in state) or "-"
