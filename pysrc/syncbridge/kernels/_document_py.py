"""JSON documents as bytes, in plain Python: the twin of syncbridge_core.document.

Same names, same results, same error codes, checked by one test suite; the compiled kernel is
fuzzed against this one. Here a document is a dict of raw key -> compact value, rendered when asked.
Use it where there is no compiler (`SYNCBRIDGE_PURE_PYTHON=1`) and to read what the kernel does.
"""

from collections.abc import Iterator, Sequence

from syncbridge.kernels._canonical_py import canonical
from syncbridge.kernels._json_py import (
    DEFAULT_LIMITS,
    MAX_TEXT,
    DocumentError,
    DocumentLimits,
    Scanner,
    escape,
    quote,
)

__all__ = [
    "DEFAULT_LIMITS",
    "Doc",
    "DocumentError",
    "DocumentLimits",
    "Split",
    "compact",
    "quote",
    "render_pairs",
    "split",
]

MAX_TOMBSTONES = 256
MAX_VERSION = 2**64 - 1


class Split:
    """A validated object taken apart: keys unescaped, values compact."""

    __slots__ = ("_members", "_text")

    def __init__(self) -> None:
        self._members: dict[bytes, bytes] = {}
        self._text = b"{}"

    @property
    def nbytes(self) -> int:
        """Length of `render()`."""
        return len(self._text)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: bytes, /) -> bool:
        return key in self._members

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._members))

    def get(self, key: bytes) -> bytes | None:
        """The compact value, or None."""
        return self._members.get(key)

    def items(self) -> list[tuple[bytes, bytes]]:
        """`[(key, value), ...]` in the order of the text."""
        return list(self._members.items())

    def flat(self) -> list[bytes]:
        """`[key, value, key, value, ...]`, ready for HSET."""
        return [part for pair in self._members.items() for part in pair]

    def render(self) -> bytes:
        """The object as compact JSON."""
        return self._text


def split(data: bytes | memoryview, limits: DocumentLimits = DEFAULT_LIMITS) -> Split:
    """Validate one JSON object and take it apart. O(len(data)).

    Raises DocumentError for bytes that are not I-JSON, exceed `limits`, or are not an object.
    """
    scanner = Scanner(bytes(memoryview(data)), limits, split=True)
    members = Split()
    members._text = scanner.scan()
    members._members = scanner.members
    return members


def compact(data: bytes | memoryview, limits: DocumentLimits = DEFAULT_LIMITS) -> bytes:
    """Validate one JSON value of any type and return it without insignificant whitespace.

    `max_value_bytes` bounds the result, `max_bytes` the input. Raises DocumentError.
    """
    text = Scanner(bytes(memoryview(data)), limits, split=False).scan()
    if len(text) > limits.max_value_bytes:
        raise DocumentError("too_large", 413, "value is too large")
    return text


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """`[key, value, ...]` as pairs. TypeError unless all are bytes, ValueError if one is left."""
    _check_bytes(flat)
    if len(flat) % 2:
        raise ValueError("a flat list of keys and values has an even length")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _check_bytes(items: Sequence[bytes]) -> None:
    for item in items:
        if not isinstance(item, bytes):
            raise TypeError(f"bytes are expected, got {type(item).__name__}")


def _object(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"{" + b",".join([quote(key) + b":" + value for key, value in pairs]) + b"}"


def render_pairs(flat: Sequence[bytes]) -> bytes:
    """`[key, value, ...]` (an HGETALL reply) as one compact JSON object; values are trusted."""
    return _object(_pairs(flat))


class Doc:
    """A node's replica of one session's document, with the version at which each key changed.

    `version` and `epoch` are those of the last commit applied. Raises OverflowError for a version
    outside 0 .. 2^64 - 1.
    """

    __slots__ = ("_floor", "_members", "_rendered", "_tombstones", "_versions", "epoch", "version")

    def __init__(self, version: int = 0, epoch: str = "") -> None:
        if not 0 <= version <= MAX_VERSION:
            raise OverflowError("version is out of range")
        self.version = version
        self.epoch = epoch
        self._floor = version
        self._members: dict[bytes, bytes] = {}
        self._versions: dict[bytes, int] = {}
        self._tombstones: dict[bytes, int] = {}
        self._rendered: bytes | None = None

    @staticmethod
    def from_flat(flat: Sequence[bytes], version: int, epoch: str) -> "Doc":
        """Replica from an HGETALL reply. Changes before `version` are unknown to `since`.

        Values are trusted to be JSON. Of a key that occurs twice the last value stays. O(size).
        """
        doc = Doc(version, epoch)
        doc._members = dict(_pairs(flat))
        doc._versions = dict.fromkeys(doc._members, version)
        return doc

    @property
    def nbytes(self) -> int:
        """Length of `render()`; with keys that are not UTF-8, before their replacement."""
        sizes = [len(escape(key)) + len(value) + 4 for key, value in self._members.items()]
        return max(sum(sizes) + 1, 2)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: bytes, /) -> bool:
        return key in self._members

    def get(self, key: bytes) -> bytes | None:
        """The compact value, or None. O(1)."""
        return self._members.get(key)

    def items(self) -> list[tuple[bytes, bytes]]:
        """`[(key, value), ...]` in the order in which the keys first came."""
        return list(self._members.items())

    def apply(
        self, sets: Sequence[bytes], deletes: Sequence[bytes], prev_version: int, version: int
    ) -> bool:
        """Splice a commit in; `sets` is flat `[key, value, ...]`. True if it was applied.

        False, and nothing done, when `prev_version` is not this replica's version (a gap) or
        `version` is not above it. Deletes come before sets; a delete of an absent key is ignored.
        Raises DocumentError `too_large` above 2 GiB, OverflowError for a version above 2^64 - 1.
        """
        pairs = _pairs(sets)
        _check_bytes(deletes)
        if prev_version != self.version or version <= prev_version:
            return False
        if version > MAX_VERSION:
            raise OverflowError("version is out of range")
        if self.nbytes + sum(map(len, sets)) > MAX_TEXT:
            raise DocumentError("too_large", 413, "document is too large")
        for key in deletes:
            self._remove(key, version)
        for key, value in pairs:
            self._tombstones.pop(key, None)
            self._members[key] = value
            self._versions[key] = version
        self._rendered = None
        self.version = version
        return True

    def _remove(self, key: bytes, version: int) -> None:
        if self._members.pop(key, None) is None:
            return
        del self._versions[key]
        self._tombstones[key] = version
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._floor = self._tombstones.pop(next(iter(self._tombstones)))

    def render(self) -> bytes:
        """The whole document as compact JSON; cached until the next change."""
        if self._rendered is None:
            self._rendered = _object(self.items())
        return self._rendered

    def since(self, version: int) -> tuple[bytes, bytes] | None:
        """`(changes object, deleted keys array)` as JSON text, or None when not known that far.

        Known are the versions from the oldest that tombstones reach back to, up to this one.
        O(keys) plus the size of the answer.
        """
        if not self._floor <= version <= self.version:
            return None
        changes = [pair for pair in self.items() if self._versions[pair[0]] > version]
        deleted = [quote(key) for key, gone in self._tombstones.items() if gone > version]
        return _object(changes), b"[" + b",".join(deleted) + b"]"

    def diff(self, target: Split) -> tuple[list[bytes], list[bytes]]:
        """`(flat sets, deletes)` that turn this document into `target`.

        Equal values drop, however they are spelled. Sets come in the order of `target`, deletes in
        the order of this document.
        """
        sets = []
        for key, value in target.items():
            mine = self._members.get(key)
            if mine is None or (mine != value and canonical(mine) != canonical(value)):
                sets += [key, value]
        return sets, [key for key in self._members if key not in target]
