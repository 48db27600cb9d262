"""The events of a call, from what its channel tells the sockets."""

import msgspec

from syncbridge.events.voice import voice_events
from syncbridge.voice import announcements
from syncbridge.voice.call_records import Member, Phase, Record
from syncbridge.voice.records import ChannelRecord, Room

ROOM = Room(3, "key", 0, "session-1")


def channel(*users: str, phase: Phase = Phase.ACTIVE, spent: int = 0) -> ChannelRecord:
    members = {user: Member(0, {}) for user in users}
    call = Record(3, phase, 0, spent_ms=spent, members=members)
    return ChannelRecord("lobby", room=ROOM, call=call)


def connected(user: str) -> announcements.Message:
    return announcements.state_update("lobby", user, "connected")


def test_the_first_participant_starts_the_call() -> None:
    """The second one does not, nor who comes back."""
    first = voice_events(channel("ann"), [connected("ann")])
    second = voice_events(channel("ann", "bob"), [connected("bob")])
    back = voice_events(channel("ann", spent=5), [connected("ann")])

    assert ["call.started", "participant.joined"] == [event.kind for event in first]
    assert {"provider_session_id": "session-1", "generation": 3} == msgspec.to_builtins(
        first[0].data
    )
    assert ["participant.joined"] == [event.kind for event in second]
    assert ["participant.joined"] == [event.kind for event in back]
    assert "ann" == first[1].user_id


def test_what_sockets_are_told_is_told() -> None:
    """What is for a user's own devices, and what is muted, is not."""
    new = Room(4, "key", 0, "session-2", reason="health")
    news = [
        announcements.state_update("lobby", "ann", "muted"),
        announcements.held("lobby", "ann", "phone"),
        announcements.state_update("lobby", "ann", "disconnected", reason="left"),
        announcements.migration("lobby", ROOM, new, 30_000),
        announcements.session_ended("lobby", "session-1", "idle"),
        announcements.recording_ready("lobby", "r1", None),
        announcements.recording_failed("lobby", ""),
        announcements.text_ready("lobby", "t1", "transcript"),
    ]
    found = voice_events(channel(phase=Phase.EMPTY), news)

    assert [
        ("participant.left", {"user_id": "ann", "reason": "left"}),
        (
            "call.migrating",
            {
                "old_provider_session_id": "session-1",
                "new_provider_session_id": "session-2",
                "cause": "health",
                "deadline_ms": 30_000,
            },
        ),
        ("call.ended", {"provider_session_id": "session-1", "reason": "idle"}),
        ("recording.ready", {"recording_id": "r1", "duration": None}),
        ("recording.failed", {"recording_id": ""}),
        ("transcript.ready", {"recording_id": "t1"}),
    ] == [(event.kind, msgspec.to_builtins(event.data)) for event in found]
