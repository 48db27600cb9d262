"""From STATE_UPDATE payloads to change sets: what is accepted and what each refusal says."""

import msgspec
import pytest

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import decode_envelope, decode_payload, update_decoder
from syncbridge.updates import ChangeSet, UpdateParser

PARSER = UpdateParser(Limits())


def parse(payload: str | bytes) -> ChangeSet:
    text = payload.encode() if isinstance(payload, str) else payload
    envelope = decode_envelope(b'{"type":5,"payload":%b}' % text)
    return PARSER.parse(decode_payload(update_decoder, envelope))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('{"key":"a","value": [1, 2] }', ([b"a", b"[1,2]"], [])),
        ('{"key":"a","value":null,"operation":"SET"}', ([b"a", b"null"], [])),
        ('{"key":"a","operation":"DELETE"}', ([], [b"a"])),
        ('{"changes":{"a":1,"b":"x"}}', ([b"a", b"1", b"b", b'"x"'], [])),
        ('{"changes":{"a":1},"deleted_keys":["b","b"]}', ([b"a", b"1"], [b"b"])),
        ('{"deleted_keys":["b"]}', ([], [b"b"])),
        ('{"changes":{}}', ([], [])),
        ('{"changes":{"constructor":1}}', ([b"constructor", b"1"], [])),
        ('{"key":"big","value":123456789012345678901234567890}',
         ([b"big", b"123456789012345678901234567890"], [])),
        ('{"key":"z","value":"\\u0000"}', ([b"z", b'"\\u0000"'], [])),
    ],
)  # fmt: skip
def test_accepted(payload: str, expected: ChangeSet) -> None:
    """Values come out compact and otherwise as they were sent."""
    assert expected == parse(payload)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("{}", ErrorCode.INVALID_MESSAGE),
        ('{"key":"a"}', ErrorCode.INVALID_MESSAGE),
        ('{"key":"a","value":1,"changes":{}}', ErrorCode.INVALID_MESSAGE),
        ('{"key":"a","value":1,"operation":"set"}', ErrorCode.UNKNOWN_OPERATION),
        ('{"key":"a","value":1,"operation":"POP"}', ErrorCode.UNKNOWN_OPERATION),
        ('{"key":"","value":1}', ErrorCode.INVALID_KEY),
        ('{"key":"\\u0000","value":1}', ErrorCode.INVALID_KEY),
        ('{"key":"%s","value":1}' % ("k" * 257), ErrorCode.INVALID_KEY),
        ('{"key":"__proto__","value":1}', ErrorCode.RESERVED_KEY),
        ('{"changes":{"__proto__":1}}', ErrorCode.RESERVED_KEY),
        ('{"changes":{"":1}}', ErrorCode.INVALID_KEY),
        ('{"changes":{"a":1,"\\u0061":2}}', ErrorCode.DUPLICATE_KEY),
        ('{"changes":{"a":1},"deleted_keys":["a"]}', ErrorCode.KEY_OVERLAP),
        ('{"changes":[1]}', ErrorCode.INVALID_FIELD),
        ('{"deleted_keys":[1]}', ErrorCode.INVALID_MESSAGE),
        ('{"key":"a","value":1,"base_version":-1}', ErrorCode.INVALID_FIELD),
        ('{"key":"a","value":1,"base_version":9007199254740992}', ErrorCode.INVALID_FIELD),
        ('{"key":"a","value":1,"base_version":1.5}', ErrorCode.INVALID_MESSAGE),
        ('{"key":"a","value":1,"base_version":true}', ErrorCode.INVALID_MESSAGE),
        ('{"key":"a","value":1e999}', ErrorCode.NUMBER_RANGE),
        ('{"key":"a","value":%s}' % ("1" * 65), ErrorCode.NUMBER_RANGE),
        ('{"key":"a","value":"\\ud800"}', ErrorCode.INVALID_JSON),
        ('{"key":"a","value":%s1%s}' % ("[" * 65, "]" * 65), ErrorCode.TOO_DEEP),
        ('{"changes":{%s}}' % ",".join(f'"{n}":1' for n in range(257)), ErrorCode.TOO_MANY_CHANGES),
    ],
)  # fmt: skip
def test_refused(payload: str, code: ErrorCode) -> None:
    """Each bad payload has its code, and says something."""
    with pytest.raises(SyncBridgeError) as caught:
        parse(payload)

    assert code is caught.value.code
    assert caught.value.detail


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", ErrorCode.INVALID_JSON),
        (b"\xef\xbb\xbf{}", ErrorCode.INVALID_JSON),
        (b'{"type":1}{"type":1}', ErrorCode.INVALID_JSON),
        (b'{"type":NaN}', ErrorCode.INVALID_JSON),
        (b"[" * 100_000, ErrorCode.INVALID_MESSAGE),
        (b'{"x":' * 50_000, ErrorCode.INVALID_JSON),
        (b"[1]", ErrorCode.INVALID_MESSAGE),
        (b"{}", ErrorCode.INVALID_MESSAGE),
        (b'{"type":1.5}', ErrorCode.INVALID_MESSAGE),
        (b'{"type":true}', ErrorCode.INVALID_MESSAGE),
        (b'{"type":1,"correlation_id":7}', ErrorCode.INVALID_MESSAGE),
    ],
)
def test_envelope_refused(message: bytes, code: ErrorCode) -> None:
    """What is not an envelope is an error that says whether it is JSON at all."""
    with pytest.raises(SyncBridgeError) as caught:
        decode_envelope(message)

    assert code is caught.value.code


def test_unknown_members_are_ignored() -> None:
    """A newer client may send more than we know."""
    envelope = decode_envelope(b'{"type":1,"future":[1,{"a":2}],"payload":{"x":1}}')

    assert 1 == envelope.type
    assert b'{"x":1}' == bytes(envelope.payload)


def test_payload_text_is_kept_exactly() -> None:
    """Raw text of a payload is the sender's."""
    payload = b'{ "a" : 1 }'

    assert msgspec.Raw(payload) == decode_envelope(b'{"type":5,"payload":%b}' % payload).payload
