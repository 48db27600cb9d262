"""What each operation does to a value, as far as the client can know before the server has said.

The server's answer carries results, never operations, so these rules only make the wait invisible.
Where the outcome cannot be told the value stays as it is.
"""

from collections.abc import Callable
from typing import Any

from syncbridge_client.values import MISSING, merge_patch, same

INT64 = range(-(2**63), 2**63)


class Edit:
    """One operation on one key. `value` is MISSING for DELETE; `expected` belongs to CAS."""

    __slots__ = ("expected", "operation", "value")

    def __init__(self, operation: str, value: Any = MISSING, expected: Any = MISSING) -> None:
        self.operation = operation
        self.value = value
        self.expected = expected

    def __repr__(self) -> str:
        return f"Edit({self.operation!r}, {self.value!r})"

    def on(self, base: Any) -> Any:
        """The value after the edit; `base` and the answer are MISSING when the key is not there."""
        return EFFECTS[self.operation](base, self)


def _integer(value: Any) -> bool:
    return type(value) is int


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _incr(base: Any, edit: Edit) -> Any:
    start = 0 if base is MISSING else base
    if _integer(start) and _integer(edit.value) and start + edit.value in INT64:
        return start + edit.value
    return base


def _append(base: Any, edit: Edit) -> Any:
    if base is MISSING:
        return [edit.value]
    return [*base, edit.value] if isinstance(base, list) else base


def _extreme(choose: Callable[[Any, Any], Any]) -> Callable[[Any, Edit], Any]:
    def effect(base: Any, edit: Edit) -> Any:
        if base is MISSING:
            return edit.value
        if _number(base) and _number(edit.value):
            return choose(base, edit.value)
        return base

    return effect


def _merge(base: Any, edit: Edit) -> Any:
    return merge_patch(None if base is MISSING else base, edit.value)


def _cas(base: Any, edit: Edit) -> Any:
    return edit.value if same(base, edit.expected) else base


EFFECTS: dict[str, Callable[[Any, Edit], Any]] = {
    "SET": lambda base, edit: edit.value,
    "DELETE": lambda base, edit: MISSING,
    "INCR": _incr,
    "APPEND": _append,
    "MERGE": _merge,
    "MAX": _extreme(max),
    "MIN": _extreme(min),
    "SETNX": lambda base, edit: edit.value if base is MISSING else base,
    "CAS": _cas,
}
