"""Why somebody is shown or not, in plain words."""

from typing import Any

from syncbridge.voice.why import LINES, explained


def channel(
    *people: dict[str, Any], session: str | None = "s1", reason: str = ""
) -> dict[str, Any]:
    room = None if session is None else {"sessionId": session}
    return {
        "channelId": "lobby",
        "session": room,
        "participants": list(people),
        "health": {"reason": reason},
    }


def person(user: str, evidence: dict[str, Any] | None) -> dict[str, Any]:
    return {"userId": user, "joinedAt": "T1", "evidence": evidence}


def entry(what: str, user: str = "bob", source: str = "webhook", **more: Any) -> dict[str, Any]:
    return {"at": "T2", "source": source, "what": what, "userId": user, **more}


SHOWN = {
    "source": "webhook",
    "ref": "m1",
    "lastConfirmedAt": "T3",
    "lastConfirmedBy": "list",
    "deviceId": "phone",
    "connections": [
        {
            "connectionId": "p1",
            "seenAt": "T3",
            "doubts": [{"source": "list", "at": "T4"}],
            "leaseUntil": "T5",
        }
    ],
}


def test_why_somebody_is_shown() -> None:
    """By whose word since when, who confirmed it, what speaks against it."""
    assert [
        "bob is shown in the call of lobby, since T1.",
        "First shown by a webhook of the provider (m1).",
        "Last confirmed at T3 by the provider's list.",
        "Device phone holds the call.",
        "Connection p1: last seen at T3.",
        "  Doubted: the provider's list of T4 speaks against it; one more statement removes it.",
        "  Its device has reported, and must report again before T5.",
    ] == explained("bob", channel(person("bob", SHOWN)), [])


def test_why_somebody_is_not_shown() -> None:
    """How they went, and what was said since in vain."""
    entries = [
        entry("ignored", source="report", ref="phone", reason="gone"),
        entry("token", source="token"),
        entry("left", source="list", reason="verified", wrongMs=30_500),
        entry("ignored", reason="full"),
    ]
    lines = explained("bob", channel(), entries)

    assert [
        "bob is not shown in the call of lobby.",
        "At T2 a report of the device (phone) spoke of them, in vain: what it names is known to be"
        " gone, or the provider had not shown it twice.",
        "At T2 they were given a token; nothing has shown them in the media since.",
        "They were there until T2: two statements, independent of each other, said that the"
        " connection is gone. The last word was the provider's list.",
        "They were shown for at most 30.5 s too long.",
        "",
    ] == lines[:6]
    assert 5 == len(lines[6:])


def test_who_was_never_spoken_of() -> None:
    """Nobody said anything about them, whatever was said of the call; or there is no call."""
    whole = explained("bob", channel(), [entry("opened", user="")])
    nothing = explained("bob", channel(session=None), [])

    assert "Nothing was said about them, as far back as the timeline goes." == whole[1]
    assert "bob is not shown: there is no call in lobby." == nothing[0]
    assert ["bob is not shown: there was no call in this channel yet."] == explained(
        "bob", None, []
    )


def test_a_call_that_cannot_be_verified_says_so() -> None:
    """And the timeline is told in lines, of which the latest are shown."""
    entries = [entry("confirmed", ref=f"m{number}") for number in range(LINES + 3)]
    lines = explained("bob", channel(person("bob", None), reason="empty"), entries)

    assert "Why is told to services, to admins, and to the user." == lines[1]
    assert lines[2].endswith("the provider's list is empty, which proves nothing.")
    assert "  T2  webhook m0: confirmed bob" == lines[5]
    assert LINES == len(lines[5:])
