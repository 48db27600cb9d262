"""The model of a session of format 2, on top of `model.py`: places, numbers, equality.

Tokens are made as the rules say, so the model knows each place; streams and ids without a stream
are kept as plain lists; values are compared by their canonical forms.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha1

import msgspec

from support.contract.canonical import imprint, spelling
from support.contract.model import Result, Session
from support.contract.operations_model import outcome_of
from syncbridge.records.sessions import Apply, Operation, Status

BASE_LOST, GAP, UNKNOWN_STREAM = 11, 12, 13
UNKNOWN = b"?"
KEPT_PLACES = 256


@dataclass
class Numbered:
    """A write with what format 2 adds. `stream` is the 11 characters, "" for none."""

    request: Apply
    nonce: bytes
    stream: str = ""
    seq: int = 0
    base_lineage: str = ""


@dataclass
class Told:
    """An answer: the status as a number, the place after it, and the stream's last number."""

    status: int
    version: int
    lineage: str
    before: str = ""
    last: int = 0
    result: Result | None = None


@dataclass
class History(Session):
    """A session with its places.

    Attributes:
        sealed: the writer notes the spelling of what a script could not tell, see `seal.lua`.
        tokens: version -> token. epoch: of the session, "" before it exists.
        streams: device -> [(stream, last number, version then)], newest used first.
        pushed: device -> streams that were pushed out, newest first.
        entries: key -> what stands beside its value.
    """

    sealed: bool = False
    epoch: str = ""
    tokens: dict[int, str] = field(default_factory=dict)
    streams: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    pushed: dict[str, list[str]] = field(default_factory=dict)
    entries: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def lineage(self) -> str:
        """The token of the current version."""
        return self.tokens.get(self.version, "")

    def take(self, write: Numbered) -> Told:
        """One write, in the order in which the rules are stated."""
        request = write.request
        if not self.exists and not request.create:
            return Told(Status.NOT_FOUND, 0, "")
        last, refused = self._number(write)
        if refused is not None:
            return refused
        if write.base_lineage and not self._verified(request.base_version, write.base_lineage):
            return self._told(BASE_LOST, last=last)
        before = self.version
        # With a stream, the id is only passed on to other devices.
        plain = msgspec.structs.replace(request, mutation_id="") if write.seq else request
        result = self.apply(plain)
        if result.status is not Status.OK:
            return self._told(result.status, last=last, result=result)
        if self.version > before:
            self._name(write.nonce)
        self._spell(request, result)
        if write.seq:
            last = write.seq
            self._count(request.device_id, write)
        told = self._told(Status.OK, last=last, result=result)
        if self.version > before:
            told.before = self.tokens.get(before, "-")
        return told

    def answer(self, request: Apply) -> Result:
        """The expected answer of a write without a number; tokens differ from those of the
        store."""
        told = self.take(Numbered(request, b""))
        return told.result or Result(Status(told.status), told.version, told.version)

    def _told(self, status: int, *, last: int = 0, result: Result | None = None) -> Told:
        return Told(int(status), self.version, self.lineage, last=last, result=result)

    def _number(self, write: Numbered) -> tuple[int, Told | None]:
        request = write.request
        if not write.seq:
            key = request.device_id, request.mutation_id
            if request.mutation_id and key in self.done:
                return 0, Told(Status.DUPLICATE, self.done[key], "")
            return 0, None
        known = {name: (last, at) for name, last, at in self.streams.get(request.device_id, [])}
        if write.stream not in known:
            pushed = write.stream in self.pushed.get(request.device_id, [])
            unknown = pushed or write.seq > 1
            return 0, self._told(UNKNOWN_STREAM) if unknown else None
        last, at = known[write.stream]
        if write.seq == last:
            return last, Told(Status.DUPLICATE, at, "", last=last)
        if write.seq < last:
            return last, self._told(Status.DUPLICATE, last=last)
        return last, self._told(GAP, last=last) if write.seq > last + 1 else None

    def _count(self, device: str, write: Numbered) -> None:
        others = [entry for entry in self.streams.get(device, []) if entry[0] != write.stream]
        gone = [name for name, _, _ in others[1:]]
        self.pushed[device] = (gone + self.pushed.get(device, []))[:8]
        self.streams[device] = [(write.stream, write.seq, self.version), *others[:1]]

    def _name(self, nonce: bytes) -> None:
        if not self.epoch:
            self.epoch = sha1(b"epoch" + nonce).hexdigest()[:12]
        before = self.tokens.get(self.version - 1, self.epoch)
        self.tokens[self.version] = sha1(before.encode() + nonce).hexdigest()[:12]

    def _verified(self, version: int, lineage: str) -> bool:
        kept = 0 < version <= self.version and version > self.version - KEPT_PLACES
        return kept and self.tokens[version] == lineage

    def _spell(self, request: Apply, result: Result) -> None:
        appended = request.operation is Operation.APPEND and result.sets
        for key, value in result.sets.items():
            operand = request.sets[1] if appended else value
            unknown = appended and value != b"[" + operand + b"]" and key in self.entries
            unknown = unknown or bool(appended and (spelling(operand) or len(value) > 2048))
            self.entries[key] = UNKNOWN if unknown and not self.sealed else spelling(value)
        for key in result.deletes:
            self.entries.pop(key, None)
        self.entries = {key: entry for key, entry in self.entries.items() if entry}

    def known_imprint(self, key: bytes) -> bytes:
        """The imprint of a stored value as the store can tell it."""
        return self.entries.get(key) or imprint(self.values.get(key))

    def _equal(self, before: bytes | None, after: bytes | None) -> bool:
        if before == after or before is None or after is None:
            return before == after
        unknown = any(
            v == before and self.entries.get(k) == UNKNOWN for k, v in self.values.items()
        )
        return not unknown and imprint(before) == imprint(after)

    def _operate(self, request: Apply, before: bytes | None, operand: bytes) -> bytes | Status:
        expected = request.expected
        if request.operation is Operation.CAS and expected and self._equal(before, expected):
            expected = before or b""
        counted = before
        if request.operation is Operation.INCR and before is not None:
            mark = imprint(before)
            digits = before.lstrip(b"-").isdigit()
            counted = mark[1:] if mark[:1] == b"=" and not digits else before
        found = outcome_of(request.operation, counted, operand, expected, self.max_value)
        if isinstance(found, bytes) and before is not None and self._equal(before, found):
            return before
        return found


def journal(entries: Iterable[bytes]) -> list[tuple[str, dict[bytes, bytes] | None]]:
    """The entries of a journal: token, and key -> imprint before, None where it is not told."""
    found: list[tuple[str, dict[bytes, bytes] | None]] = []
    for entry in entries:
        token, rest = entry[:12].decode(), entry[13:]
        keys: dict[bytes, bytes] | None = None if rest == b"*" else {}
        while rest and keys is not None:
            first, second, rest = rest.split(b" ", 2)
            name = rest[: int(first)]
            end = int(first) + 1 + int(second)
            keys[name] = rest[int(first) + 1 : end]
            rest = rest[end + 1 :]
        found.append((token, keys))
    return found
