"""The rules of call sessions: their states as a table, their details, the order of their list."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.calls import (
    FOLLOWERS,
    ID_BYTES,
    Call,
    CallState,
    CallType,
    check_id,
    check_state,
    check_type,
    cursor_of,
    details_bytes,
    is_id,
    merge_pages,
    parse_cursor,
    parse_details,
    refused_step,
    sources,
)
from syncbridge.errors import ErrorCode, SyncBridgeError

PENDING, ACTIVE, TERMINATED = CallState
LEGAL = {(PENDING, ACTIVE), (PENDING, TERMINATED), (ACTIVE, TERMINATED)}
ids = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["C"]), max_size=40)
names = texts.filter(lambda text: text not in ("", "__proto__"))
positions = st.tuples(st.integers(0, 5), ids)


def refusal(check: object, *arguments: object) -> SyncBridgeError:
    with pytest.raises(SyncBridgeError) as caught:
        check(*arguments)  # type: ignore[operator]
    return caught.value


def test_the_table_walked() -> None:
    """Forward only: three steps, seen from either end, and nothing follows the last state."""
    steps = {(state, after) for state in CallState for after in FOLLOWERS[state]}

    assert steps == LEGAL
    assert {(state, after) for after in CallState for state in sources(after)} == LEGAL
    assert FOLLOWERS[TERMINATED] == frozenset()


@settings(deadline=None)
@given(st.lists(st.sampled_from(CallState), max_size=12))
def test_no_walk_comes_back(asked: list[CallState]) -> None:
    """Whatever is asked, each state is entered at most once, in the order of the document."""
    entered = [PENDING]
    for state in asked:
        if state in FOLLOWERS[entered[-1]]:
            entered.append(state)

    order = list(CallState)
    places = [order.index(state) for state in entered]
    assert places == sorted(set(places))


def test_refusals_name_what_is() -> None:
    """Ended is another code than out of order; both tell the state."""
    codes = {}
    for before in CallState:
        for target in set(CallState) - FOLLOWERS[before] - {before}:
            error = refused_step(Call("a", CallType.SIP, before, 0, 0), target)
            assert (409, before) == (error.code.status, error.fields["state"])
            codes[before, target] = error.code

    assert codes == {
        (ACTIVE, PENDING): ErrorCode.CALL_TRANSITION,
        (TERMINATED, PENDING): ErrorCode.CALL_TERMINATED,
        (TERMINATED, ACTIVE): ErrorCode.CALL_TERMINATED,
    }


def test_names_are_exact() -> None:
    """The document's spelling, and no other."""
    assert list(CallState) == [check_state(t) for t in ("pending", "active", "terminated")]
    assert list(CallType) == [check_type(text) for text in ("SIP", "WebRTC")]
    for check, text in ((check_state, "Active"), (check_state, ""), (check_type, "WEBRTC")):
        assert refusal(check, text).code is ErrorCode.INVALID_CALL


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a84b4c76e66710@pc33.atlanta.com", True),
        ("call-12345", True),
        ("a/b", True),
        ("a/state", True),
        ("a/history", False),
        (".", False),
        ("..", False),
        ("...", True),
        ("", False),
        ("a\n", False),
        ("a\x00", False),
        ("x" * ID_BYTES, True),
        ("x" * (ID_BYTES + 1), False),
        ("ü" * (ID_BYTES // 2 + 1), False),
    ],
)
def test_ids(text: str, good: bool) -> None:
    """1 to 256 bytes of printable text that are no path of a history and no step in a path."""
    if good:
        assert text == check_id(text)
    else:
        assert "id" == refusal(check_id, text).fields["field"]


@settings(deadline=None)
@given(st.dictionaries(names, texts))
def test_details_of_text_are_kept(details: dict[str, str]) -> None:
    """Every object of texts that is I-JSON comes back as it was; its size is that of its JSON."""
    flat = parse_details(json.dumps(details, ensure_ascii=False).encode(), 65_536)
    pairs = zip(flat[::2], flat[1::2], strict=True)
    assert details == {name.decode(): json.loads(value) for name, value in pairs}
    assert details_bytes(flat) == sum(len(part) for part in flat) + 4 * len(details)


@pytest.mark.parametrize("value", ["1", "null", "true", "[]", "{}", '["a"]'])
def test_details_are_text(value: str) -> None:
    """Anything else is refused by name."""
    error = refusal(parse_details, f'{{"a":{value}}}'.encode(), 65_536)
    assert (ErrorCode.INVALID_CALL, "details") == (error.code, error.fields["field"])
    assert "'a'" in error.detail


def test_details_are_bounded() -> None:
    """Above the bound TOO_LARGE with the bound; what is no object is INVALID_CALL."""
    large = refusal(parse_details, b'{"a":"xxxxxxxxxx"}', 12)
    assert (ErrorCode.TOO_LARGE, 12) == (large.code, large.fields["limit"])
    for text in (b"[]", b"null", b'"a"', b'{"a":"1","a":"2"}', b'{"":"1"}', b'{"__proto__":"1"}'):
        assert refusal(parse_details, text, 65_536).code is ErrorCode.INVALID_CALL


@settings(deadline=None)
@given(st.sets(positions, max_size=30), st.integers(1, 8), st.randoms(use_true_random=False))
def test_pages_merge_to_the_whole(found: set[tuple[int, str]], limit: int, random: object) -> None:
    """However the calls are spread, walking page by page gives all of them, newest first."""
    spread: list[list[tuple[int, str]]] = [[], [], []]
    for position in found:
        spread[random.randrange(3)].append(position)  # type: ignore[attr-defined]
    order = sorted(found, key=lambda p: (p[0], p[1].encode()), reverse=True)
    walked: list[tuple[int, str]] = []
    rest = spread
    while True:
        page, more = merge_pages(rest, limit)
        walked += page
        if not more:
            break
        last = page[-1]
        assert last == parse_cursor(cursor_of(last))
        key = (last[0], last[1].encode())
        rest = [[p for p in part if (p[0], p[1].encode()) < key] for part in rest]

    assert order == walked


@pytest.mark.parametrize("text", ["x", "1", "1-", "-a", "-1-a", "1-\n", "²-a", "9" * 16 + "-a"])
def test_cursors_of_nobody(text: str) -> None:
    """INVALID_FIELD; the empty one is the first page."""
    assert refusal(parse_cursor, text).code is ErrorCode.INVALID_FIELD
    assert None is parse_cursor("")
    assert not is_id("")
