"""What one STATE_UPDATE must do to a state, by docs/protocol.md and nothing else."""

from collections.abc import Callable, Iterable
from typing import Any

from support.history.records import ABSENT, State

Get = Callable[[str], Any]

COMMUTING = frozenset({"INCR", "APPEND", "MAX", "MIN"})
"""Operations to which `base_version` means nothing."""


class Refusal(Exception):
    """The update must be refused, with this code and these values in its way."""

    def __init__(self, code: str, conflicts: State) -> None:
        super().__init__(code)
        self.code = code
        self.conflicts = conflicts


def keys_of(payload: dict[str, Any]) -> list[str]:
    """The keys that an update names."""
    if "key" in payload:
        return [payload["key"]]
    return [*payload.get("changes", {}), *payload.get("deleted_keys", [])]


def effect(payload: dict[str, Any], get: Get, changed_at: Callable[[str], int]) -> State:
    """What changes: keys to new values or ABSENT; empty when nothing does.

    Args:
        get: value of a key before, or ABSENT.
        changed_at: version at which a key was set or deleted last, 0 for never.

    Raises:
        Refusal: when it must not be done.
    """
    operation, base = payload.get("operation", "SET"), payload.get("base_version")
    wanted = _wanted(payload, operation, get)
    if base is not None and operation not in COMMUTING:
        newer = {k: get(k) for k in keys_of(payload) if changed_at(k) > base}
        if newer:
            raise Refusal("version_conflict", newer)
    return {key: value for key, value in wanted.items() if not same(value, get(key))}


def same(a: Any, b: Any) -> bool:
    """Equal as JSON."""
    return type(a) is type(b) and bool(a == b)


def _wanted(payload: dict[str, Any], operation: str, get: Get) -> State:
    if "key" not in payload:
        deleted: Iterable[str] = payload.get("deleted_keys", [])
        return {**payload.get("changes", {}), **dict.fromkeys(deleted, ABSENT)}
    key = payload["key"]
    return {key: _result(operation, payload, get(key))}


def _result(operation: str, payload: dict[str, Any], before: Any) -> Any:
    key: str = payload["key"]
    operand: Any = payload.get("value")
    match operation:
        case "SET":
            return operand
        case "DELETE":
            return ABSENT
        case "INCR":
            return (0 if before is ABSENT else before) + operand
        case "APPEND":
            return [*([] if before is ABSENT else before), operand]
        case "MAX":
            return operand if before is ABSENT else max(before, operand)
        case "MERGE":
            return merge_patch(before, operand)
        case "SETNX" if before is not ABSENT:
            raise Refusal("precondition_failed", {key: before})
        case "CAS" if not same(before, payload.get("expected", ABSENT)):
            raise Refusal("precondition_failed", {key: before})
        case "SETNX" | "CAS":
            return operand
    raise AssertionError(operation)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
