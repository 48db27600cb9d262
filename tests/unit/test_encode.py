"""Outgoing messages: exactly the envelope of the spec, valid JSON whatever the ids hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge import encode
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.messages import MessageType
from syncbridge.protocol import (
    BEHIND_AUTH_BYTES,
    INBOUND,
    TRANSITIONS,
    BehindAuth,
    State,
    refusal,
)
from syncbridge.records.sessions import Place
from syncbridge.session import Change

MEMBERS = [
    "type",
    "session_id",
    "user_id",
    "device_id",
    "timestamp",
    "payload",
    "correlation_id",
]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(text, text, text, st.none() | text)
def test_envelope_is_the_one_of_the_spec(
    sid: str, user: str, device: str, corr: str | None
) -> None:
    """Members, their order and their values survive any id."""
    frame = encode.envelope(
        MessageType.ERROR,
        encode.EnvelopeAddress(sid, user, device),
        17,
        b'{"a":1}',
        encode.quote(corr),
    )

    message = json.loads(frame)

    assert MEMBERS == list(message)
    assert [6, sid, user, device, 17, {"a": 1}, corr] == list(message.values())


@given(text, st.none() | st.integers(0, 2**53) | st.floats(0, 1e15))
def test_heartbeat_ack_echoes_the_client(device: str, sent: float | None) -> None:
    """`client_time` comes back as it was sent; the server's is in milliseconds."""
    address = encode.EnvelopeAddress("s", "u", device)

    message = json.loads(encode.heartbeat_ack(address, 5_500, sent, Place("e", 9, "l"), b'"c"'))

    assert MEMBERS == list(message)
    place = {"version": 9, "epoch": "e", "lineage": "l"}
    assert {"client_time": sent, "server_time": 5500} | place == message["payload"]
    assert 5 == message["timestamp"]


@pytest.mark.parametrize(
    ("sets", "deletes", "single"),
    [
        ([b"a", b"[1]"], [], {"key": "a", "value": [1], "operation": "SET"}),
        ([], [b"a"], {"key": "a", "operation": "DELETE"}),
        ([b"a", b"1", b"b", b"2"], [], {}),
        ([b"a", b"1"], [b"b"], {}),
        ([], [], {}),
    ],
)
def test_update_names_a_single_key_in_the_specs_form(
    sets: list[bytes], deletes: list[bytes], single: dict[str, Any]
) -> None:
    """Results travel; one key is also given as key, value, operation."""
    change = Change(4, 3, "e", "d", "", sets, deletes, "l4", "l3")
    payload = json.loads(encode.update_payload(change, b'"d"'))

    expected = {
        "version": 4,
        "prev_version": 3,
        "epoch": "e",
        "lineage": "l4",
        "prev_lineage": "l3",
        "changes": {k.decode(): json.loads(v) for k, v in zip(sets[::2], sets[1::2], strict=True)},
        "deleted_keys": [k.decode() for k in deletes],
        "device_id": "d",
        **single,
    }
    assert expected == payload


def test_error_says_when_to_come_back() -> None:
    """Seconds become retry_after_ms; extra fields become details."""
    error = SyncBridgeError(ErrorCode.RATE_LIMITED, "slow down", retry_after=0.25, limit=5)

    assert {
        "code": "rate_limited",
        "message": "slow down",
        "retryable": True,
        "retry_after_ms": 250,
        "details": {"limit": 5},
    } == json.loads(encode.error_payload(error))


def test_every_state_can_be_reached() -> None:
    """From NEW the table leads to every state but CLOSED, which the socket decides."""
    seen, todo = {State.NEW}, [State.NEW]
    while todo:
        for state in TRANSITIONS[todo.pop()].values():
            if state not in seen:
                seen.add(state)
                todo.append(state)

    # JOINING becomes READY by the store's answer, which is not a message.
    assert {State.NEW, State.JOINING} == seen
    assert set(State) == set(TRANSITIONS)


@pytest.mark.parametrize("kind", [0, 2, 8, 99, -1, "voice_state"])
def test_unknown_types_are_told_what_is_known(kind: int | str) -> None:
    """The refusal lists every type that is accepted."""
    error = refusal(State.READY, kind)

    assert ErrorCode.UNKNOWN_TYPE is error.code
    names = [str(int(known)) if isinstance(known, int) else known for known in INBOUND]
    assert all(name in error.detail for name in names)


def test_what_comes_behind_auth_is_kept_up_to_a_point() -> None:
    """Above a bound nothing is taken any more, not even what would fit: no message is skipped."""
    behind, half = BehindAuth(), b"x" * (BEHIND_AUTH_BYTES // 2)
    behind.put(half, 1)
    behind.put(b"a", 2)
    for data in (half, b"b"):
        with pytest.raises(SyncBridgeError) as caught:
            behind.put(data, 1)
        assert (ErrorCode.RATE_LIMITED, True) == (caught.value.code, bool(caught.value.retry_after))

    assert [(half, 1), (b"a", 2)] == behind.messages
