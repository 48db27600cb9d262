"""Parses the bodies of webhooks: the specification's dialect (`type`) and Cloudflare's (`event`).

Any bytes have a result. Identifiers are texts of 1 to 256 characters. Unknown members are ignored,
even malformed ones (`webhook_text`), and an event of an unknown kind is an `OtherEvent`, so new
kinds of events cause no errors. In a list, unreadable events do not affect the others. A recording
without an id gets one derived from its session, time and URL, the same for the same body.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from syncbridge.voice.provider import events
from syncbridge.voice.provider.events import Event, RecordedKind, UnreadableWebhook
from syncbridge.voice.provider.webhook_text import read_document, text_of
from syncbridge.voice.recordings import NO_ADDRESS, is_address

MAX_BYTES = 262_144
MAX_EVENTS = 100
MAX_ID = 256
MAX_URL = 4096
_MS_FROM = 100_000_000_000
"""Numbers from here on are milliseconds; as seconds, this would be the year 5138."""

Body = dict[str, Any]


class _Wrong(ValueError):
    """A part of the body is missing or invalid."""


def parse_webhook(body: bytes) -> list[Event] | UnreadableWebhook:
    """The events of a body: one, or a list of at most 100. O(bytes), raises nothing.

    `UnreadableWebhook` has the readable events of the body.
    """
    if len(body) > MAX_BYTES:
        return UnreadableWebhook("too large")
    try:
        document = read_document(body)
    except (ValueError, RecursionError):
        return UnreadableWebhook("not JSON")
    entries = document if isinstance(document, list) else [document]
    if len(entries) > MAX_EVENTS:
        return UnreadableWebhook("too many events")
    return _all_of(entries)


def _all_of(entries: Sequence[Any]) -> list[Event] | UnreadableWebhook:
    """The events of a list; the first unreadable event determines the error."""
    found: list[Event] = []
    wrong = ""
    for entry in entries:
        try:
            found.append(_event(entry))
        except _Wrong as error:
            wrong = wrong or str(error)
    return UnreadableWebhook(wrong, tuple(found)) if wrong else found


def _event(entry: Any) -> Event:
    if not isinstance(entry, dict):
        raise _Wrong("an event is not an object")
    if isinstance(entry.get("type"), str) or ("event" not in entry and "type" in entry):
        return _spec_event(_text(entry, "type"), entry)
    if "event" in entry:
        return _cloudflare_event(_text(entry, "event"), entry)
    raise _Wrong("neither type nor event is given")


def _spec_event(kind: str, entry: Body) -> Event:
    read = SPEC_EVENTS.get(kind)
    if read is None:
        return events.OtherEvent(kind=kind, session_id=_optional(entry, "sessionId"))
    common = {
        "session_id": _text(entry, "sessionId"),
        "occurred_at": _time(entry.get("timestamp")),
    }
    return read(entry, common)


def _spec_joined(entry: Body, common: Body) -> Event:
    user_id, peer_id = _text(entry, "participantId"), _optional(entry, "peerId")
    return events.ParticipantJoined(user_id=user_id, peer_id=peer_id, **common)


def _spec_left(entry: Body, common: Body) -> Event:
    return events.ParticipantLeft(
        user_id=_text(entry, "participantId"),
        peer_id=_optional(entry, "peerId"),
        joined_at=_time(entry.get("joinedAt")),
        **common,
    )


def _spec_speaking(entry: Body, common: Body) -> Event:
    speaking = entry.get("isSpeaking")
    if not isinstance(speaking, bool):
        raise _Wrong("isSpeaking is not true or false")
    user_id = _text(entry, "participantId")
    return events.ParticipantSpeaking(user_id=user_id, is_speaking=speaking, **common)


def _spec_recording(entry: Body, common: Body) -> Event:
    inner = entry.get("recording")
    parts = (entry, inner) if isinstance(inner, dict) else (entry,)
    url = _first(parts, "url", MAX_URL) or _first(parts[1:], "downloadUrl", MAX_URL)
    duration = next((part["duration"] for part in parts if "duration" in part), None)
    told = _first(parts, "recordingId") or _first(parts, "id")
    return events.RecordingReady(
        recording_id=told or _unnamed(common["session_id"], entry.get("timestamp"), url),
        url=_address(url),
        duration=_number(duration),
        **common,
    )


def _first(parts: Sequence[Body], name: str, longest: int = MAX_ID) -> str:
    """The first non-empty text with that name."""
    return next((found for part in parts if (found := _optional(part, name, longest))), "")


def _address(url: str) -> str:
    """The checked URL of a recording, or empty."""
    if url and not is_address(url):
        raise _Wrong(NO_ADDRESS)
    return url


def _unnamed(*known: Any) -> str:
    """An id for a recording without one."""
    text = repr(known).encode("utf-8", "backslashreplace")
    return f"unnamed-{hashlib.sha256(text).hexdigest()[:32]}"


SPEC_EVENTS: dict[str, Callable[[Body, Body], Event]] = {
    "session.started": lambda _, common: events.SessionStarted(**common),
    "session.ended": lambda entry, common: events.SessionEnded(
        reason=_optional(entry, "reason"), **common
    ),
    "participant.joined": _spec_joined,
    "participant.left": _spec_left,
    "participant.speaking": _spec_speaking,
    "recording.ready": _spec_recording,
    "recording.completed": _spec_recording,
}


def _cloudflare_event(kind: str, entry: Body) -> Event:
    if kind == "recording.statusUpdate":
        return _cloudflare_recording(entry)
    meeting = _optional_object(entry, "meeting")
    common: Body = {"provider_session_id": _optional(meeting, "sessionId")}
    read = CLOUDFLARE_EVENTS.get(kind)
    if read is None:
        return events.OtherEvent(kind=kind, session_id=_optional(meeting, "id"), **common)
    return read(entry, {"session_id": _text(_object(entry, "meeting"), "id"), **common})


def _cloudflare_joined(entry: Body, common: Body) -> Event:
    peer = _object(entry, "participant")
    return events.ParticipantJoined(
        user_id=_user(peer),
        peer_id=_text(peer, "peerId"),
        occurred_at=_time(peer.get("joinedAt")),
        **common,
    )


def _cloudflare_left(entry: Body, common: Body) -> Event:
    peer = _object(entry, "participant")
    return events.ParticipantLeft(
        user_id=_user(peer),
        peer_id=_text(peer, "peerId"),
        joined_at=_time(peer.get("joinedAt")),
        occurred_at=_time(peer.get("leftAt")),
        **common,
    )


def _cloudflare_started(entry: Body, common: Body) -> Event:
    when = _time(entry["meeting"].get("startedAt"))
    return events.SessionStarted(occurred_at=when, **common)


def _cloudflare_ended(entry: Body, common: Body) -> Event:
    when = _time(entry["meeting"].get("endedAt"))
    return events.SessionEnded(occurred_at=when, reason=_optional(entry, "reason"), **common)


def _cloudflare_recording(entry: Body) -> Event:
    recording = _object(entry, "recording")
    meeting = _optional_object(entry, "meeting")
    session_id = _optional(recording, "meetingId") or _text(meeting, "id")
    occupancy = _optional(meeting, "sessionId") or _optional(recording, "roomUUID")
    told, status = _first((recording,), "id"), _text(recording, "status")
    told = told or _first((recording, entry), "recordingId")
    known = (session_id, recording.get("stoppedTime"), recording.get("downloadUrl"))
    recording_id = told or _unnamed(*known)
    common: Body = {"session_id": session_id, "provider_session_id": occupancy}
    if status == "ERRORED":
        return events.RecordingFailed(recording_id=recording_id, **common)
    if status != "UPLOADED":
        return events.OtherEvent(kind="recording.statusUpdate", **common)
    url = _optional(recording, "audioDownloadUrl", MAX_URL)
    return events.RecordingReady(
        recording_id=recording_id,
        url=_address(url or _optional(recording, "downloadUrl", MAX_URL)),
        duration=_number(recording.get("recordingDuration")),
        expires_at=_time(recording.get("downloadUrlExpiry")),
        occurred_at=_time(recording.get("stoppedTime")),
        **common,
    )


def _cloudflare_text(kind: RecordedKind) -> Callable[[Body, Body], Event]:
    """A reader of a meeting's texts: one of each kind for each session."""

    def read(entry: Body, common: Body) -> Event:
        url = _optional(entry, f"{kind}DownloadUrl", MAX_URL)
        if not url:
            return events.OtherEvent(kind=f"meeting.{kind}", **common)
        occupancy = common["provider_session_id"] or common["session_id"]
        return events.RecordingReady(
            recording_id=f"{kind}-{occupancy}"[:MAX_ID],
            url=_address(url),
            kind=kind,
            expires_at=_time(entry.get(f"{kind}DownloadUrlExpiry")),
            **common,
        )

    return read


CLOUDFLARE_EVENTS: dict[str, Callable[[Body, Body], Event]] = {
    "meeting.started": _cloudflare_started,
    "meeting.ended": _cloudflare_ended,
    "meeting.participantJoined": _cloudflare_joined,
    "meeting.participantLeft": _cloudflare_left,
    "meeting.transcript": _cloudflare_text(RecordedKind.TRANSCRIPT),
    "meeting.summary": _cloudflare_text(RecordedKind.SUMMARY),
}


def _user(peer: Body) -> str:
    """Our user id; empty for a peer that SyncBridge did not enrol, such as a recorder."""
    return _optional(peer, "customParticipantId") or _optional(peer, "clientSpecificId")


def _object(entry: Body, name: str) -> Body:
    value = entry.get(name)
    if not isinstance(value, dict):
        raise _Wrong(f"{name} is not an object")
    return value


def _optional_object(entry: Body, name: str) -> Body:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _text(entry: Body, name: str) -> str:
    value = text_of(entry.get(name), MAX_ID)
    if not value:
        raise _Wrong(f"{name} is not a text of 1 to {MAX_ID} characters")
    return value


def _optional(entry: Body, name: str, longest: int = MAX_ID) -> str:
    return text_of(entry.get(name), longest)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and 0 <= value < _MS_FROM * 1000 else None


def _time(value: Any) -> float | None:
    """Unix seconds from a number (seconds or milliseconds) or ISO 8601 text; otherwise None."""
    if isinstance(value, str):
        return _iso(value)
    number = _number(value)
    return number / 1000 if number is not None and number >= _MS_FROM else number


def _iso(value: str) -> float | None:
    try:
        moment = datetime.fromisoformat(value) if len(value) <= 64 else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
