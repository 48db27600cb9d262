"""What of a dead letter's body an administrator is shown."""

import json
from typing import Any

import pytest

from syncbridge.voice.stored import DeadLetter
from syncbridge_server.http.dead_letters import SHOWN, LetterRow, redacted, row_of

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWl0"


def shown(body: bytes) -> LetterRow:
    return row_of(DeadLetter("1-1", "d", 1_000, 2_000, "why", body))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("plain words", "plain words"),
        ("https://files.example/a?key=1#x", "https://files.example/[redacted]"),
        (
            "see HTTPS://ann:pw@files.example:8443/a b",
            "see HTTPS://files.example:8443/[redacted] b",
        ),
        (f"Bearer {JWT}", "Bearer [redacted]"),
        ({"accessToken": "abc", "n": 1}, {"accessToken": "[redacted]", "n": 1}),
        ({"secrets": ["a", {"b": "c"}]}, {"secrets": ["[redacted]", {"b": "c"}]}),
        ({JWT: [None, True, 1.5]}, {"[redacted]": [None, True, 1.5]}),
    ],
)
def test_nothing_that_opens_something_is_shown(document: Any, expected: Any) -> None:
    """Addresses end at their host; tokens, and what stands under such names, are taken out."""
    assert expected == redacted(document)


def test_escapes_hide_nothing() -> None:
    r"""`\/` and `\u002f` in JSON are slashes."""
    row = shown(rb'{"type": "t", "url": "https:\/\/a.example\u002fsecret"}')

    assert "secret" not in row.body
    assert "https://a.example/[redacted]" == json.loads(row.body)["url"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_not_shown(body: bytes) -> None:
    """Nobody knows what is in it; its size is told."""
    row = shown(body)

    assert ("", [], len(body)) == (row.body, row.events, row.size)


@pytest.mark.parametrize("depth", [32, 200, 300, 400, 480, 10_000])
def test_one_that_is_nested_deeply_hides_no_other(depth: int) -> None:
    """It is shown as far as it is read; the page that it is on is not lost."""
    row = shown(b'{"type": 5, "x": ' + b'{"y": [' * depth + b"]}" * depth + b', "z": 1}')

    assert row.body.startswith('{"type":5,"x":{"y":[')
    assert row.body.endswith(',"z":1}')


def test_odd_texts_are_shown_as_escapes() -> None:
    """Half of a surrogate pair is no text: an answer with it could not be written."""
    row = shown(
        rb'{"type": "t\ud83d", "sessionId": "\udfff", "x": "\ud83d", "token": "abc", "n": NaN}'
    )

    assert [(r"t\ud83d", r"\udfff")] == [(e.type, e.session_id) for e in row.events]
    assert {"x": "\ud83d", "token": "[redacted]", "n": None}.items() <= json.loads(row.body).items()
    assert row.body.isascii()


def test_what_is_shown_is_bounded() -> None:
    """Of a large body the beginning, and of a long list the first ten events."""
    row = shown(json.dumps([{"type": "x" * 500, "sessionId": 7}] * 100).encode())

    assert (SHOWN, 10) == (len(row.body), len(row.events))
    assert ("x" * 256, "7") == (row.events[0].type, row.events[0].session_id)


def test_events_of_both_dialects_are_named() -> None:
    """`type` with `sessionId`, or `event` with `meeting.id`."""
    row = shown(b'[{"type": "a", "sessionId": "s"}, {"event": "b", "meeting": {"id": "m"}}, 7]')

    assert [("a", "s"), ("b", "m")] == [(e.type, e.session_id) for e in row.events]
