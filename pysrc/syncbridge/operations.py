"""The operations on one key, their operands, and the texts of their errors.

A client sends `{key, value, operation}`; `value` is the operand. All but MERGE are executed inside
the script of the write (`ports.Operation`), so no other write comes between reading and writing.
MERGE is computed here and committed as a CAS on the value that it was computed from.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.records.sessions import Apply, Mode, Operation, Outcome, Status

MERGE = "MERGE"

ATOMIC: Mapping[str, Operation] = {
    "INCR": Operation.INCR,
    "APPEND": Operation.APPEND,
    "MAX": Operation.MAX,
    "MIN": Operation.MIN,
    "SETNX": Operation.SETNX,
    "CAS": Operation.CAS,
}
"""Operations by the names that clients use."""

NAMES = ("SET", "DELETE", "INCR", MERGE, *(name for name in ATOMIC if name != "INCR"))

NEED_ID = frozenset({"INCR", "APPEND"})
"""Doing these twice is not doing them once, so a repetition must be recognisable."""

COMMUTING = frozenset({Operation.INCR, Operation.APPEND, Operation.MAX, Operation.MIN})
"""These take whatever value is there, so `base_version` means nothing to them."""

NUMERIC = frozenset({"INCR", "MAX", "MIN"})

_INTEGER = re.compile(rb"-?\d+")
_INT64 = range(-(2**63), 2**63)
_TYPES = {b"[": "array", b"{": "object", b'"': "string", b"t": "boolean", b"f": "boolean"}
_TAKES = {"INCR": "an integer", "MAX": "a number", "MIN": "a number", "APPEND": "an array"}


def json_type(text: bytes) -> str:
    """The JSON type of a compact text, by its first byte."""
    return _TYPES.get(text[:1], "null" if text[:1] == b"n" else "number")


def operand(name: str, value: bytes) -> bytes:
    """The operand of an operation, checked; `value` is compact JSON.

    Raises:
        SyncBridgeError: TYPE_MISMATCH, NOT_AN_INTEGER, OUT_OF_RANGE.
    """
    if name not in NUMERIC:
        return value
    if json_type(value) != "number":
        raise SyncBridgeError(
            ErrorCode.TYPE_MISMATCH,
            f"value: {name} takes {_TAKES[name]}, not {json_type(value)}",
            field="value",
        )
    return _integer(value) if name == "INCR" else value


def _integer(value: bytes) -> bytes:
    if not _INTEGER.fullmatch(value):
        raise SyncBridgeError(
            ErrorCode.NOT_AN_INTEGER,
            "value: INCR takes an integer without fraction or exponent",
            field="value",
        )
    if int(value) not in _INT64:
        raise SyncBridgeError(
            ErrorCode.OUT_OF_RANGE, "value: INCR takes integers of 64 bits", field="value"
        )
    return b"%d" % int(value)


def require_id(name: str, correlation_id: str | None) -> None:
    """Refuse an operation that needs an idempotency key and has none."""
    if name in NEED_ID and not correlation_id:
        raise SyncBridgeError(
            ErrorCode.INVALID_MESSAGE,
            f"correlation_id: {name} requires one, to recognise a repetition",
            field="correlation_id",
        )


def prepared(request: Apply, operation: Operation, expected: bytes) -> Apply:
    """A write of one key and its operand as that operation."""
    request = msgspec.structs.replace(request, operation=operation, expected=expected)
    if operation in COMMUTING:
        request.base_version = -1
        request.mode = Mode.OVERWRITE
    return request


def refusal(request: Apply, answer: Outcome) -> SyncBridgeError | None:
    """Why an operation was refused; None when the answer says nothing that only they say."""
    if request.operation is Operation.SET or not answer.conflicts:
        return None
    key, value = answer.conflicts[0].decode(), answer.conflicts[1]
    name = request.operation.name
    match answer.status:
        case Status.PRECONDITION:
            return _unexpected(answer, key, value, name)
        case Status.TYPE_MISMATCH:
            return SyncBridgeError(
                ErrorCode.TYPE_MISMATCH,
                f"{name} takes {_TAKES[name]}; the key holds {json_type(value)}",
                key=key,
                actual=json_type(value),
            )
        case Status.NOT_AN_INTEGER:
            detail = "INCR adds to an integer; the key holds a number with fraction or exponent"
            return SyncBridgeError(ErrorCode.NOT_AN_INTEGER, detail, key=key)
        case Status.OUT_OF_RANGE:
            detail = "INCR stays within integers of 64 bits"
            return SyncBridgeError(ErrorCode.OUT_OF_RANGE, detail, key=key)
        case Status.TOO_LARGE:
            detail = "the value would be larger than allowed"
            return SyncBridgeError(ErrorCode.TOO_LARGE, detail, key=key)
    return None


def _unexpected(answer: Outcome, key: str, value: bytes, name: str) -> SyncBridgeError:
    place: dict[str, Any] = {"key": key, "current_version": answer.version, "epoch": answer.epoch}
    if not value:
        return SyncBridgeError(
            ErrorCode.PRECONDITION_FAILED, f"{name}: the key does not exist", **place, exists=False
        )
    detail = "the key exists" if name == "SETNX" else "the key has another value"
    return SyncBridgeError(
        ErrorCode.PRECONDITION_FAILED,
        f"{name}: {detail}",
        **place,
        exists=True,
        server_value=msgspec.Raw(value),
    )
