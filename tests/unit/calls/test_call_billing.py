"""What a call is billed by: durations, records, and cursors that neither miss nor repeat."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.call_rules.billing import (
    DELETED,
    LedgerPlace,
    check_part,
    check_run,
    cursor_text,
    durations,
    ended_at,
    held_ms,
    parse_ledger_cursor,
    record_of,
)
from syncbridge.call_rules.events import RULES, EventKind, check_kind, refused_event, value_of
from syncbridge.call_rules.listing import CallFilter, parse_match, parse_moment, tag_of
from syncbridge.calls import Call, CallEvent, CallState, CallType, StateChange
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.records.calls import LedgerPart

BEGIN = 1_000_000
SPANS = st.integers(0, 10_000_000)


def a_call(changes: list[tuple[CallState, int]], **members: object) -> Call:
    history = [StateChange(state, at, "gw") for state, at in changes]
    state = history[-1].state
    told: Any = members
    return Call("c", CallType.SIP, state, BEGIN, history[-1].at, (), history, **told)


@given(rings=SPANS, lasts=SPANS, holds=st.lists(st.tuples(SPANS, SPANS), max_size=8))
def test_time_is_counted_once(rings: int, lasts: int, holds: list[tuple[int, int]]) -> None:
    """The active time is from its beginning to the end, holds and all; seconds are rounded up."""
    active = BEGIN + rings
    events, at, on_hold = [CallEvent("ring", BEGIN, "gw")], active, 0
    for talk, hold in holds:
        events.append(CallEvent("hold", at + talk, "gw"))
        at += talk + hold
        events.append(CallEvent("resume", at, "gw"))
        on_hold += hold
    end = at + lasts
    call = a_call(
        [(CallState.PENDING, BEGIN), (CallState.ACTIVE, active), (CallState.TERMINATED, end)],
        events=events,
    )
    found = durations(call, 0)

    assert (rings, end - active, on_hold) == (found.ring_ms, found.active_ms, found.held_ms)
    assert 0 <= found.seconds * 1000 - found.active_ms < 1000
    assert found.held_ms <= found.active_ms


@given(begun=SPANS, lasts=SPANS)
def test_a_hold_ends_with_the_call(begun: int, lasts: int) -> None:
    """One that was not resumed lasts to the end, and a second `hold` begins nothing."""
    events = [CallEvent("hold", begun + 1, "gw"), CallEvent("hold", begun + 2, "gw")]
    assert lasts == held_ms(events, begun + 1 + lasts)


@pytest.mark.parametrize(
    ("changes", "members", "expected"),
    [
        ([(CallState.PENDING, 5)], {"deleted_at": 9, "deleted_by": "x"}, (9, "x", DELETED, 0, 0)),
        (
            [(CallState.PENDING, 5), (CallState.ACTIVE, 6)],
            {"deleted_at": 1007, "deleted_by": "x"},
            (1007, "x", DELETED, 1001, 2),
        ),
        (
            [(CallState.PENDING, 5), (CallState.TERMINATED, 8)],
            {"cause": "busy"},
            (8, "gw", "busy", 0, 0),
        ),
        (
            [(CallState.PENDING, 5), (CallState.ACTIVE, 6), (CallState.TERMINATED, 1006)],
            {"deleted_at": 2000, "deleted_by": "x"},
            (1006, "gw", "", 1000, 1),
        ),
    ],
)
def test_records_of_calls(
    changes: list[tuple[CallState, int]], members: dict[str, object], expected: tuple[object, ...]
) -> None:
    """When and by whom it ended, why, and the seconds; a deletion after the end ends nothing."""
    call = a_call(changes, **members)
    record = record_of("0-1", call)
    told = (record.ended_at, record.ended_by, record.cause, record.active_ms, record.seconds)
    assert expected == told
    assert ended_at(call) == record.ended_at


def test_a_record_that_cannot_be_read_is_still_one() -> None:
    """It has its name, and says what it is."""
    record = record_of("3-7", None)
    assert ("3-7", True, "") == (record.record, record.damaged, record.id)


@given(data=st.data(), total=st.integers(0, 60))
def test_a_walk_reads_each_number_once(data: st.DataObject, total: int) -> None:
    """Whatever the sizes of the pages, and when records are added between them."""
    seen: list[int] = []
    there, after = data.draw(st.integers(0, total)), 0
    while after < total:
        there = data.draw(st.integers(there, total))
        size = data.draw(st.integers(1, 9))
        numbers = list(range(after + 1, min(there, after + size) + 1))
        after = check_run(after, there, numbers)
        seen += numbers
        if not numbers:
            there = total
    assert list(range(1, total + 1)) == seen


@pytest.mark.parametrize(
    ("after", "last", "numbers"),
    [(3, 9, [5, 6]), (3, 9, [4, 6]), (3, 2, []), (3, 9, []), (0, 2, [2]), (None, 9, [4, 6])],
)
def test_a_gap_is_told(after: int | None, last: int, numbers: list[int]) -> None:
    """Records that are gone, and a ledger that is behind the reader."""
    with pytest.raises(SyncBridgeError) as refused:
        check_run(after, last, numbers)
    assert refused.value.code is ErrorCode.EXPORT_GAP


def test_a_walk_begins_with_the_oldest() -> None:
    """Without a cursor nothing is missing, wherever the numbers begin."""
    assert 6 == check_run(None, 9, [5, 6])
    assert 9 == check_run(None, 9, [])


DIGESTS = st.just("") | st.from_regex("[0-9a-f]{6}", fullmatch=True)
PLACES = st.builds(LedgerPlace, st.integers(0, 10**15 - 1), DIGESTS)


@given(st.lists(PLACES, min_size=16, max_size=16))
def test_cursors(places: list[LedgerPlace]) -> None:
    """What is written is read, and fits into the query."""
    text = cursor_text(places)
    assert len(text) <= 400
    assert places == parse_ledger_cursor(text, 16)


def test_a_record_that_took_the_number_of_another_is_a_gap() -> None:
    """Redis went back and on; a record that is not kept any more, or not known, says nothing."""
    part = LedgerPart(9, [(8, None), (9, None)], before="aaaaaa", end="cccccc")
    nothing = LedgerPart(7, [], before="aaaaaa")
    assert LedgerPlace(9, "cccccc") == check_part(LedgerPlace(7, "aaaaaa"), part)
    assert LedgerPlace(9, "cccccc") == check_part(LedgerPlace(7), part)
    assert LedgerPlace(7, "aaaaaa") == check_part(LedgerPlace(7, "aaaaaa"), nothing)
    assert LedgerPlace(7, "bbbbbb") == check_part(LedgerPlace(7, "bbbbbb"), LedgerPart(7, []))
    for there in (part, nothing):
        with pytest.raises(SyncBridgeError) as refused:
            check_part(LedgerPlace(7, "bbbbbb"), there)
        assert ErrorCode.EXPORT_GAP is refused.value.code


ODD = ("-1", "x", "1-", "1-abcdeg", "1-ab", "9" * 16)
WRONG = ["1", "1.2", *(".".join(["1"] * 15 + [odd]) for odd in ODD)]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_cursor(text: str) -> None:
    """Another count of numbers, and what is no number."""
    with pytest.raises(SyncBridgeError) as refused:
        parse_ledger_cursor(text, 16)
    assert refused.value.code is ErrorCode.INVALID_FIELD


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_has_the_member_of_its_kind(kind: EventKind) -> None:
    """That one and no other; it must be there, and be a text."""
    member = RULES[kind].member
    assert kind is check_kind(kind.value)
    assert ("x" if member else "") == value_of(kind, {member: "x"} if member else {})
    for wrong in [{"other": "x"}, *([{}, {member: ""}, {member: "x" * 257}] if member else [])]:
        with pytest.raises(SyncBridgeError) as refused:
            value_of(kind, wrong)
        assert refused.value.code is ErrorCode.INVALID_CALL


def test_why_an_event_is_refused() -> None:
    """An ended call, too many events, and one that does not fit."""
    ended = a_call([(CallState.PENDING, 5), (CallState.TERMINATED, 8)])
    full = a_call([(CallState.PENDING, 5)], events=[CallEvent("ring", 5, "gw")] * 256)
    talks = a_call([(CallState.PENDING, 5), (CallState.ACTIVE, 6)])
    codes = [refused_event(call, EventKind.RESUME).code for call in (ended, full, talks)]
    assert [ErrorCode.CALL_TERMINATED, ErrorCode.TOO_LARGE, ErrorCode.CALL_TRANSITION] == codes
    with pytest.raises(SyncBridgeError):
        check_kind("sneeze")


def test_filters() -> None:
    """Each member of a filter is for what it says, and an empty one is for all."""
    call = Call(
        "Call-1", CallType.SIP, CallState.ACTIVE, 100, 200, [b"a", '"ÜBER 49"'.encode()],
        parent="p", channel="ch",
    )  # fmt: skip
    good: list[dict[str, Any]] = [
        {}, {"state": CallState.ACTIVE}, {"type": CallType.SIP}, {"since": 100}, {"until": 101},
        {"q": "cALL"}, {"q": "über"}, {"parent": "p"}, {"channel": "ch"},
    ]  # fmt: skip
    bad: list[dict[str, Any]] = [
        {"state": CallState.PENDING}, {"type": CallType.WEBRTC}, {"since": 101}, {"until": 100},
        {"q": "zz"}, {"parent": "q"}, {"channel": "p"},
    ]  # fmt: skip
    assert [True] * len(good) == [CallFilter(**members).matches(call) for members in good]
    assert [False] * len(bad) == [CallFilter(**members).matches(call) for members in bad]


def test_times_and_tags() -> None:
    """RFC 3339 with an offset; a tag strong or weak; anything else is refused."""
    call = a_call([(CallState.PENDING, 5)], version=3)
    assert (
        f"{BEGIN}-3" == tag_of(call) == parse_match(f'"{BEGIN}-3"') == parse_match(f'W/"{BEGIN}-3"')
    )
    assert "" == parse_match("*") == parse_match("")
    assert 1_500 == parse_moment("since", "1970-01-01T00:00:01.5Z")
    assert 0 == parse_moment("since", "")
    for text in ("yesterday", "2026-01-01T00:00:00", "1960-01-01T00:00:00Z"):
        with pytest.raises(SyncBridgeError):
            parse_moment("since", text)
    for text in ("x", '"a", "b"', '"', '"' + "x" * 65 + '"'):
        with pytest.raises(SyncBridgeError):
            parse_match(text)
