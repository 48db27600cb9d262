"""Requests about nodes and the sessions that they hold, and their answers.

docs/decisions/0010-nodes-presence-bus.md has the keys. All but `Sweep` are plain commands: the list
of nodes is short, and a request every ten seconds should be cheap.
"""

from syncbridge.records.sessions import Query, Result

SWEEPING = "sweep"
"""Task of the lease that one node has while it takes devices of dead nodes offline."""


class Renew(Query):
    """Write a node's own entry, another text each time."""

    node: str
    entry: str


class Renewed(Result):
    """Answer to `Renew`. `new`: there was no entry, because it is the first renewal, or the node
    was considered dead."""

    new: bool


class ListNodes(Query):
    """The entries of all nodes; with `dead` those that were declared dead and are being swept."""

    dead: bool = False


class NodeList(Result):
    """Answer to `ListNodes`: node -> entry, or -> when it was declared dead."""

    entries: dict[str, str]


class Condemn(Query):
    """Declare a node dead. `at`: Unix ms, for people to read."""

    node: str
    at: int


class Dismiss(Query):
    """Take a node off the list; with `dead` off that of the dead."""

    node: str
    dead: bool = False


class TakeLease(Query):
    """Have a task that one node at a time does, for `life_ms`."""

    task: str
    node: str
    life_ms: int


class KeepLease(Query):
    """Have it for `life_ms` from now on."""

    task: str
    life_ms: int


class Taken(Result):
    """Answer to `TakeLease` and `KeepLease`."""

    taken: bool


class ListHeld(Query):
    """Some of a node's sessions in a bucket, from a cursor on, which is 0 at first."""

    bucket: int
    node: str
    cursor: int = 0


class Held(Result):
    """Answer to `ListHeld`. `cursor`: to go on with, 0 at the end. One may come twice."""

    sids: list[str]
    cursor: int


class Release(Query):
    """Take a session off a node's list: it cannot be swept."""

    sid: str
    node: str


class Sweep(Query):
    """Take a dead node's devices in a session offline, at most `most`, and tell every node of the
    session.

    `presence_ms`: how long ago they were seen last, at least.
    """

    sid: str
    node: str
    presence_ms: int
    most: int = 256


class Swept(Result):
    """Answer to `Sweep`: how many left, and whether there are more."""

    left: int
    more: bool
