"""LiveKit's webhooks: who is believed, what a body says, what of it is kept; names of devices."""

import base64
import hashlib
import json
from typing import Any

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncbridge.voice.provider.events import (
    Event,
    LeaveReason,
    OtherEvent,
    ParticipantJoined,
    ParticipantLeft,
    RecordingFailed,
    RecordingReady,
    SessionEnded,
    UnreadableWebhook,
)
from syncbridge.voice.provider.livekit_names import LONGEST, Person, identity_of, person_of
from syncbridge.voice.provider.livekit_webhooks import (
    MAX_BYTES,
    READERS,
    milliseconds,
    parse_webhook,
    without_secrets,
)
from syncbridge.voice.provider.records import RefusalReason, Verified, WebhookRefused
from syncbridge_server.voice.provider.livekit_signatures import verify

NOW = 1_700_000_000
SECRET, OTHER = "secret-secret-secret-secret-32byte", "another-secret-that-is-32-byte-long"
KEYS = {"APItest": SECRET, "APIold": OTHER, "devkey": "0123456789abcdef0123456789abcdef"}
BODY = (
    b'{"event":"room_started","room":{"sid":"RM_1","name":"voice-ch_1"},'
    b'"id":"EV_1","createdAt":"1700000000"}'
)
SENT_AT = 1_795_950_684
SENT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJkZXZrZXkiLCJleHAiOjE3OTU5NTA5ODQsIm5iZiI"
    "6MTc5NTk1MDY4NCwiaWF0IjoxNzk1OTUwNjg0LCJzaGEyNTYiOiJaS0pjRUxIMGZrY093MUtjb3Q1OExDbFNVYlF"
    "Vd3ROZVBxT2MydHhXaTQ0PSJ9.znlYh8o5LRA6fdIBQV-eA4RpLJR7UFie1HApv49HwiI"
)
SENT_BODY = (
    b'{"event":"room_started", "room":{"sid":"RM_oqmnruDAFXgC", "name":"call", "emptyTimeo'
    b'ut":300, "departureTimeout":20, "creationTime":"1795950684", "creationTimeMs":"17959'
    b'50684258", "turnPassword":"CE5CfEqfJkUbw0tMSssRP5KBMqrBvPpHi98fBrOfzhdD", "enabledCo'
    b'decs":[{"mime":"audio/PCMU"}, {"mime":"audio/PCMA"}, {"mime":"audio/opus"}, {"mime":'
    b'"audio/red"}, {"mime":"video/VP8"}, {"mime":"video/H264"}, {"mime":"video/VP9"}, {"m'
    b'ime":"video/AV1"}, {"mime":"video/H265"}, {"mime":"video/rtx"}]}, "id":"EV_DX7hMdAzp'
    b'4Gg", "createdAt":"1795950684"}'
)
"""As livekit-server 1.13.5 sent it, with the key `devkey`."""
ROOM = {"name": "call", "sid": "RM_1"}
ALICE = {"identity": "alice:phone", "sid": "PA_1", "joinedAtMs": "1700000000250", "state": "ACTIVE"}
CALL: dict[str, Any] = {"session_id": "call", "provider_session_id": "RM_1"}
EGRESS = {"egressId": "EG_1", "roomName": "call", "endedAt": "1700000000500000000"}
FILE = {"location": "https://s3.example/x", "duration": "2500000000"}
FILE_OF = {"location": st.just("https://s3.example/x")}

SAID: dict[str, tuple[dict[str, Any], Event]] = {
    "joined": (
        {"event": "participant_joined", "room": ROOM, "participant": ALICE},
        ParticipantJoined(
            user_id="alice", device_id="phone", peer_id="PA_1", occurred_at=NOW + 0.25, **CALL
        ),
    ),
    "joined by telephone": (
        {"event": "participant_joined", "room": ROOM, "participant": {**ALICE, "kind": "SIP"}},
        ParticipantJoined(user_id="alice:phone", peer_id="PA_1", occurred_at=NOW + 0.25, **CALL),
    ),
    "joined by telephone, with an address for a name": (
        {
            "event": "participant_joined",
            "room": ROOM,
            "participant": {**ALICE, "identity": "sip:+49%c30@host", "kind": "SIP"},
        },
        ParticipantJoined(
            user_id="sip:+49%c30@host", peer_id="PA_1", occurred_at=NOW + 0.25, **CALL
        ),
    ),
    "an ingress": (
        {"event": "participant_joined", "room": ROOM, "participant": {**ALICE, "kind": "INGRESS"}},
        OtherEvent(kind="participant_joined", session_id="call"),
    ),
    "an ingress that begins": (
        {"event": "ingress_started", "ingressInfo": {"ingressId": "IN_1", "roomName": "call"}},
        OtherEvent(kind="ingress_started", session_id=""),
    ),
    "an ingress that ends": (
        {"event": "ingress_ended", "ingressInfo": {"ingressId": "IN_1", "state": {"error": "x"}}},
        OtherEvent(kind="ingress_ended", session_id=""),
    ),
    "a recorder": (
        {"event": "participant_joined", "room": ROOM, "participant": {**ALICE, "kind": "EGRESS"}},
        OtherEvent(kind="participant_joined", session_id="call"),
    ),
    "left, by the end of the second that is named": (
        {
            "event": "participant_left",
            "room": ROOM,
            "createdAt": str(NOW),
            "participant": {**ALICE, "disconnectReason": "DUPLICATE_IDENTITY"},
        },
        ParticipantLeft(
            user_id="alice",
            peer_id="PA_1",
            joined_at=NOW + 0.25,
            reason=LeaveReason.REPLACED,
            occurred_at=NOW + 1.0,
            **CALL,
        ),
    ),
    "left for a reason that is new": (
        {
            "event": "participant_left",
            "room": ROOM,
            "participant": {"identity": "bob", "sid": "PA_2", "disconnectReason": "ELOPED"},
        },
        ParticipantLeft(user_id="bob", peer_id="PA_2", **CALL),
    ),
    "finished, not before the second that is named": (
        {"event": "room_finished", "room": ROOM, "createdAt": str(NOW)},
        SessionEnded(reason="finished", occurred_at=float(NOW), **CALL),
    ),
    "recorded": (
        {"event": "egress_ended", "egressInfo": {**EGRESS, "fileResults": [FILE]}},
        RecordingReady(
            recording_id="EG_1",
            session_id="call",
            url="https://s3.example/x",
            duration=2.5,
            occurred_at=NOW + 0.5,
        ),
    ),
    "not recorded": (
        {"event": "egress_ended", "egressInfo": {**EGRESS, "status": "EGRESS_FAILED"}},
        RecordingFailed(recording_id="EG_1", session_id="call", occurred_at=NOW + 0.5),
    ),
    "streamed by somebody else, which is no recording": (
        {
            "event": "egress_ended",
            "egressInfo": {
                **EGRESS,
                "status": "EGRESS_FAILED",
                "streamResults": [{"url": "rtmp://stream.example/live", "status": "FAILED"}],
            },
        },
        OtherEvent(kind="egress_ended", session_id="call"),
    ),
    "a room was made, which is no call yet": (
        {"event": "room_started", "room": ROOM},
        OtherEvent(kind="room_started", session_id="call"),
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_body_is_read(case: str) -> None:
    """Zero values are left out, numbers of 64 bits are texts."""
    body, event = SAID[case]

    assert [event] == parse_webhook(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("kind", "person"),
    [
        *[(odd, True) for odd in (None, 0, 3, 1.5, True, [], ["STANDARD"], {}, {"a": 1})],
        *[(other, False) for other in ("", "AGENT", "\ud83d", 1, 2, 4, -1, 10**30)],
    ],
)
@pytest.mark.parametrize("event", ["participant_joined", "participant_left"])
def test_an_odd_kind_makes_nobody_vanish(event: str, kind: object, person: bool) -> None:
    """A kind is a name or a number; what is neither says nothing about who it is."""
    body = {"event": event, "room": ROOM, "participant": {**ALICE, "kind": kind}}
    found = parse_webhook(json.dumps(body).encode())

    assert isinstance(found, list)
    assert person != isinstance(found[0], OtherEvent)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("member", ["room", "participant", "egressInfo"])
@pytest.mark.parametrize("value", [None, "x", [], {}, {"name": 1, "sid": "\ud800"}])
def test_a_part_that_is_odd_is_unreadable(kind: str, member: str, value: object) -> None:
    """It is said which one, and nothing of it is quoted."""
    whole = {"event": kind, "room": ROOM, "participant": ALICE, "egressInfo": EGRESS}
    needed = {"room_finished": ("room",), "egress_ended": ("egressInfo",)}
    found = parse_webhook(json.dumps({**whole, member: value}).encode())

    if member in needed.get(kind, ("room", "participant")):
        assert isinstance(found, UnreadableWebhook)
    else:
        assert isinstance(found, list)


@given(st.binary(max_size=200))
@example(b"x" * (MAX_BYTES + 1))
@example(b"[1]")
@example(b'{"event":{}}')
@example(b"[" * 100_000)
def test_any_bytes_have_an_answer(body: bytes) -> None:
    """And the store gets a body for all of them."""
    assert isinstance(parse_webhook(body), list | UnreadableWebhook)
    assert isinstance(without_secrets(body), bytes)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**30, 10**400, "5"])
)
JSON = st.recursive(
    SCALARS | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_odd_members_have_an_answer(data: st.DataObject) -> None:
    """Whatever one member of a body that we can read says, in place of what it should."""
    body, _ = SAID[data.draw(st.sampled_from(sorted(SAID)))]
    whole = json.loads(json.dumps(body | {"createdAt": "5"}))
    part = data.draw(st.sampled_from([whole, *[v for v in whole.values() if isinstance(v, dict)]]))
    odd = data.draw(st.sampled_from([*part, "joinedAtMs", "endedAt", "fileResults"]))
    part[odd] = data.draw(JSON | st.lists(st.fixed_dictionaries({**FILE_OF, "duration": JSON})))
    found = parse_webhook(json.dumps(whole).encode())

    assert isinstance(found, UnreadableWebhook) or all(isinstance(one, Event) for one in found)


@pytest.mark.parametrize("large", [2**63, 10**400, str(2**63), "9" * 20])
def test_a_time_beyond_every_time_is_none(large: object) -> None:
    """Of a body, and of an answer of the API."""
    body = {"event": "participant_left", "room": ROOM, "createdAt": large}
    [left] = parse_webhook(json.dumps({**body, "participant": ALICE}).encode())

    assert isinstance(left, ParticipantLeft)
    assert (None, None) == (left.occurred_at, milliseconds(large))


def test_a_credential_is_not_kept() -> None:
    """The TURN password goes, whatever is in it; all else stays as it is."""
    password = 'a"\\b}'
    body = {"event": "room_finished", "room": {**ROOM, "turnPassword": password}}
    spaced = json.dumps(body).replace('"turnPassword":', '"turnPassword" :\n').encode()
    kept = without_secrets(spaced)

    assert b'a\\"' not in kept
    assert {**ROOM, "turnPassword": ""} == json.loads(kept)["room"]


def signed(body: bytes, key: str = "APItest", secret: str = SECRET, **claims: Any) -> str:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    said = {"iss": key, "nbf": NOW, "exp": NOW + 300, "sha256": digest, **claims}
    return jwt.encode({k: v for k, v in said.items() if v is not None}, secret, "HS256")


def judged(token: str, body: bytes = BODY, now: float = NOW) -> Verified | WebhookRefused:
    return verify({"authorization": token} if token else {}, body, now, KEYS, 300.0)


@pytest.mark.parametrize(
    "token",
    [signed(BODY), "Bearer " + signed(BODY), signed(BODY, "APIold", OTHER)],
    ids=["as it is sent", "with Bearer", "by the other key"],
)
def test_what_was_signed_is_believed(token: str) -> None:
    """By any key of ours; the id of the event is that of the delivery."""
    assert Verified("EV_1", float(NOW), without_secrets) == judged(token)


@pytest.mark.parametrize("later", [0.0, 300.0])
def test_what_a_real_server_sent_is_believed(later: float) -> None:
    """And kept without its password; five minutes later still, and not after that."""
    verdict = judged(SENT, SENT_BODY, SENT_AT + later)

    assert isinstance(verdict, Verified)
    assert ("EV_DX7hMdAzp4Gg", SENT_AT) == (verdict.delivery_id, verdict.sent_at)
    assert verdict.redact is not None
    kept = json.loads(verdict.redact(SENT_BODY))
    assert {**json.loads(SENT_BODY)["room"], "turnPassword": ""} == kept["room"]
    assert WebhookRefused(RefusalReason.STALE) == judged(SENT, SENT_BODY, SENT_AT + 361.0)


def test_a_body_without_an_id_is_known_by_its_digest() -> None:
    """So that it takes effect once, too."""
    body = b'{"event":"room_finished"}'
    digest = hashlib.sha256(body).hexdigest()

    assert Verified(digest, NOW, without_secrets) == judged(signed(body), body)


none = jwt.encode({"iss": "APItest", "nbf": NOW, "exp": NOW + 300}, "", "none")
DEEP = base64.urlsafe_b64encode(b"[" * 1_400).decode()
REFUSED = {
    "a head nested too deeply": (f"{DEEP}.e30.e30", RefusalReason.MALFORMED),
    "claims nested too deeply": (f"{none.partition('.')[0]}.{DEEP}.e30", RefusalReason.MALFORMED),
    "nothing": ("", RefusalReason.MISSING),
    "no token": ("Bearer x.y", RefusalReason.MALFORMED),
    "too long": ("x" * 5000, RefusalReason.MALFORMED),
    "an unknown key": (signed(BODY, "APIx"), RefusalReason.MISMATCH),
    "no key": (signed(BODY, iss=None), RefusalReason.MISMATCH),
    "the secret of another key": (signed(BODY, "APItest", OTHER), RefusalReason.MISMATCH),
    "not signed": (none, RefusalReason.MISMATCH),
    "another body": (signed(BODY + b" "), RefusalReason.MISMATCH),
    "no digest": (signed(BODY, sha256=None), RefusalReason.MISMATCH),
    "a digest that is no text": (signed(BODY, sha256=5), RefusalReason.MISMATCH),
    "a digest that is not ASCII": (signed(BODY, sha256="é"), RefusalReason.MISMATCH),
    "a digest with half of a surrogate pair": (
        signed(BODY, sha256="\ud83d"),
        RefusalReason.MISMATCH,
    ),
    "an end beyond every time": (signed(BODY, exp=10**400), RefusalReason.MALFORMED),
    "no end": (signed(BODY, exp=None), RefusalReason.MALFORMED),
    "no beginning": (signed(BODY, nbf=None), RefusalReason.MALFORMED),
    "over": (signed(BODY, nbf=NOW - 400, exp=NOW - 100), RefusalReason.STALE),
    "not yet": (signed(BODY, nbf=NOW + 61, exp=NOW + 300), RefusalReason.STALE),
    "older than we take, whatever its end": (
        signed(BODY, nbf=NOW - 361, exp=NOW + 9e9),
        RefusalReason.STALE,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_all_else_is_refused(case: str) -> None:
    """With the reason, and without a word of the token."""
    token, reason = REFUSED[case]

    assert WebhookRefused(reason) == judged(token)


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=256)


@given(NAMES, st.just("") | NAMES)
@example("a:b%c", "%p:x")
@example(":" * 64, ":" * 64)
@example("é" * 128, "phone")
@example("%h", "")
def test_an_identity_is_one_person_and_device(user: str, device: str) -> None:
    """There and back, within what LiveKit takes; short ones need no attributes."""
    identity, attributes = identity_of(Person(user, device))
    short = len(f"{user}:{device}".encode()) <= 64

    assert len(identity.encode()) <= LONGEST
    assert Person(user, device) == person_of(identity, attributes)
    assert not (short and attributes)


def test_no_two_have_one_identity() -> None:
    """Where the user ends and the device begins cannot be moved."""
    people = [("a:b", "c"), ("a", "b:c"), ("a%cb", "c"), ("a:b:c", ""), ("a", ""), ("a%p", "")]

    assert len(people) == len({identity_of(Person(*one))[0] for one in people})


@pytest.mark.parametrize(
    ("identity", "attributes", "person"),
    [
        ("sip_+493012345", {}, Person("sip_+493012345")),
        ("%h" + "0" * 64, {}, Person("%h" + "0" * 64)),
        ("%hx", {"syncbridge.user": 5, "syncbridge.device": []}, Person("%hx")),
        ("%hx", {"syncbridge.user": "x" * 257, "syncbridge.device": "\ud800"}, Person("%hx")),
        (":phone", {}, Person(":phone")),
    ],
)
def test_identities_of_others(identity: str, attributes: dict[str, object], person: Person) -> None:
    """A telephone is a user by its name; what names no user, or none that we know, too."""
    assert person == person_of(identity, attributes)


@pytest.mark.parametrize("location", ["s3://bucket/x", "/out/x.mp4", "javascript:alert(1)"])
def test_a_recording_that_is_not_on_the_web_is_refused(location: str) -> None:
    """Nobody could fetch it, and the address may be more than one."""
    file = FILE | {"location": location}
    body = {"event": "egress_ended", "egressInfo": {**EGRESS, "fileResults": [file]}}
    found = parse_webhook(json.dumps(body).encode())

    assert isinstance(found, UnreadableWebhook)
    assert "neither http nor https" in found.detail
