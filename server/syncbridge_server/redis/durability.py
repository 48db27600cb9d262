"""When a write counts as done: the setting, and whether a server supports it.

`memory`: the primary has it. `fsync`: its append-only file has it on disk. `replicas:N`: N replicas
have it in memory, too.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

MOST_REPLICAS = 8
CODE = "DURABILITY"
"""Part of the reason when this alone refuses a write or leaves its outcome open."""
_REPLICAS = re.compile(r"replicas:(\d{1,3})")


class Durability(NamedTuple):
    """One of the three: neither is set for `memory`, never both.

    Attributes:
        fsync: the append-only file is synchronized before a write is answered.
        replicas: how many must have a write before it is acknowledged.
    """

    fsync: bool = False
    replicas: int = 0

    @classmethod
    def parse(cls, text: str) -> "Durability":
        """`memory`, `fsync` or `replicas:N`. Raises ValueError."""
        found = _REPLICAS.fullmatch(text)
        if found and 1 <= int(found[1]) <= MOST_REPLICAS:
            return cls(replicas=int(found[1]))
        if text not in ("memory", "fsync"):
            raise ValueError(f"write memory, fsync or replicas:N, with N from 1 to {MOST_REPLICAS}")
        return cls(fsync=text == "fsync")


MEMORY = Durability()


def lacking_replicas(replication: Mapping[str, str], wanted: int) -> str:
    """What a primary lacks by its `INFO replication`, as one sentence; "" for nothing."""
    online = online_replicas(replication)
    if online >= wanted:
        return ""
    return f"replicas:{wanted} is set, and {online} replicas are connected"


def online_replicas(replication: Mapping[str, str]) -> int:
    """Replicas of a primary that are in step, by its `INFO replication`."""
    names = (f"slave{at}" for at in range(int(replication.get("connected_slaves", 0))))
    return sum("state=online" in replication.get(name, "") for name in names)


def lacking_fsync(settings: Mapping[str, str]) -> str:
    """What a server lacks by `CONFIG GET appendonly appendfsync`, as one sentence; "" for nothing.

    Empty settings mean that the server refused to show them.
    """
    wanted = {"appendonly": "yes", "appendfsync": "always"}
    if not settings:
        return "fsync is set, and CONFIG GET is refused, which tells whether Redis does it"
    for name, value in wanted.items():
        if settings.get(name) != value:
            found = settings.get(name, "unknown")
            return f"fsync is set, and Redis has {name} {found} in place of {value}"
    return ""
