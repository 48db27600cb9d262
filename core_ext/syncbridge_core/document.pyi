"""JSON documents as bytes: validate, split, splice, render, diff. See document.pyx.

A document is an ordered map of unescaped UTF-8 key -> compact JSON text of the value. Input is
held to I-JSON (RFC 7493) with limits. Keys are `bytes` of UTF-8 everywhere in this interface.
"""

from collections.abc import Iterator, Sequence
from typing import Self, final

class DocumentError(ValueError):
    """Input that is not acceptable. `code` is a catalogue code, `status` an HTTP status hint."""

    code: str
    status: int
    where: str
    def __init__(self, code: str, status: int, message: str, where: str = "") -> None: ...

@final
class DocumentLimits:
    """Bounds for one document. Sizes in bytes."""

    max_bytes: int
    max_keys: int
    max_key_bytes: int
    max_value_bytes: int
    max_depth: int
    max_number_bytes: int
    def __new__(
        cls,
        *,
        max_bytes: int = 1048576,
        max_keys: int = 2000,
        max_key_bytes: int = 256,
        max_value_bytes: int = 262144,
        max_depth: int = 64,
        max_number_bytes: int = 64,
    ) -> Self: ...

DEFAULT_LIMITS: DocumentLimits

@final
class Split:
    """A validated object taken apart: keys unescaped, values compact."""

    nbytes: int
    def __len__(self) -> int: ...
    def __contains__(self, key: bytes, /) -> bool: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def get(self, key: bytes) -> bytes | None: ...
    def items(self) -> list[tuple[bytes, bytes]]: ...
    def flat(self) -> list[bytes]:
        """`[key, value, key, value, ...]`, ready for HSET."""

    def render(self) -> bytes:
        """The object as compact JSON."""

def split(data: bytes | memoryview, limits: DocumentLimits = ...) -> Split:
    """Validate one JSON object and take it apart. O(len(data))."""

def compact(data: bytes | memoryview, limits: DocumentLimits = ...) -> bytes:
    """Validate one JSON value of any type and return it without insignificant whitespace."""

def quote(text: bytes) -> bytes:
    """UTF-8 bytes as a JSON string, quotes included."""

def render_pairs(flat: Sequence[bytes]) -> bytes:
    """`[key, value, ...]` (an HGETALL reply) as one compact JSON object; values are trusted."""

@final
class Doc:
    """A node's replica of one session's document, with the version at which each key changed."""

    version: int
    epoch: str
    nbytes: int
    def __new__(cls, version: int = 0, epoch: str = "") -> Self: ...
    @staticmethod
    def from_flat(flat: Sequence[bytes], version: int, epoch: str) -> Doc:
        """Replica from an HGETALL reply. Changes before `version` are unknown to `since`."""

    def __len__(self) -> int: ...
    def __contains__(self, key: bytes, /) -> bool: ...
    def get(self, key: bytes) -> bytes | None: ...
    def items(self) -> list[tuple[bytes, bytes]]: ...
    def apply(
        self, sets: Sequence[bytes], deletes: Sequence[bytes], prev_version: int, version: int
    ) -> bool:
        """Splice a commit in; `sets` is flat `[key, value, ...]`.

        False, and nothing done, when `prev_version` is not this replica's version (a gap).
        """

    def render(self) -> bytes:
        """The whole document as compact JSON; cached until the next change."""

    def since(self, version: int) -> tuple[bytes, bytes] | None:
        """`(changes object, deleted keys array)` as JSON text, or None when not known that far."""

    def diff(self, target: Split) -> tuple[list[bytes], list[bytes]]:
        """`(flat sets, deletes)` that turn this document into `target`; equal values drop."""
