"""A model of a session in plain Python: the reference for the scripts.

It is written for clarity and shares nothing with the scripts but the rules: a map of values, the
version at which each key changed last (deleted keys too), and a counter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from support.contract.operations_model import outcome_of
from syncbridge.records.sessions import Apply, Mode, Operation, Status

Texts = dict[bytes, bytes]


@dataclass
class Result:
    """The expected answer of a write; `sets` and `deletes` are the effective changes."""

    status: Status
    version: int
    prev_version: int
    sets: Texts = field(default_factory=dict)
    deletes: set[bytes] = field(default_factory=set)
    conflicts: Texts = field(default_factory=dict)
    created: bool = False
    result: bytes = b""


@dataclass
class Session:
    """One session. `tombstones`: how many deleted keys are remembered."""

    tombstones: int = 256
    max_bytes: int = 1_048_576
    max_keys: int = 2_000
    max_value: int = 262_144
    version: int = 0
    floor: int = 0
    values: Texts = field(default_factory=dict)
    changed: dict[bytes, int] = field(default_factory=dict)
    done: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        return self.version > 0

    def apply(self, request: Apply) -> Result:
        """The write, in the order in which the rules are stated."""
        if not self.exists and not request.create:
            return Result(Status.NOT_FOUND, 0, 0)
        mutation = (request.device_id, request.mutation_id)
        if request.mutation_id and mutation in self.done:
            return Result(Status.DUPLICATE, self.done[mutation], self.done[mutation])
        if request.base_version > self.version:
            return self._same(Status.AHEAD)
        wanted = self._wanted(request)
        key, result = b"", b""
        if request.operation is not Operation.SET:
            key, operand = request.sets
            before = self.values.get(key)
            value = self._operate(request, before, operand)
            if isinstance(value, Status):
                shown = before or b""
                return self._same(
                    value, {key: shown if value is Status.PRECONDITION else shown[:64]}
                )
            wanted, result = {key: value}, value
        conflicts = self._conflicts(wanted, request)
        stale = request.mode is Mode.WHOLE and 0 <= request.base_version < self.version
        if request.mode is not Mode.YIELD and (stale or conflicts):
            return self._same(Status.CONFLICT, conflicts)
        effective = {
            key: value
            for key, value in wanted.items()
            if key not in conflicts and not self._equal(self.values.get(key), value)
        }
        refused = self._over(effective)
        if refused is not None:
            return self._same(refused)
        done = self._commit(request, effective, conflicts)
        # Where the operation gave way, the value that stands.
        done.result = self.values.get(key, b"") if result and key in conflicts else result
        return done

    def _operate(self, request: Apply, before: bytes | None, operand: bytes) -> bytes | Status:
        return outcome_of(request.operation, before, operand, request.expected, self.max_value)

    def _equal(self, before: bytes | None, after: bytes | None) -> bool:
        return before == after

    def _wanted(self, request: Apply) -> dict[bytes, bytes | None]:
        pairs = zip(request.sets[::2], request.sets[1::2], strict=True)
        wanted: dict[bytes, bytes | None] = dict(pairs)
        gone: Iterable[bytes] = self.values if request.replace else request.deletes
        for key in gone:
            wanted.setdefault(key, None)
        return wanted

    def _conflicts(self, wanted: dict[bytes, bytes | None], request: Apply) -> Texts:
        base = request.base_version
        if request.mode is Mode.OVERWRITE or base < 0 or base == self.version:
            return {}
        return {
            key: self.values.get(key, b"")
            for key in wanted
            if (self.changed[key] > base if key in self.changed else base < self.floor)
        }

    def _over(self, effective: dict[bytes, bytes | None]) -> Status | None:
        after = self._after(effective)
        before_bytes, after_bytes = _size(self.values), _size(after)
        if after_bytes > self.max_bytes and after_bytes > before_bytes:
            return Status.TOO_LARGE
        if len(after) > self.max_keys and len(after) > len(self.values):
            return Status.TOO_MANY_KEYS
        return None

    def _after(self, effective: dict[bytes, bytes | None]) -> Texts:
        merged = self.values | effective
        return {key: value for key, value in merged.items() if value is not None}

    def _commit(
        self, request: Apply, effective: dict[bytes, bytes | None], conflicts: Texts
    ) -> Result:
        before, created = self.version, not self.exists
        if effective or created:
            self.version += 1
        if request.mutation_id:
            self.done[request.device_id, request.mutation_id] = self.version
        self.values = self._after(effective)
        self.changed.update(dict.fromkeys(effective, self.version))
        self._forget_tombstones()
        return Result(
            Status.OK,
            self.version,
            before,
            {key: value for key, value in effective.items() if value is not None},
            {key for key, value in effective.items() if value is None},
            conflicts,
            created,
        )

    def _forget_tombstones(self) -> None:
        dead = sorted((at, key) for key, at in self.changed.items() if key not in self.values)
        if len(dead) > self.tombstones:
            for at, key in dead[: len(dead) - self.tombstones // 2]:
                del self.changed[key]
                self.floor = at

    def since(self, version: int) -> tuple[Texts, set[bytes]] | None:
        """What changed after a version, or None when that is no longer known."""
        if not self.floor <= version <= self.version:
            return None
        keys = [key for key, at in self.changed.items() if at > version]
        return (
            {key: self.values[key] for key in keys if key in self.values},
            {key for key in keys if key not in self.values},
        )

    def _same(self, status: Status, conflicts: Texts | None = None) -> Result:
        return Result(status, self.version, self.version, conflicts=conflicts or {})


def _size(values: Texts) -> int:
    return sum(len(key) + len(value) for key, value in values.items())
