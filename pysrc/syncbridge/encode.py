"""Outgoing messages as bytes, built without intermediate objects.

A frame is the envelope of the spec: `type, session_id, user_id, device_id, timestamp, payload,
correlation_id`. Strings are quoted once and kept as JSON text (`bytes`, quotes included, named
`*_q`); state values are already compact JSON. So a message is a concatenation.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from syncbridge import kernels
from syncbridge.errors import SyncBridgeError
from syncbridge.records.sessions import Place
from syncbridge.session import Change

NULL = b"null"
_encoder = msgspec.json.Encoder()
to_json = _encoder.encode
"""Any plain object as compact JSON."""


def quote(text: str | None) -> bytes:
    """A string as JSON text, `null` for None."""
    return NULL if text is None else to_json(text)


class EnvelopeAddress:
    """The envelope's constant middle for one session and device: quoted once, used often."""

    __slots__ = ("middle",)

    def __init__(self, session_id: str, user_id: str, device_id: str) -> None:
        self.middle = b',"session_id":%b,"user_id":%b,"device_id":%b,"timestamp":' % (
            quote(session_id),
            quote(user_id),
            quote(device_id),
        )


NOWHERE = EnvelopeAddress("", "", "")
"""For answers to a connection that has not authenticated."""


def envelope(
    kind: int, address: EnvelopeAddress, now: int, payload: bytes, correlation_q: bytes = NULL
) -> bytes:
    """One message. `now`: Unix seconds. `payload`: JSON text."""
    return b'{"type":%d%b%d,"payload":%b,"correlation_id":%b}' % (
        kind,
        address.middle,
        now,
        payload,
        correlation_q,
    )


def heartbeat_ack(
    address: EnvelopeAddress,
    now_ms: int,
    client_time: float | None,
    place: Place,
    correlation_q: bytes,
) -> bytes:
    """HEARTBEAT_ACK; `client_time` as the client sent it, `server_time` in Unix ms."""
    echo = NULL if client_time is None else to_json(client_time)
    return (
        b'{"type":2%b%d,"payload":{"client_time":%b,"server_time":%d,%b},"correlation_id":%b}'
        % (address.middle, now_ms // 1000, echo, now_ms, position(place), correlation_q)
    )


def position(place: Place) -> bytes:
    """A place in a session's history, as members of a payload."""
    return b'"version":%d,"epoch":"%b","lineage":"%b"' % (
        place.version,
        place.epoch.encode(),
        place.lineage.encode(),
    )


def key_list(keys: Sequence[bytes]) -> bytes:
    """Keys as a JSON array of strings."""
    if not keys:
        return b"[]"
    return b"[%b]" % b",".join(map(kernels.quote, keys))


def repetition(change: Change) -> bytes:
    """Marks a repeated update; with the last number of its stream."""
    return b',"duplicate":true%b' % (b',"seq":%d' % change.seq if change.seq else b"")


def update_payload(change: Change, device_q: bytes) -> bytes:
    """STATE_UPDATE payload: results, not operations; a single key also in the spec's own form."""
    sets, deletes = change.sets, change.deletes
    common = (
        b'{"version":%d,"prev_version":%d,"epoch":"%b","lineage":"%b","prev_lineage":"%b",'
        b'"changes":%b,"deleted_keys":%b,"device_id":%b%b'
        % (
            change.version,
            change.prev_version,
            change.epoch.encode(),
            change.lineage.encode(),
            change.prev_lineage.encode(),
            kernels.render_pairs(sets),
            key_list(deletes),
            device_q,
            repetition(change) if change.duplicate else b"",
        )
    )
    if len(sets) == 2 and not deletes:
        return b'%b,"key":%b,"value":%b,"operation":"SET"}' % (
            common,
            kernels.quote(sets[0]),
            sets[1],
        )
    if len(deletes) == 1 and not sets:
        return b'%b,"key":%b,"operation":"DELETE"}' % (common, kernels.quote(deletes[0]))
    return common + b"}"


def state_part(state: bytes) -> bytes:
    """Whole state, as members of an AUTH_SUCCESS or SNAPSHOT_RESPONSE payload."""
    return b'"resumed":false,"state_data":' + state


RESUMED = b'"resumed":true'
"""How the part of a payload begins that holds a difference."""


def delta_part(changes: bytes, deleted: bytes) -> bytes:
    """What changed since the asked version, as members of a payload."""
    return b'%b,"changes":%b,"deleted_keys":%b' % (RESUMED, changes, deleted)


def reset_part(reason: str) -> bytes:
    """The fields of a reset: the state does not continue what the device had."""
    return b',"reset":true,"reason":"%b"' % reason.encode() if reason else b""


def applied_part(applied: int | None, lost: Sequence[str] = ()) -> bytes:
    """The last number of a device's stream in the store, and ids of acknowledged updates that are
    lost."""
    if applied is None:
        return b""
    names = b',"lost":%b' % to_json(lost) if lost else b""
    return b',"applied":%d%b' % (applied, names)


def snapshot_payload(place: Place, part: bytes) -> bytes:
    """SNAPSHOT_RESPONSE payload around `state_part` or `delta_part`."""
    return b"{%b,%b}" % (position(place), part)


def error_payload(error: SyncBridgeError) -> bytes:
    """ERROR payload: code, message, retryable, and what helps to go on."""
    body: dict[str, Any] = {
        "code": error.code.wire,
        "message": error.detail,
        "retryable": error.code.retryable,
    }
    if error.retry_after is not None:
        body["retry_after_ms"] = int(error.retry_after * 1000)
    if error.fields:
        body["details"] = error.fields
    return to_json(body)


def join_objects(items: Iterable[bytes]) -> bytes:
    """JSON texts as an array."""
    return b"[%b]" % b",".join(items)
