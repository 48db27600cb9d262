"""What devices write: few hot keys, all kinds of updates, and values that are never used twice.

As no value comes twice, whoever reads one knows which write made it, and hardly a write changes
nothing. Lists and counters are only ever appended to and added to, so that the final state alone
tells whether something was lost or done twice.
"""

from dataclasses import dataclass, field
from typing import Any

import trio

from support.history.client import Client

HOT = [f"hot{n}" for n in range(8)]
PLANS = [f"plan{n}" for n in range(3)]
LIST_LENGTH = 40
"""Elements after which appending goes on in another list: a list travels whole."""


@dataclass
class Workload:
    """`operations` writes, shared out among whoever asks; who comes first is served first.

    Attributes:
        ceiling: only so many for now; see `raise_ceiling`.
        counts: how many of each kind there were.
    """

    operations: int
    ceiling: int = 0
    issued: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    _appended: int = 0
    _raised: trio.Event = field(default_factory=trio.Event)
    _given: trio.Event = field(default_factory=trio.Event)

    async def reached(self, part: float) -> None:
        """Wait until a part of all writes has been given out."""
        while self.issued < part * self.operations:
            await self._given.wait()

    def raise_ceiling(self, part: float) -> None:
        """Let writes go on, up to a part of all."""
        self.ceiling = min(self.operations, round(part * self.operations))
        self._raised.set()
        self._raised = trio.Event()

    async def next(self, client: Client) -> dict[str, Any] | None:
        """The payload of one more write; None when all are given out."""
        while self.issued >= self.ceiling:
            if self.issued >= self.operations:
                return None
            await self._raised.wait()
        self.issued += 1
        self._given.set()
        self._given = trio.Event()
        kinds = [*KINDS]
        kind = client.random.choices(kinds, [KINDS[k] for k in kinds])[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        payload: dict[str, Any] = getattr(self, f"_{kind}")(client, f"v{self.issued}")
        return payload

    def _set(self, client: Client, value: str) -> dict[str, Any]:
        return {"key": client.random.choice(HOT), "value": value}

    def _guarded(self, client: Client, value: str) -> dict[str, Any]:
        base = max(0, client.stream.version - client.random.choice([0, 0, 0, 3, 20]))
        known = base == client.stream.version and client.stream.lineage
        lineage = {"base_lineage": client.stream.lineage} if known else {}
        return {**self._set(client, value), "base_version": base, **lineage}

    def _several(self, client: Client, value: str) -> dict[str, Any]:
        keys = client.random.sample(HOT, 4)
        cut = client.random.randint(1, 3)
        changes = {key: {"of": value, "at": n} for n, key in enumerate(keys[:cut])}
        return {"changes": changes, "deleted_keys": keys[cut:]}

    def _guarded_several(self, client: Client, value: str) -> dict[str, Any]:
        lineage = {"base_lineage": client.stream.lineage} if client.stream.lineage else {}
        base = {"base_version": client.stream.version, **lineage}
        return {**self._several(client, value), **base}

    def _delete(self, client: Client, value: str) -> dict[str, Any]:
        return {"key": client.random.choice(HOT), "operation": "DELETE"}

    def _incr(self, client: Client, value: str) -> dict[str, Any]:
        key = f"sum{client.random.randrange(3)}"
        return {"key": key, "operation": "INCR", "value": client.random.randint(1, 9)}

    def _append(self, client: Client, value: str) -> dict[str, Any]:
        self._appended += 1
        key = f"list{self._appended // LIST_LENGTH}"
        return {"key": key, "operation": "APPEND", "value": value}

    def _cas(self, client: Client, value: str) -> dict[str, Any]:
        key = client.random.choice(["cas0", "cas1"])
        payload = {"key": key, "operation": "CAS", "value": value}
        if key in client.stream.copy:
            payload["expected"] = client.stream.copy[key]
        return payload

    def _setnx(self, client: Client, value: str) -> dict[str, Any]:
        key = f"once{self.issued // 100}"
        return {"key": key, "operation": "SETNX", "value": value}

    def _max(self, client: Client, value: str) -> dict[str, Any]:
        most = self.issued + client.random.randint(-40, 40)
        return {"key": "most", "operation": "MAX", "value": most}

    def _merge(self, client: Client, value: str) -> dict[str, Any]:
        name = client.random.choice("abcd")
        patch = {name: value, client.random.choice("efgh"): None}
        return {"key": client.random.choice(PLANS), "operation": "MERGE", "value": patch}


KINDS = {
    "set": 30,
    "guarded": 14,
    "several": 12,
    "guarded_several": 6,
    "delete": 8,
    "incr": 10,
    "append": 8,
    "cas": 5,
    "setnx": 2,
    "max": 2,
    "merge": 3,
}
