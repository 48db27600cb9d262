"""Operands and refusals of the operations on one key."""

import msgspec
import pytest

from syncbridge import operations
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import UpdatePayload, update_decoder
from syncbridge.records.sessions import Apply, Mode, Operation, Outcome, Status
from syncbridge.updates import UpdateParser

PARSER = UpdateParser(Limits())


def payload(text: str) -> UpdatePayload:
    decoded: UpdatePayload = update_decoder.decode(text)
    return decoded


def test_names_are_those_of_the_protocol() -> None:
    """Nine operations, each executed by somebody: the parser, the script, or MERGE here."""
    expected = {"SET", "DELETE", "INCR", "MERGE", "APPEND", "MAX", "MIN", "SETNX", "CAS"}

    assert expected == set(operations.NAMES)
    assert expected == {"SET", "DELETE", operations.MERGE, *operations.ATOMIC}
    assert set(Operation) - {Operation.SET} == set(operations.ATOMIC.values())
    assert all(name == operation.name for name, operation in operations.ATOMIC.items())


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INCR", b"5", b"5"),
        ("INCR", b"-0", b"0"),
        ("INCR", b"9223372036854775807", b"9223372036854775807"),
        ("INCR", b"-9223372036854775808", b"-9223372036854775808"),
        ("MAX", b"1.50", b"1.50"),
        ("MIN", b"1e2", b"1e2"),
        ("APPEND", b"null", b"null"),
        ("SETNX", b'"x"', b'"x"'),
        ("MERGE", b"[1]", b"[1]"),
    ],
)
def test_operand(name: str, value: bytes, expected: bytes) -> None:
    """Numbers where numbers are needed, in the text in which they were sent."""
    assert expected == operations.operand(name, value)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("INCR", b'"5"', ErrorCode.TYPE_MISMATCH),
        ("INCR", b"null", ErrorCode.TYPE_MISMATCH),
        ("INCR", b"1.5", ErrorCode.NOT_AN_INTEGER),
        ("INCR", b"1.0", ErrorCode.NOT_AN_INTEGER),
        ("INCR", b"1e2", ErrorCode.NOT_AN_INTEGER),
        ("INCR", b"9223372036854775808", ErrorCode.OUT_OF_RANGE),
        ("INCR", b"-9223372036854775809", ErrorCode.OUT_OF_RANGE),
        ("MAX", b"true", ErrorCode.TYPE_MISMATCH),
        ("MIN", b"[1]", ErrorCode.TYPE_MISMATCH),
        ("MIN", b"{}", ErrorCode.TYPE_MISMATCH),
    ],
)
def test_operand_refused(name: str, value: bytes, code: ErrorCode) -> None:
    """Each wrong operand has its code, and the field is named."""
    with pytest.raises(SyncBridgeError, match="value") as caught:
        operations.operand(name, value)

    assert code is caught.value.code
    assert "value" == caught.value.fields["field"]


def test_expected_is_compact() -> None:
    """It is compared with stored text, so it is brought into the same form."""
    cas = payload('{"key":"a","value":1,"operation":"CAS","expected": [1, {"b" : 2}] }')

    assert b'[1,{"b":2}]' == PARSER.expected(cas)
    assert b"" == PARSER.expected(payload('{"key":"a","value":1,"operation":"CAS"}'))
    assert b"null" == PARSER.expected(payload('{"expected":null}'))


@pytest.mark.parametrize(
    "text",
    [
        '{"key":"a","value":1,"expected":1}',
        '{"key":"a","operation":"DELETE","expected":1}',
        '{"key":"a","value":1,"operation":"SETNX","expected":1}',
        '{"changes":{},"expected":1}',
        '{"changes":{},"operation":"CAS"}',
        '{"key":"a","operation":"CAS","expected":1}',
    ],
)
def test_expected_only_with_cas(text: str) -> None:
    """A guard that would be ignored is refused, and CAS needs one key and a value."""
    with pytest.raises(SyncBridgeError) as caught:
        PARSER.parse(payload(text))

    assert ErrorCode.INVALID_MESSAGE is caught.value.code


@pytest.mark.parametrize(
    ("operation", "base", "mode"),
    [
        (Operation.INCR, -1, Mode.OVERWRITE),
        (Operation.MAX, -1, Mode.OVERWRITE),
        (Operation.CAS, 3, Mode.REJECT),
        (Operation.SETNX, 3, Mode.REJECT),
    ],
)
def test_base_of_a_prepared_write(operation: Operation, base: int, mode: Mode) -> None:
    """What commutes forgets its base; the rest keeps it. The request itself stays as it was."""
    request = Apply("s", "u", "d", [b"a", b"1"], [], base_version=3, mode=Mode.REJECT, fence=7)
    ready = operations.prepared(request, operation, b"x")

    assert (operation, b"x", base, mode, 7) == (
        ready.operation,
        ready.expected,
        ready.base_version,
        ready.mode,
        ready.fence,
    )
    assert (Operation.SET, 3) == (request.operation, request.base_version)


@pytest.mark.parametrize(
    ("status", "value", "code", "fields"),
    [
        (Status.PRECONDITION, b"[1]", ErrorCode.PRECONDITION_FAILED,
         {"exists": True, "server_value": msgspec.Raw(b"[1]"), "current_version": 4, "epoch": "e"}),
        (Status.PRECONDITION, b"", ErrorCode.PRECONDITION_FAILED,
         {"exists": False, "current_version": 4, "epoch": "e"}),
        (Status.TYPE_MISMATCH, b'"x"', ErrorCode.TYPE_MISMATCH, {"actual": "string"}),
        (Status.NOT_AN_INTEGER, b"1.5", ErrorCode.NOT_AN_INTEGER, {}),
        (Status.OUT_OF_RANGE, b"1", ErrorCode.OUT_OF_RANGE, {}),
        (Status.TOO_LARGE, b"[", ErrorCode.TOO_LARGE, {}),
    ],
)  # fmt: skip
def test_refusals(status: Status, value: bytes, code: ErrorCode, fields: dict[str, object]) -> None:
    """Each refusal has its code, names the key, and shows what helps to go on."""
    request = Apply("s", "u", "d", [b"k", b"1"], [], operation=Operation.INCR)
    error = operations.refusal(request, Outcome(status, 4, 4, "e", conflicts=[b"k", value]))

    assert error is not None
    assert (code, {"key": "k"} | fields) == (error.code, error.fields)


def test_other_answers_are_not_theirs() -> None:
    """A plain write, a state that is too large, a conflict: told as for any write."""
    plain = Apply("s", "u", "d", [b"k", b"1"], [])
    step = Apply("s", "u", "d", [b"k", b"1"], [], operation=Operation.CAS)

    assert operations.refusal(plain, Outcome(Status.TOO_LARGE, conflicts=[b"k", b"1"])) is None
    assert operations.refusal(step, Outcome(Status.TOO_LARGE)) is None
    assert operations.refusal(step, Outcome(Status.CONFLICT, conflicts=[b"k", b"1"])) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [(b"1", "number"), (b"-1", "number"), (b"[]", "array"), (b"{}", "object"), (b'""', "string"),
     (b"true", "boolean"), (b"false", "boolean"), (b"null", "null")],
)  # fmt: skip
def test_json_type(text: bytes, kind: str) -> None:
    """The type shows in the first byte of compact text."""
    assert kind == operations.json_type(text)
