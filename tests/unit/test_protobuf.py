"""The protobuf codec: the same messages as in JSON, in both directions, whatever comes in."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import protobuf_kit
from syncbridge import encode, kernels, messages, protobuf
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import MessageType
from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb
from syncbridge.records.sessions import Place
from syncbridge.session import Change
from syncbridge.updates import UpdateParser

DECODER = protobuf.Decoder(Limits())
PARSER = UpdateParser(Limits())

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
keys = texts.filter(lambda key: key not in ("", "__proto__"))
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
states = st.dictionaries(keys, values, max_size=5)
versions = st.integers(0, 2**53 - 1)
times = st.integers(0, 2**40)
flags = st.booleans()


def objects(**members: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(members)


changes = objects(changes=states, deleted_keys=st.lists(keys, max_size=3, unique=True))
whole = objects(resumed=st.just(False), state_data=states)
difference = st.builds(lambda c: {"resumed": True, **c}, changes)
positions = st.builds(
    lambda place, part: place | part,
    objects(version=versions, epoch=texts, lineage=texts),
    whole | difference,
)
devices = objects(
    device_id=texts,
    device_type=texts,
    device_name=texts,
    os_version=texts,
    status=st.sampled_from(["online", "offline"]),
    connected_at=times,
)
welcomes = st.builds(
    lambda place, who: place | who,
    positions,
    objects(
        session_id=texts,
        user_id=texts,
        device_id=texts,
        role=texts,
        heartbeat_interval_ms=times,
        token_expires_at=times,
        limits=st.dictionaries(texts, versions, max_size=3),
        devices=st.lists(devices, max_size=3),
    ),
)
errors = st.builds(
    lambda base, extra: base | extra,
    objects(code=texts, message=texts, retryable=flags),
    st.fixed_dictionaries({}, optional={"retry_after_ms": times, "details": states}),
)
PAYLOADS: dict[MessageType, st.SearchStrategy[Any]] = {
    MessageType.HEARTBEAT_ACK: objects(
        client_time=st.none() | versions | st.floats(allow_nan=False, allow_infinity=False),
        server_time=times,
        version=versions,
        epoch=texts,
        lineage=texts,
    ),
    MessageType.SNAPSHOT_RESPONSE: positions,
    MessageType.ERROR: errors,
    MessageType.AUTH_SUCCESS: welcomes,
    MessageType.AUTH_FAILURE: errors,
    MessageType.DEVICE_JOINED: devices,
    MessageType.DEVICE_LEFT: objects(device_id=texts, status=texts, reason=texts),
    MessageType.DEVICE_LIST: objects(
        devices=st.lists(devices, max_size=3), total=times, session_id=texts
    ),
    MessageType.BROADCAST: states,
    MessageType.ADMIN_UPDATE: states,
}
"""What the server sends, STATE_UPDATE excepted, which has tests of its own."""


@pytest.mark.parametrize("kind", PAYLOADS, ids=lambda kind: kind.name)
def test_json_survives_protobuf(kind: MessageType) -> None:
    """Each message that the server sends says the same in both encodings."""

    @settings(deadline=None, max_examples=60)
    @given(PAYLOADS[kind], st.none() | texts, texts, times)
    def check(payload: Any, correlation_id: str | None, who: str, now: int) -> None:
        frame = encode.envelope(
            kind,
            encode.EnvelopeAddress(who, "ann", who),
            now,
            protobuf_kit.text(payload),
            encode.quote(correlation_id),
        )

        assert json.loads(frame) == protobuf_kit.decode(protobuf.from_json(frame))

    check()


@settings(deadline=None)
@given(states, st.lists(keys, max_size=3, unique=True), versions, versions, texts)
def test_state_update_says_the_same_in_both_encodings(
    sets: dict[str, Any], deletes: list[str], version: int, before: int, correlation_id: str
) -> None:
    """Made from a Change or transcoded from its JSON, STATE_UPDATE is the same."""
    flat = [part for k, v in sets.items() for part in (k.encode(), protobuf_kit.text(v))]
    gone = [key.encode() for key in deletes]
    change = Change(version, before, "epoch", "phone", correlation_id, flat, gone, "l", "k")
    payload = encode.update_payload(change, b'"phone"')
    frame = encode.envelope(
        MessageType.STATE_UPDATE,
        encode.EnvelopeAddress("s", "ann", "phone"),
        7,
        payload,
        encode.quote(correlation_id or None),
    )
    direct = protobuf.state_update("s", "ann", change, 7)

    assert json.loads(frame) == protobuf_kit.decode(direct)
    assert direct == protobuf.from_json(frame)


def test_text_of_values_and_order_of_keys_are_kept() -> None:
    """Values travel as the text that they are; keys come in the order of the JSON object."""
    flat = [b"z", b"1.10", b"a", b"-0.0", b"m", b"12345678901234567890123", b"b", b"1e2"]
    part = encode.state_part(kernels.render_pairs(flat))
    payload = encode.snapshot_payload(Place("e", 1, "l"), part)
    frame = encode.envelope(MessageType.SNAPSHOT_RESPONSE, encode.NOWHERE, 0, payload)
    response = pb.Envelope.FromString(protobuf.from_json(frame)).snapshot_response

    assert flat == [x for e in response.state_data for x in (e.key.encode(), e.value_json)]


def test_event_with_a_name_travels_whole() -> None:
    """A message whose type is a name is carried as it is, both ways."""
    frame = b'{"type":"speaking_update","speaking":true}'
    binary = protobuf.from_json(frame)
    decoded = DECODER.decode(pb.Envelope(event=pb.Event(json=frame)).SerializeToString())

    assert json.loads(frame) == protobuf_kit.decode(binary)
    assert "speaking_update" == decoded.type


def test_unknown_message_has_no_protobuf_form() -> None:
    """A type that the .proto file does not have is refused by an error of its own."""
    for frame in (b'{"type":99}', b'{"type":8,"payload":[]}', b"nonsense"):
        with pytest.raises(protobuf.TranscodeError):
            protobuf.from_json(frame)


positions_in = objects(epoch=texts, version=versions)
tokens = objects(token=texts, device_id=texts, device_type=texts)
INBOUND: list[tuple[MessageType, Any, st.SearchStrategy[Any]]] = [
    (MessageType.HEARTBEAT, messages.heartbeat_decoder, objects(client_time=versions)),
    (MessageType.HEARTBEAT, messages.heartbeat_decoder, st.just({})),
    (MessageType.AUTH, messages.auth_decoder, tokens),
    (MessageType.AUTH, messages.auth_decoder, objects(token=texts, resume=positions_in)),
    (MessageType.SNAPSHOT_REQUEST, messages.snapshot_decoder, st.just({})),
    (MessageType.SNAPSHOT_REQUEST, messages.snapshot_decoder, objects(since=positions_in)),
]


@pytest.mark.parametrize("case", INBOUND, ids=lambda case: case[0].name)
def test_clients_are_understood_alike(case: tuple[MessageType, Any, Any]) -> None:
    """A client's message decodes to the same envelope and payload from both encodings."""
    kind, decoder, payloads = case

    @settings(deadline=None, max_examples=60)
    @given(payloads, st.none() | texts)
    def check(payload: dict[str, Any], correlation_id: str | None) -> None:
        message = {"type": int(kind), "payload": payload, "correlation_id": correlation_id}
        expected = messages.decode_envelope(protobuf_kit.text(message))
        actual = DECODER.decode(protobuf_kit.encode(message))

        assert (expected.type, expected.correlation_id) == (actual.type, actual.correlation_id)
        assert messages.decode_payload(decoder, expected) == messages.decode_payload(
            decoder, actual
        )

    check()


one_key = objects(
    key=keys, value=values, operation=st.sampled_from(["SET", "DELETE"]), base_version=versions
)
several = changes.filter(lambda c: c["changes"] or c["deleted_keys"])


def parsed(envelope: messages.Envelope) -> Any:
    """What the rules make of a STATE_UPDATE: the change set, or the code of the refusal."""
    try:
        return PARSER.parse(messages.decode_payload(messages.update_decoder, envelope))
    except SyncBridgeError as error:
        return error.code


@settings(deadline=None)
@given(one_key | several)
def test_updates_are_understood_alike(payload: dict[str, Any]) -> None:
    """STATE_UPDATE gives the same change set, or the same refusal, from both encodings."""
    message = {"type": 5, "payload": payload}
    expected = parsed(messages.decode_envelope(protobuf_kit.text(message)))

    assert expected == parsed(DECODER.decode(protobuf_kit.encode(message)))


def refused(envelope: pb.Envelope) -> ErrorCode:
    with pytest.raises(SyncBridgeError) as caught:
        messages.decode_payload(
            messages.update_decoder, DECODER.decode(envelope.SerializeToString())
        )
    return caught.value.code


def update(**fields: Any) -> pb.Envelope:
    return pb.Envelope(type=pb.MESSAGE_TYPE_STATE_UPDATE, state_update=pb.StateUpdate(**fields))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", ErrorCode.INVALID_JSON),
        (b'1,"admin":true', ErrorCode.INVALID_JSON),
        (b'1},"key":{}', ErrorCode.INVALID_JSON),
        (b'"\xff"', ErrorCode.INVALID_JSON),
        (b"[" * 70 + b"]" * 70, ErrorCode.TOO_DEEP),
        (b"1e999", ErrorCode.NUMBER_RANGE),
        (b'{"a":1,"a":2}', ErrorCode.DUPLICATE_KEY),
    ],
)
def test_value_that_is_not_one_json_value_is_refused(value: bytes, code: ErrorCode) -> None:
    """A value can neither be anything but I-JSON nor reach out of its place."""
    assert code == refused(update(key="k", value_json=value))
    assert code == refused(update(changes=[pb.Entry(key="k", value_json=value)]))


def test_key_given_twice_is_refused() -> None:
    """A list of entries can name a key twice; a document cannot."""
    twice = [pb.Entry(key="k", value_json=b"1"), pb.Entry(key="k", value_json=b"2")]

    assert ErrorCode.DUPLICATE_KEY == parsed(
        DECODER.decode(update(changes=twice).SerializeToString())
    )


def test_lists_are_bounded_before_they_are_walked() -> None:
    """More entries or deleted keys than an update may have are refused."""
    assert ErrorCode.TOO_MANY_CHANGES == refused(update(changes=[pb.Entry()] * 257))
    assert ErrorCode.TOO_MANY_CHANGES == refused(update(deleted_keys=["k"] * 257))


def test_payload_of_another_type_is_refused() -> None:
    """`type` and the field of the payload must belong together."""
    envelope = pb.Envelope(type=pb.MESSAGE_TYPE_AUTH, heartbeat=pb.Heartbeat())

    assert ErrorCode.INVALID_MESSAGE == refused(envelope)
    event = pb.Envelope(event=pb.Event(json=b'{"type":5,"payload":{"key":"k","value":1}}'))
    assert ErrorCode.INVALID_MESSAGE == refused(event)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_client_time_must_be_finite(value: float) -> None:
    """What JSON could not say back is not accepted."""
    envelope = pb.Envelope(
        type=pb.MESSAGE_TYPE_HEARTBEAT, heartbeat=pb.Heartbeat(client_time=value)
    )

    assert ErrorCode.INVALID_FIELD == refused(envelope)


def test_operation_that_is_unknown_reaches_the_rules() -> None:
    """A number beyond the enum is an unknown operation, not an unreadable message."""
    data = update(key="k", value_json=b"1").SerializeToString()
    data += pb.Envelope(state_update=pb.StateUpdate(operation=77)).SerializeToString()

    assert ErrorCode.UNKNOWN_OPERATION == parsed(DECODER.decode(data))


UNKNOWN = b"\xf8\x3f\x01"
"""Field 1023, a varint: nothing that this version knows."""


def test_unknown_fields_are_tolerated() -> None:
    """What a newer client adds, at any level, is skipped."""
    inner = pb.StateUpdate(key="k", value_json=b"1").SerializeToString() + UNKNOWN
    data = UNKNOWN + b"\x08\x05" + b"\x7a" + bytes([len(inner)]) + inner
    envelope = DECODER.decode(data)

    assert ([b"k", b"1"], []) == parsed(envelope)


def test_correlation_id_of_a_refused_message() -> None:
    """It is read where it can be, and never echoed beyond its bound."""
    assert "c" == protobuf.correlation_of(pb.Envelope(correlation_id="c").SerializeToString())
    assert protobuf.correlation_of(pb.Envelope().SerializeToString()) is None
    assert protobuf.correlation_of(b"\xff") is None
    long = pb.Envelope(correlation_id="c" * 65).SerializeToString()
    assert protobuf.correlation_of(long) is None


def survives(data: bytes) -> None:
    """Decode as the server does; anything but a SyncBridgeError fails the test."""
    decoders = (
        messages.auth_decoder,
        messages.heartbeat_decoder,
        messages.update_decoder,
        messages.snapshot_decoder,
    )
    try:
        envelope = DECODER.decode(data)
    except SyncBridgeError:
        return
    assert msgspec.json.decode(envelope.payload) is not None
    for decoder in decoders:
        try:
            messages.decode_payload(decoder, envelope)
        except SyncBridgeError:
            pass


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200))
def test_random_bytes_give_an_error_or_a_message(data: bytes) -> None:
    """No input makes another exception."""
    survives(data)


@settings(deadline=None, max_examples=500)
@given(one_key | several, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_damaged_messages_give_an_error_or_a_message(
    payload: dict[str, Any], damage: list[tuple[int, int]]
) -> None:
    """Nor does a real message with some of its bytes changed."""
    data = bytearray(protobuf_kit.encode({"type": 5, "payload": payload, "correlation_id": "c"}))
    for place, byte in damage:
        data[place % len(data)] = byte
    survives(bytes(data))


def test_deep_nesting_is_refused() -> None:
    """Groups nested beyond the parser's bound are not protobuf to us."""
    with pytest.raises(SyncBridgeError) as caught:
        DECODER.decode(b"\xfb\x3f" * 10_000 + b"\xfc\x3f" * 10_000)

    assert ErrorCode.INVALID_PROTOBUF == caught.value.code


def test_not_protobuf_is_refused() -> None:
    """Truncated fields and text that is not UTF-8 have a code of their own."""
    for data in (b"\xff", b"\x08", b"\x12\x05ab", b"\x12\x01\xff", b'{"type":1}'):
        with pytest.raises(SyncBridgeError) as caught:
            DECODER.decode(data)
        assert ErrorCode.INVALID_PROTOBUF == caught.value.code


@pytest.mark.parametrize(
    "kind", ["voice_join", "speaking", "voice_state_update", "speaking_update"]
)
def test_a_message_with_a_name_travels_whole(kind: str) -> None:
    """Its members stand beside the type, in both directions, digit by digit."""
    message = {
        "type": kind,
        "channelId": "c",
        "big": 2**60,
        "correlation_id": "x",
        "text": "\u00e4",
    }
    frame = encode.to_json(message)

    envelope = DECODER.decode(protobuf_kit.encode(message))
    assert (kind, "x") == (envelope.type, envelope.correlation_id)
    assert message == msgspec.json.decode(envelope.payload)
    assert message == protobuf_kit.decode(protobuf.from_json(frame))
