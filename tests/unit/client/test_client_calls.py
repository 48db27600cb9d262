"""What a client says of its calls, and when: reports, repetitions, losses."""

import itertools
import json
import math
from typing import Any

import pytest

from syncbridge_client.events import Event, VoiceEvent, VoiceLost
from syncbridge_client.voice import SPEAKING_SECONDS, Participant, VoiceCalls


def new() -> VoiceCalls:
    numbers = itertools.count(1)
    return VoiceCalls("phone", lambda: f"id-{next(numbers)}")


def due(calls: VoiceCalls, now: float) -> list[dict[str, Any]]:
    return [json.loads(message) for message in calls.due(now)]


def state(interval: int = 10_000, **more: Any) -> dict[str, Any]:
    """A voice_state of channel c with ann in it."""
    ann = {"userId": "ann", "joinedAt": 5, "state": "connected", "muted": False, "video": False}
    body = {"channelId": "c", "sessionId": "s1", "phase": "active", "participants": [ann]}
    return body | {"reportIntervalMs": interval} | more


def joined(now: float = 0.0) -> VoiceCalls:
    calls = new()
    calls.hear("voice_state", state())
    calls.keep({"channelId": "c", "connectionId": "c1"}, now)
    return calls


def update(calls: VoiceCalls, user: str, word: str, **more: Any) -> list[Event]:
    body = {"channelId": "c", "userId": user, "state": word} | more
    return calls.hear("voice_state_update", body)


def test_a_call_that_was_joined_is_reported_at_the_servers_interval() -> None:
    """With everything that was said when it was joined, and at once on a new connection."""
    calls = joined()

    assert ([], 10.0) == (due(calls, 9.9), calls.next_due())
    report = due(calls, 10.0)
    assert [("voice_join", "c", "c1")] == [
        (one["type"], one["channelId"], one["connectionId"]) for one in report
    ]
    assert 20.0 == calls.next_due()
    calls.connected([state()], 12.0)
    assert 1 == len(due(calls, 12.0))
    calls.drop("c")
    assert ([], math.inf) == (due(calls, 100.0), calls.next_due())


def test_calls_go_on_while_the_server_does_not_know_them() -> None:
    """A node that was just started says nothing of calls; another one, that there are none."""
    calls = joined()
    calls.connected(None, 5.0)
    unknown = set(calls.calls)
    calls.connected([], 6.0)

    assert ({"c"}, set()) == (unknown, set(calls.calls))


def test_speaking_is_repeated_until_it_ends() -> None:
    """The end is said once; nothing is said of a call that was not joined."""
    calls = joined()
    calls.speaking("c", True, 1.0)
    calls.speaking("other", True, 1.0)

    assert [True] == [one["isSpeaking"] for one in due(calls, 1.0)]
    assert [] == due(calls, 1.0 + SPEAKING_SECONDS / 2)
    assert [True] == [one["isSpeaking"] for one in due(calls, 1.0 + SPEAKING_SECONDS)]
    calls.speaking("c", False, 2.0)
    assert [False] == [one["isSpeaking"] for one in due(calls, 2.0)]
    assert [] == due(calls, 9.0)


def test_of_one_id_the_named_waddle_is_heard() -> None:
    """Another waddle's messages are told to the program, and change nothing here."""
    calls = joined()
    calls.choose("c", "w")
    whole = {"channelId": "c", "sessionId": "s2", "phase": "active", "participants": []}
    for kind in ("voice_state", "session_ended"):
        told = calls.hear(kind, {**whole, "waddleId": "other", "reason": "ended"})
        assert [VoiceEvent] == [type(event) for event in told]
        assert "s2" != calls.calls["c"].session_id
    calls.hear("voice_state", {**whole, "waddleId": "w"})
    assert ("s2", "w") == (calls.calls["c"].session_id, calls.calls["c"].waddle_id)
    assert VoiceLost in [type(one) for one in calls.hear("session_ended", whole)]


def test_changes_of_a_call_are_followed() -> None:
    """Who came, went, is muted, speaks; the session that it moves to; its end."""
    calls = joined()
    update(calls, "bob", "connected")
    update(calls, "bob", "muted")
    update(calls, "ann", "held", deviceId="phone")
    several = [{"userId": "ann", "isSpeaking": True}, {"userId": "eve", "isSpeaking": True}]
    calls.hear("speaking_update", {"channelId": "c", "updates": several})
    assert {
        "ann": Participant("ann", 5, speaking=True, device_id="phone"),
        "bob": Participant("bob", muted=True),
    } == calls.calls["c"].participants
    update(calls, "bob", "disconnected", reason="left")
    calls.hear("session_migration", {"channelId": "c", "newSessionId": "s2"})
    assert (["ann"], "s2") == (list(calls.calls["c"].participants), calls.calls["c"].session_id)
    told = calls.hear("session_ended", {"channelId": "c", "reason": "idle"})
    assert [VoiceEvent, VoiceLost] == [type(event) for event in told]
    assert ({}, math.inf) == (dict(calls.calls), calls.next_due())


def test_another_device_takes_the_call() -> None:
    """The device that was released says nothing more; news of other devices change nothing."""
    calls = joined()

    assert 1 == len(update(calls, "ann", "released", deviceId="laptop", reason="handoff"))
    assert 1 == len(due(calls, 10.0))
    events = update(calls, "ann", "released", deviceId="phone", reason="handoff")
    assert VoiceLost("c", "handoff") == events[-1]
    assert [] == due(calls, 99.0)


def test_a_report_that_is_refused_for_a_moment_comes_again() -> None:
    """And one that is refused for good is the end of it."""
    calls = joined()
    first = due(calls, 10.0)[0]["correlation_id"]

    assert calls.owns(first)
    assert calls.failed(first, "store_unavailable", 3.0, True, 10.5) is None
    second = due(calls, 13.5)[0]["correlation_id"]
    assert VoiceLost("c", "not_found") == calls.failed(second, "not_found", 0.0, False, 14.0)
    assert (False, []) == (calls.owns(second), due(calls, 99.0))


def in_call() -> VoiceCalls:
    """Ann's phone has joined channel c, and knows whose it is."""
    calls = joined()
    calls.connected([state()], 0.0, "ann")
    return calls


def losses(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, VoiceLost)]


@pytest.mark.parametrize("reason", ["migration", "verified"])
def test_who_is_told_to_be_out_for_good_has_lost_the_call(reason: str) -> None:
    """No report as before changes it; what others go through does not count."""
    calls = in_call()

    assert [] == losses(update(calls, "bob", "disconnected", reason=reason))
    assert [VoiceLost("c", reason)] == losses(update(calls, "ann", "disconnected", reason=reason))
    assert [] == losses(update(calls, "ann", "disconnected", reason=reason))
    assert ([], {}) == (due(calls, 99.0), calls.said("c"))


@pytest.mark.parametrize("reason", ["left", "expired"])
def test_who_may_come_back_goes_on_reporting(reason: str) -> None:
    """The media may reconnect, a report may bring the user back."""
    calls = in_call()

    assert [] == losses(update(calls, "ann", "disconnected", reason=reason))
    assert 1 == len(due(calls, 10.0))


def test_a_call_that_does_not_show_the_user_is_lost() -> None:
    """Two answers in a row to reports: the news was missed while the device was away."""
    calls = in_call()
    nobody = state(participants=[])

    def answer(now: float, body: dict[str, Any]) -> list[Event]:
        report_id = due(calls, now)[0]["correlation_id"]
        return losses(calls.hear("voice_state", body | {"correlation_id": report_id}))

    assert [] == [*answer(10.0, nobody), *answer(20.0, state()), *answer(30.0, nobody)]
    assert [] == losses(calls.hear("voice_state", nobody))
    calls.connected([], 31.0, "ann")
    assert [] == answer(31.0, nobody)
    assert [VoiceLost("c", "verified")] == answer(41.0, nobody)
    assert [] == due(calls, 99.0)
