"""A model of the operations on one key, in plain Python with integers and decimals."""

import json
from decimal import Decimal

from syncbridge.records.sessions import Operation, Status

INT64 = range(-(2**63), 2**63)


def exact(text: bytes) -> Decimal:
    """A JSON number without rounding."""
    return Decimal(text.decode())


def is_number(text: bytes) -> bool:
    return text[:1] in b"-0123456789"


def outcome_of(
    operation: Operation, before: bytes | None, operand: bytes, expected: bytes, max_value: int
) -> bytes | Status:
    """The value that the key gets, or why it gets none."""
    match operation:
        case Operation.SETNX:
            return operand if before is None else Status.PRECONDITION
        case Operation.CAS:
            return operand if (before or b"") == expected else Status.PRECONDITION
        case Operation.APPEND:
            return _appended(before or b"[]", operand, max_value)
    if before is None:
        return operand
    if not is_number(before):
        return Status.TYPE_MISMATCH
    if operation is Operation.INCR:
        return _sum(before, operand)
    greater, equal = exact(operand) > exact(before), exact(operand) == exact(before)
    return operand if not equal and greater == (operation is Operation.MAX) else before


def _appended(before: bytes, operand: bytes, max_value: int) -> bytes | Status:
    if not before.startswith(b"["):
        return Status.TYPE_MISMATCH
    separator = b"," if json.loads(before) else b""
    result = before[:-1] + separator + operand + b"]"
    return result if len(result) <= max_value else Status.TOO_LARGE


def _sum(before: bytes, operand: bytes) -> bytes | Status:
    if not before.lstrip(b"-").isdigit():
        return Status.NOT_AN_INTEGER
    total = int(before) + int(operand)
    if int(before) not in INT64 or total not in INT64:
        return Status.OUT_OF_RANGE
    return b"%d" % total
