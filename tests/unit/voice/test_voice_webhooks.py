"""Bodies of webhooks in both dialects, and any bytes."""

import json
from codecs import BOM_UTF8
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.events import (
    Event,
    OtherEvent,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantSpeaking,
    RecordedKind,
    RecordingFailed,
    RecordingReady,
    SessionEnded,
    SessionStarted,
    UnreadableWebhook,
)
from syncbridge.voice.provider.webhook_text import DEPTH, read_document
from syncbridge.voice.provider.webhooks import (
    CLOUDFLARE_EVENTS,
    MAX_BYTES,
    SPEC_EVENTS,
    parse_webhook,
)
from syncbridge.voice.recordings import is_address

AT = 1_700_000_000.0
ISO = "2023-11-14T22:13:20.000Z"
MEETING = {"id": "m1", "sessionId": "s1", "startedAt": ISO, "endedAt": ISO}
PEER = {"peerId": "p1", "customParticipantId": "u1", "joinedAt": ISO, "leftAt": ISO}
RECORDING = {"id": "r1", "status": "UPLOADED", "downloadUrl": "https://x/y", "meetingId": "m1"}
CALL: dict[str, Any] = {"session_id": "m1", "provider_session_id": "s1"}

READABLE: list[tuple[dict[str, Any], Event]] = [
    ({"type": "session.started", "sessionId": "a"}, SessionStarted(session_id="a")),
    (
        {"type": "session.ended", "sessionId": "a", "timestamp": AT},
        SessionEnded(session_id="a", occurred_at=AT),
    ),
    (
        {
            "type": "participant.joined",
            "sessionId": "a",
            "participantId": "u",
            "timestamp": AT * 1000,
        },
        ParticipantJoined(session_id="a", user_id="u", occurred_at=AT),
    ),
    (
        {"type": "participant.left", "sessionId": "a", "participantId": "u", "joinedAt": ISO},
        ParticipantLeft(session_id="a", user_id="u", joined_at=AT),
    ),
    (
        {
            "type": "participant.speaking",
            "sessionId": "a",
            "participantId": "u",
            "isSpeaking": False,
        },
        ParticipantSpeaking(session_id="a", user_id="u", is_speaking=False),
    ),
    (
        {"type": "recording.completed", "sessionId": "a", "recordingId": "r", "duration": 3},
        RecordingReady(session_id="a", recording_id="r", duration=3.0),
    ),
    ({"type": "new.thing"}, OtherEvent(kind="new.thing", session_id="")),
    ({"event": "meeting.started", "meeting": MEETING}, SessionStarted(occurred_at=AT, **CALL)),
    (
        {"event": "meeting.ended", "meeting": MEETING, "reason": "X"},
        SessionEnded(occurred_at=AT, reason="X", **CALL),
    ),
    (
        {"event": "meeting.participantJoined", "meeting": MEETING, "participant": PEER},
        ParticipantJoined(user_id="u1", peer_id="p1", occurred_at=AT, **CALL),
    ),
    (
        {"event": "meeting.participantLeft", "meeting": MEETING, "participant": PEER},
        ParticipantLeft(user_id="u1", peer_id="p1", occurred_at=AT, joined_at=AT, **CALL),
    ),
    (
        {"event": "recording.statusUpdate", "meeting": MEETING, "recording": RECORDING},
        RecordingReady(recording_id="r1", url="https://x/y", **CALL),
    ),
    (
        {
            "event": "recording.statusUpdate",
            "meeting": MEETING,
            "recording": {**RECORDING, "status": "ERRORED"},
        },
        RecordingFailed(recording_id="r1", **CALL),
    ),
    (
        {
            "event": "recording.statusUpdate",
            "meeting": MEETING,
            "recording": {**RECORDING, "status": "UPLOADING"},
        },
        OtherEvent(kind="recording.statusUpdate", **CALL),
    ),
    ({"event": "meeting.summary", "meeting": MEETING}, OtherEvent(kind="meeting.summary", **CALL)),
    (
        {
            "event": "meeting.transcript",
            "meeting": MEETING,
            "transcriptDownloadUrl": "https://x.example/t.csv",
            "transcriptDownloadUrlExpiry": ISO,
        },
        RecordingReady(
            recording_id="transcript-s1",
            url="https://x.example/t.csv",
            kind=RecordedKind.TRANSCRIPT,
            expires_at=AT,
            **CALL,
        ),
    ),
]


@pytest.mark.parametrize(("body", "event"), READABLE)
def test_events_are_read(body: dict[str, Any], event: Event) -> None:
    """Each event of both dialects becomes one typed event."""
    assert [event] == parse_webhook(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"recordingId": "r", "id": "e"}, "r"),
        ({"id": "r"}, "r"),
        ({"recording": {"recordingId": "r", "id": "e"}}, "r"),
        ({"recordingId": "", "recording": {"id": "r"}}, "r"),
        ({"id": 7, "recording": []}, None),
        ({"recordingId": "r" * 257}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("kind", ["recording.ready", "recording.completed"])
def test_no_recording_is_lost_for_its_id(
    kind: str, told: dict[str, Any], expected: str | None
) -> None:
    """Wherever it stands; without any, one recording has the same each time, and another not."""

    def read(**more: Any) -> str:
        body = {"type": kind, "sessionId": "a", "timestamp": AT, **told, **more}
        events = parse_webhook(json.dumps(body).encode())
        assert isinstance(events, list)
        assert isinstance(events[0], RecordingReady)
        return events[0].recording_id

    first = read()
    assert first == read() == (expected or first)
    assert (
        (expected is None) == (first != read(timestamp=AT + 1)) == (first != read(url="https://u"))
    )
    assert 1 <= len(first) <= 256


def test_a_recording_may_be_nested() -> None:
    """Its address and its length stand where its id does; Cloudflare's may have no id either."""
    inner = {"id": "r", "url": "https://x/y", "duration": 3}
    body = {"type": "recording.ready", "sessionId": "a", "recording": inner}
    nameless = {name: value for name, value in RECORDING.items() if name != "id"}
    named = {"recording": {**nameless, "recordingId": "r"}}
    found = [
        parse_webhook(json.dumps({"event": "recording.statusUpdate", **more}).encode())
        for more in (named, {"recording": nameless}, {"recording": nameless})
    ]
    ids = [one[0].recording_id for one in found]  # type: ignore[index, union-attr]

    assert [
        RecordingReady(session_id="a", recording_id="r", url="https://x/y", duration=3.0)
    ] == parse_webhook(json.dumps(body).encode())
    assert "r" == ids[0] != ids[1] == ids[2]


def test_a_list_of_events_is_read_in_order() -> None:
    """Several events may come at once."""
    bodies = [body for body, _ in READABLE]

    assert [event for _, event in READABLE] == parse_webhook(json.dumps(bodies).encode())


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (MAX_BYTES + 1), "too large"),
        (b"1", "an event is not an object"),
        (b"{}", "neither type nor event is given"),
        (json.dumps([{}] * 101).encode(), "too many events"),
        (b'{"type": 1}', "type is not a text of 1 to 256 characters"),
        (b'{"type": "session.ended"}', "sessionId is not a text of 1 to 256 characters"),
        (b'{"event": "meeting.ended", "meeting": []}', "meeting is not an object"),
        (
            b'{"type":"participant.speaking","sessionId":"a","participantId":"u","isSpeaking":1}',
            "isSpeaking is not true or false",
        ),
    ],
)
def test_what_is_no_event_says_why(body: bytes, detail: str) -> None:
    """The reason names the field and quotes nothing of the body."""
    assert UnreadableWebhook(detail) == parse_webhook(body)


def test_of_a_list_the_good_events_are_read() -> None:
    """Beside the first thing that is wrong."""
    good = {"type": "session.ended", "sessionId": "a"}
    found = parse_webhook(json.dumps([good, {"type": "session.ended"}, 7, good]).encode())
    ended = SessionEnded(session_id="a")

    detail = "sessionId is not a text of 1 to 256 characters"
    assert UnreadableWebhook(detail, (ended, ended)) == found


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=9), st.lists, max_leaves=30
    )
)
def test_what_is_read_with_care_is_the_same(value: Any) -> None:
    """A byte order mark makes the careful reader read: it agrees with the quick one."""
    body = json.dumps({"v": value}).encode()

    assert read_document(body) == read_document(BOM_UTF8 + body) == {"v": value}


@pytest.mark.parametrize("sign", [bytes((code,)) for code in range(0x20)])
def test_a_control_character_costs_only_its_member(sign: bytes) -> None:
    """JSON wants it escaped; a sender that does not know says the rest all the same."""
    found = read_document(b'{"x": "a' + sign + b'b", "type": "session.ended"}')

    assert {"x": f"a{sign.decode()}b", "type": "session.ended"} == found


@pytest.mark.parametrize("depth", [DEPTH, DEPTH + 1, 100_000])
def test_what_is_nested_too_deeply_is_empty(depth: int) -> None:
    """Below the bound nothing is left, whatever is in it; beside it everything."""
    inner = rb'["]", {"a": "\\"}]' if depth < 1_000 else b""
    body = b'\xef\xbb\xbf{"x": ' + b"[" * (depth - 1) + inner + b"]" * (depth - 1) + b', "y": 1}'
    found = read_document(body)
    levels, value = 0, found["x"]
    while value:
        levels, value = levels + 1, value[0]

    assert (1, True) == (found["y"], levels < DEPTH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted({*MEETING, *PEER, *RECORDING})), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = ("sessionId", "participantId", "timestamp", "meeting", "participant", "recording")
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(sorted(SPEC_EVENTS)) | JSON,
        "event": st.sampled_from([*CLOUDFLARE_EVENTS, "recording.statusUpdate"]) | JSON,
        **{name: JSON | st.sampled_from([MEETING, PEER, RECORDING, "x"]) for name in FIELDS},
    },
)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.one_of(BODIES, JSON).map(lambda b: json.dumps(b).encode()))
def test_any_bytes_have_an_answer(body: bytes) -> None:
    """Events or a reason, for whatever a sender can think of; never an exception."""
    answer = parse_webhook(body)

    assert isinstance(answer, UnreadableWebhook) or all(
        isinstance(event, Event) for event in answer
    )


def test_urls_of_recordings_are_not_shown() -> None:
    """A recording's URL needs no other key, so it must not get into a log by accident."""
    event = RecordingReady(session_id="a", recording_id="r", url="https://x/secret")

    assert "secret" not in repr(event)


def test_polls_leave_a_reserve_in_the_budget() -> None:
    """Of four tokens polls get three; the last is for calls that somebody waits for."""
    budget = RequestBudget(1.0, 4.0)

    assert [0.0, 0.0, 0.0, 1.0] == [budget.take(10.0, poll=True) for _ in range(4)]
    assert [0.0, 1.0] == [budget.take(10.0) for _ in range(2)]
    assert 0.0 == budget.take(11.0)


def test_a_budget_that_is_shut_says_until_when() -> None:
    """Nothing is given before the time that the provider named, whatever is in the bucket."""
    budget = RequestBudget(1.0, 4.0)
    budget.shut(20.0)

    assert [5.0, 0.0] == [budget.take(15.0), budget.take(20.0)]


BAD_ADDRESSES = ["javascript:alert(1)", "file:///etc/passwd", "ftp://x/y", "//x/y", "https://", "x"]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_an_address_that_is_not_of_the_web_is_refused(address: str) -> None:
    """Wherever it stands. Without any, there is a recording that nobody can fetch here."""
    spec = {"type": "recording.ready", "sessionId": "a", "recordingId": "r", "url": address}
    told = {**RECORDING, "downloadUrl": address, "audioDownloadUrl": ""}
    cloudflare = {"event": "recording.statusUpdate", "recording": told, "meeting": {"id": "a"}}
    for body in (spec, cloudflare):
        found = parse_webhook(json.dumps(body).encode())
        assert isinstance(found, UnreadableWebhook)
        assert "neither http nor https" in found.detail
    spec["url"] = ""
    assert isinstance(parse_webhook(json.dumps(spec).encode()), list)
    assert is_address("HTTPS://r.example:8443/a?b=c#d")
