"""JSON values as the client keeps them: plain Python, copied at the border.

A value that a caller hands in is turned into JSON text and read back. So the client holds what the
server will hold (tuples become lists), later changes of the caller's own object do not reach it,
and what cannot be JSON is refused before it is queued.
"""

import json
from enum import Enum
from typing import Any, Final

import msgspec

from syncbridge_client.errors import InvalidUpdate


class Missing(Enum):
    """The type of `MISSING`: no value, which is not the same as null."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = Missing.MISSING
"""Stands for a key that is not there."""


def to_text(value: Any) -> bytes:
    """A value as compact JSON.

    Raises:
        InvalidUpdate: it is not JSON: NaN, a lone surrogate, an object of another type, a loop.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidUpdate(f"not a JSON value: {error}") from None


def copied(value: Any) -> Any:
    """The value as the other end will read it; raises as `to_text`."""
    if value is None or isinstance(value, bool | int):
        return value
    return msgspec.json.decode(to_text(value))


def check_key(key: Any, most: int) -> None:
    """Refuse a key that no server takes.

    Args:
        key: of the state, or of what a device says of itself. most: bytes in UTF-8.

    Raises:
        InvalidUpdate: it is none.
    """
    size = len(encoded(key)) if isinstance(key, str) else 0
    if not 0 < size <= most:
        raise InvalidUpdate(f"a key is text of 1 to {most} bytes")
    if "\0" in key or key == "__proto__":
        raise InvalidUpdate(f"key {key!r} is reserved")


def encoded(key: str) -> bytes:
    """A key in UTF-8; raises InvalidUpdate for a lone surrogate."""
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise InvalidUpdate(f"not a key: {error}") from None


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON value: 1 is 1.0, but unlike in Python not true."""
    if one is other:
        return True
    if isinstance(one, bool) != isinstance(other, bool) or one != other:
        return False
    if isinstance(one, dict):
        return all(same(item, other[name]) for name, item in one.items())
    return not isinstance(one, list) or all(map(same, one, other))


def merge_patch(target: Any, patch: Any) -> Any:
    """The patched copy of a value (RFC 7396): null removes a member."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), part)
    return merged
