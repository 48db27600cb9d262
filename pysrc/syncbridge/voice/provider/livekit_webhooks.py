"""Parses the bodies of LiveKit's webhooks: protobuf JSON in camelCase, without zero values.

A room's name is our session id; its `sid` identifies one occupancy, and a participant's `sid` one
connection. Telephones are participants; recorders, agents and the like are not. `createdAt` is
truncated to seconds. So a leave is taken as of the end of that second, and the end of a room as of
its beginning, so that no event of the same second counts as older than it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from syncbridge.voice.provider import events
from syncbridge.voice.provider.events import Event, LeaveReason, UnreadableWebhook
from syncbridge.voice.provider.livekit_names import Person, person_of
from syncbridge.voice.provider.webhook_text import read_document, text_of
from syncbridge.voice.recordings import NO_ADDRESS, is_address

MAX_BYTES = 262_144
MAX_ID = 256
MAX_URL = 4096
NANO = 1_000_000_000
INT64 = 1 << 63
PEOPLE = frozenset({"STANDARD", "SIP", 0, 3})
"""Participant kinds that count, by name or number, because protobuf JSON may have either."""
TELEPHONES = frozenset({"SIP", 3})
REASONS = {
    "CLIENT_INITIATED": LeaveReason.LEFT,
    "DUPLICATE_IDENTITY": LeaveReason.REPLACED,
    "MIGRATION": LeaveReason.REPLACED,
    "PARTICIPANT_REMOVED": LeaveReason.REMOVED,
    "USER_REJECTED": LeaveReason.REMOVED,
    "USER_UNAVAILABLE": LeaveReason.LEFT,
    "CONNECTION_TIMEOUT": LeaveReason.LOST,
    "SIGNAL_CLOSE": LeaveReason.LOST,
    "ROOM_DELETED": LeaveReason.CLOSED,
    "ROOM_CLOSED": LeaveReason.CLOSED,
    "SERVER_SHUTDOWN": LeaveReason.SHUTDOWN,
    "JOIN_FAILURE": LeaveReason.FAILED,
    "STATE_MISMATCH": LeaveReason.FAILED,
    "MEDIA_FAILURE": LeaveReason.FAILED,
    "SIP_TRUNK_FAILURE": LeaveReason.FAILED,
}
NO_FILES = ("streamResults", "segmentResults", "imageResults")
"""What other outputs than files end with. SyncBridge records into files only."""
_PASSWORD = re.compile(rb'"turnPassword"\s*:\s*"(?:[^"\\]|\\.)*"')
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)

Body = Mapping[str, Any]


class _Wrong(ValueError):
    """A part of the body is missing or invalid."""


def parse_webhook(body: bytes) -> list[Event] | UnreadableWebhook:
    """The event of a body. O(bytes), raises nothing."""
    if len(body) > MAX_BYTES:
        return UnreadableWebhook("too large")
    try:
        document = read_document(body)
    except (ValueError, RecursionError):
        return UnreadableWebhook("not JSON")
    if not isinstance(document, dict):
        return UnreadableWebhook("an event is not an object")
    try:
        kind = _text(document, "event")
        read = READERS.get(kind)
        return [read(document) if read else _other(kind, document)]
    except _Wrong as error:
        return UnreadableWebhook(str(error))


def delivery_id(body: bytes) -> str:
    """The id of a delivery, the same for a redelivery; empty if the body has none."""
    try:
        document = read_document(body)
    except (ValueError, RecursionError):
        return ""
    return text_of(document.get("id"), MAX_ID) if isinstance(document, dict) else ""


def without_secrets(body: bytes) -> bytes:
    """A body for storage, without the password of the TURN server, which is a live credential."""
    return _PASSWORD.sub(b'"turnPassword":""', body)


def reason_of(told: Any) -> LeaveReason:
    """The leave reason for LiveKit's name of it."""
    return REASONS.get(told, LeaveReason.UNKNOWN) if isinstance(told, str) else LeaveReason.UNKNOWN


def somebody(participant: Body) -> bool:
    """Whether a participant is a person, telephones included, and not a recorder or the like. A
    missing or malformed kind counts as a person."""
    kind = participant.get("kind")
    return isinstance(kind, bool) or not isinstance(kind, str | int) or kind in PEOPLE


def telephone(participant: Body) -> bool:
    """Whether a participant is a caller by telephone, whose identity is not one of ours."""
    kind = participant.get("kind")
    return not isinstance(kind, bool) and isinstance(kind, str | int) and kind in TELEPHONES


def whose(participant: Body) -> Person:
    """The user and the device of a participant. A telephone is a user: `sip:bob` names no device
    of a user `sip`."""
    identity = _text(participant, "identity")
    if telephone(participant):
        return Person(identity)
    attributes = participant.get("attributes")
    return person_of(identity, attributes if isinstance(attributes, dict) else {})


def milliseconds(value: Any) -> float | None:
    """Unix seconds from milliseconds, which are written as text."""
    found = whole(value)
    return found / 1000 if found else None


def whole(value: Any) -> int | None:
    """A non-negative int64 of protobuf JSON: text of digits, or a number."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 <= value < INT64 else None


def _other(kind: str, document: Body) -> Event:
    return events.OtherEvent(
        kind=kind, session_id=text_of(_part(document, "room").get("name"), MAX_ID)
    )


def _joined(document: Body) -> Event:
    participant = _object(document, "participant")
    if not somebody(participant):
        return _other("participant_joined", document)
    person = whose(participant)
    return events.ParticipantJoined(
        user_id=person.user_id,
        device_id=person.device_id,
        peer_id=_text(participant, "sid"),
        occurred_at=milliseconds(participant.get("joinedAtMs")),
        **_room(document),
    )


def _left(document: Body) -> Event:
    participant = _object(document, "participant")
    if not somebody(participant):
        return _other("participant_left", document)
    at = whole(document.get("createdAt"))
    return events.ParticipantLeft(
        user_id=whose(participant).user_id,
        peer_id=_text(participant, "sid"),
        joined_at=milliseconds(participant.get("joinedAtMs")),
        reason=reason_of(participant.get("disconnectReason")),
        occurred_at=None if at is None else float(at + 1),
        **_room(document),
    )


def _finished(document: Body) -> Event:
    at = whole(document.get("createdAt"))
    when = None if at is None else float(at)
    return events.SessionEnded(occurred_at=when, reason="finished", **_room(document))


def _recorded(document: Body) -> Event:
    told = _object(document, "egressInfo")
    recording_id, ended = _text(told, "egressId"), whole(told.get("endedAt"))
    common: dict[str, Any] = {
        "session_id": _text(told, "roomName"),
        "occurred_at": ended / NANO if ended else None,
    }
    files = told.get("fileResults")
    if not files and any(told.get(name) for name in NO_FILES):
        return events.OtherEvent(kind="egress_ended", session_id=common["session_id"])
    file = files[0] if isinstance(files, list) and files else None
    location = text_of(file.get("location"), MAX_URL) if isinstance(file, dict) else ""
    if not isinstance(file, dict) or not location:
        return events.RecordingFailed(recording_id=recording_id, **common)
    if not is_address(location):
        raise _Wrong(NO_ADDRESS)
    duration = whole(file.get("duration"))
    return events.RecordingReady(
        recording_id=recording_id,
        url=location,
        duration=duration / NANO if duration is not None else None,
        **common,
    )


READERS: dict[str, Callable[[Body], Event]] = {
    "participant_joined": _joined,
    "participant_left": _left,
    "room_finished": _finished,
    "egress_ended": _recorded,
}


def _room(document: Body) -> dict[str, Any]:
    room = _object(document, "room")
    return {"session_id": _text(room, "name"), "provider_session_id": _text(room, "sid")}


def _part(document: Body, name: str) -> Body:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _object(document: Body, name: str) -> Body:
    value = document.get(name)
    if not isinstance(value, dict):
        raise _Wrong(f"{name} is not an object")
    return value


def _text(document: Body, name: str) -> str:
    value = text_of(document.get(name), MAX_ID)
    if not value:
        raise _Wrong(f"{name} is not a text of 1 to {MAX_ID} characters")
    return value
