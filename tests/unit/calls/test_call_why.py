"""Why somebody is shown or not, in plain words."""

from typing import Any

import pytest

from syncbridge.voice.provider.records import VerifyFailure
from syncbridge.voice.verification import BROKEN_OFF, ERROR, WAITING
from syncbridge.voice.why import LINES, Statement, explained, line_of


def channel(
    *people: dict[str, Any], session: str | None = "s1", reason: str = ""
) -> dict[str, Any]:
    room = None if session is None else {"sessionId": session, "generation": 1}
    return {
        "channelId": "lobby",
        "session": room,
        "participants": list(people),
        "health": {"reason": reason},
        "removing": [],
    }


def person(user: str, evidence: dict[str, Any] | None, state: str = "connected") -> dict[str, Any]:
    return {"userId": user, "joinedAt": "T1", "state": state, "evidence": evidence}


def entry(what: str, user: str = "bob", source: str = "webhook", **more: Any) -> dict[str, Any]:
    return {"at": "T2", "source": source, "what": what, "userId": user, **more}


CONNECTION = {
    "connectionId": "p1",
    "generation": 1,
    "seenAt": "T3",
    "doubts": [{"source": "list", "at": "T4"}],
    "leaseUntil": "T5",
}
SHOWN = {
    "source": "webhook",
    "ref": "m1",
    "lastConfirmedAt": "T3",
    "lastConfirmedBy": "list",
    "deviceId": "phone",
    "connections": [CONNECTION],
}


def test_why_somebody_is_shown() -> None:
    """By whose word since when, who confirmed it, what speaks against it."""
    assert [
        "bob is shown in the call of lobby, since T1.",
        "First shown by a webhook of the provider (m1).",
        "Last confirmed at T3 by the provider's list.",
        "Device phone holds the call.",
        "Connection p1: last seen at T3.",
        "  Doubted: the provider's list at T4 is one negative; a second one removes it.",
        "  Its device has reported, and must report again before T5.",
    ] == explained("bob", channel(person("bob", SHOWN)), [])


def test_why_somebody_is_not_shown() -> None:
    """How they went, and later ignored evidence."""
    entries = [
        entry("ignored", source="report", ref="phone", reason="gone"),
        entry("token", source="token"),
        entry("left", source="list", reason="verified", wrongMs=30_500),
        entry("ignored", reason="full"),
    ]
    lines = explained("bob", channel(), entries)

    assert [
        "bob is not shown in the call of lobby.",
        "At T2 a report of the device (phone) was ignored: the connection is known to be"
        " gone, or two lists did not show it.",
        "At T2 they got a token; nothing has shown them in the media since.",
        "They were in the call until T2: two independent statements said that the connection is"
        " gone. The last evidence was the provider's list.",
        "They were shown for at most 30.5 s too long.",
        "",
    ] == lines[:6]
    assert 5 == len(lines[6:])


def test_who_was_never_spoken_of() -> None:
    """Nobody said anything about them, whatever was said of the call; or there is no call."""
    whole = explained("bob", channel(), [entry("opened", user="")])
    nothing = explained("bob", channel(session=None), [])

    assert "The timeline has no entry about them." == whole[1]
    assert "bob is not shown: there is no call in lobby." == nothing[0]
    assert ["bob is not shown: the channel has had no call yet."] == explained("bob", None, [])


def test_a_call_that_cannot_be_verified_says_so() -> None:
    """And the timeline is told in lines, of which the latest are shown."""
    entries = [entry("confirmed", ref=f"m{number}") for number in range(LINES + 3)]
    lines = explained("bob", channel(person("bob", None), reason="empty"), entries)

    assert "Only services, admins and the user can see the evidence." == lines[1]
    assert lines[2].endswith("the provider's list is empty, which proves nothing.")
    assert "  T2  webhook m0: confirmed bob" == lines[5]
    assert LINES == len(lines[5:])


def test_who_was_sent_away_is_said() -> None:
    """The removal is noted before the leave that it causes; what was before they came is past."""
    entries = [
        entry("left", source="provider", reason="left"),
        entry("doubted", source="operator", ref="root"),
        entry("sent_away", source="operator", ref="root"),
        entry("joined"),
        entry("token", source="token"),
        entry("sent_away", source="operator", ref="other"),
    ]
    lines = explained("bob", channel(), entries)

    assert "At T2 an operator (root) removed them; they need a new token to come back." == lines[1]
    assert lines[2].startswith("They were in the call until T2: ")
    assert not any("other" in line for line in lines[:3])


def test_what_is_about_to_change_is_said() -> None:
    """A handoff, a migration, a removal that the provider has yet to do."""
    old = {**CONNECTION, "generation": 0, "doubts": [], "leaseUntil": None}
    shown = channel(person("bob", {**SHOWN, "connections": [old]}, "moving"))
    shown["removing"] = ["bob"]
    lines = explained("bob", shown, [])

    assert "The call is about to move to another device of theirs." == lines[1]
    assert lines[-2].endswith("the call has moved, and they have not come over yet.")
    assert "They were sent away, and the provider must still remove them." == lines[-1]


@pytest.mark.parametrize(
    ("what", "reason", "words"),
    [
        ("left", "left", "the end of the connection was reported"),
        ("released", "left", "the device reported that it left"),
        ("left", "expired", "then stopped reporting"),
        ("holds", "expired", "did not come in time"),
        ("released", "replaced", "another device"),
        ("ended", "replaced", "another configuration"),
        ("ended", "unopened", "opened no room"),
        ("ignored", "ended", "the call had ended"),
        ("left", "ended", "the call was ended"),
        ("migrating", "lost", "had lost the session"),
        ("migrated", "stranded", "nobody came over"),
        ("opened", "", ""),
    ],
)
def test_a_reason_means_what_its_entry_is_about(what: str, reason: str, words: str) -> None:
    """One word, another meaning for a device than for a connection or a call."""
    line = line_of(Statement("T2", "report", what, reason=reason))
    assert words in line
    assert ("(" in line) is bool(words)


LISTS = [f"list_{failure}" for failure in VerifyFailure]


@pytest.mark.parametrize("reason", [*VerifyFailure, *LISTS, WAITING, BROKEN_OFF, ERROR])
def test_each_doubt_has_words(reason: str) -> None:
    """Whatever kept the comparison from verifying the call."""
    (line,) = explained("bob", channel(reason=reason), [])[2:]
    assert "could not verify" in line
    assert "answer: " not in line
    assert "_" not in line
