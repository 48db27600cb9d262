"""Events out of outboxes: what is written becomes what is told, and nothing else does."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.errors import SyncBridgeError
from syncbridge.events import kinds
from syncbridge.events.cursor import START, Cursor, before, missing, parse_cursor
from syncbridge.events.kinds import KINDS, Event
from syncbridge.events.outbox import Unreadable, event_of, netstrings, new_event, without_values
from syncbridge.events.selection import Selection, parse_kinds
from syncbridge_server.events.outboxes import carried, lost_of, place_after
from syncbridge_server.ports.events import Part, Place


def entry(**fields: str) -> list[bytes]:
    return [part.encode() for pair in fields.items() for part in pair]


def event(kind: str = "session.expired", **about: str) -> Event:
    return new_event("t-1-0", kind, 0, KINDS[kind][1] and kinds.SessionExpired(), **about)


@given(st.lists(st.binary(max_size=30)))
def test_texts_come_back(texts: list[bytes]) -> None:
    """Whatever bytes they have."""
    packed = b"".join(b"%d %b" % (len(text), text) for text in texts)
    assert texts == netstrings(packed)


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from([*KINDS]))
def test_no_entry_is_a_surprise(name: bytes, value: bytes, kind: str) -> None:
    """Any bytes are an event of the kind that they name, or unreadable."""
    for flat in ([name, value], [b"k", kind.encode(), name, value], [b"k", value], [name]):
        try:
            told = event_of("t", b"12-3", flat)
        except Unreadable:
            continue
        msgspec.json.decode(msgspec.json.encode(told), type=Event)
        msgspec.json.decode(told.data, type=KINDS[told.type][1])


def test_an_entry_tells_when_and_about_what() -> None:
    """The time is that of the entry's name, and the id is its place."""
    told = event_of("ru", b"1732952000123-4", entry(k="device.left", s="S", u="ann", d="p", r="x"))

    assert "ru-1732952000123-4" == told.id
    assert "2024-11-30T07:33:20.123Z" == told.timestamp
    assert ("S", "ann", "") == (told.session_id, told.user_id, told.channel_id)


def test_data_of_another_shape_is_refused() -> None:
    """What is given as JSON must be what the kind says."""
    good = event_of(
        "0", b"1-1", entry(k="call.ended", j='{"provider_session_id":"a","reason":"b"}')
    )
    assert "call.ended" == good.type
    with pytest.raises(Unreadable):
        event_of("0", b"1-1", entry(k="call.ended", j='{"reason":1}'))


def test_values_are_taken_out_for_who_does_not_want_them() -> None:
    """The rest stays as it was."""
    fields = entry(k="session.updated", f="1", v="2", K="1 a", V="3 1.5")
    whole = event_of("t", b"1-1", fields)
    bare = without_values(whole)

    assert {"a": 1.5} == msgspec.json.decode(whole.data)["values"]
    assert ["a"] == msgspec.json.decode(bare.data)["keys"]
    assert "values" not in msgspec.json.decode(bare.data)
    assert whole.id == bare.id


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-1", "1-1-1", "1-9999999999999999999999"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """It is said which parameter it is."""
    with pytest.raises(SyncBridgeError, match="after"):
        parse_cursor(text)


def test_gaps_are_seen_by_numbers() -> None:
    """A number that is not greater is another history, told apart by its time."""
    at = parse_cursor("100-7")

    assert 0 == missing(at, Cursor(101, 8))
    assert 2 == missing(at, Cursor(101, 10))
    assert 0 == missing(at, Cursor(200, 3))
    assert 999 == missing(START, Cursor(101, 1_000))
    assert 0 == missing(START, Cursor(101, 1))
    assert 0 == missing(before(Cursor(101, 10)), Cursor(101, 10))


def test_a_selection_selects() -> None:
    """By kind, family and what the event is about; losses concern everybody."""
    one = event(session_id="S", user_id="ann")
    lost = new_event("l", "events.lost", 0, kinds.EventsLost(1, "", "", "", ""))

    assert Selection().wants(one)
    assert Selection(("session.*",), "S", "ann").wants(one)
    assert not Selection(("device.*",)).wants(one)
    assert not Selection(session_id="T").wants(one)
    assert not Selection(user_id="bob").wants(one)
    assert not Selection(channel_id="lobby").wants(one)
    assert not Selection(waddle_id="team").wants(one)
    assert Selection(("device.*",), "T").wants(lost)
    with pytest.raises(SyncBridgeError, match="no kind 'session'"):
        parse_kinds("kind", ["session"])


def part(first: int, count: int, added: int, start: int = 0) -> Part:
    """The entries `start`.. of an outbox whose oldest is `first`, of `added` in all."""
    names = [b"%d-0" % n for n in range(max(first, start), first + count)]
    fields = entry(k="session.expired", s="S")
    return Part([(name, fields) for name in names], 0, 0, added, count, b"%d-0" % first)


def test_what_was_dropped_before_it_was_carried_is_told() -> None:
    """Of entries 1 to 9, up to 3 are carried, and 1 to 5 have been dropped."""
    place = Place("3-0", 3)
    found = part(6, 4, 9)
    lost = lost_of("t", place, found)

    assert lost is not None
    assert 2 == msgspec.json.decode(lost.data)["count"]
    assert Place("9-0", 9) == place_after(place, found, 100)
    assert 5 == len(carried("t", place, found))


def test_an_outbox_that_begins_anew_has_lost_nothing_that_is_known() -> None:
    """Redis has lost it, or came back older: its numbers are lower."""
    anew, older = part(50, 2, 2), part(1, 4, 4, start=4)

    assert None is lost_of("t", Place("40-0", 40), anew)
    assert Place("51-0", 2) == place_after(Place("40-0", 40), anew, 100)
    assert None is lost_of("t", Place("3-0", 3), older)


def test_what_was_dropped_before_anything_was_carried_is_told() -> None:
    """Of seven entries, the first four; behind none. One that has all of them has lost nothing."""
    lost = lost_of("t", Place(), part(5, 3, 7))

    assert lost is not None
    told = msgspec.json.decode(lost.data)
    assert (4, "") == (told["count"], told["after"])
    assert None is lost_of("t", Place(), part(5, 3, 3))
    assert None is lost_of("t", Place(), Part([], 0, 0, 7, 0, b""))
