"""When a node is taken for dead: by entries that stand still, on the observer's clock alone."""

from hypothesis import given
from hypothesis import strategies as st

from syncbridge.nodes import MAX_WATCHED, Watch

TIMEOUT, GAP = 10.0, 2.0


def watched(*looks: tuple[float, dict[str, str]]) -> list[list[str]]:
    """The dead at each look."""
    watch = Watch(TIMEOUT, GAP)
    return [watch.look(entries, at, at) for at, entries in looks]


def still(first: float, last: float, entry: str = "1") -> list[tuple[float, dict[str, str]]]:
    """Looks once a second at an entry that does not change."""
    return [(first + at, {"a": entry}) for at in range(int(last - first) + 1)]


def test_an_entry_that_stands_still_is_a_dead_nodes() -> None:
    """After the lease and the gap, and not before; again while it is listed."""
    found = watched(*still(0, 13))

    assert [[]] * 12 + [["a"]] * 2 == found


def test_a_changed_entry_begins_anew() -> None:
    """Whatever it is changed to: one that counts backwards lives as well."""
    found = watched(*still(0, 11, "9"), *still(12, 23, "1"), (24, {"a": "1"}))

    assert [[]] * 24 + [["a"]] == found


def test_a_pause_between_looks_begins_anew() -> None:
    """The observer stood still, or the store answered nobody: that says nothing about others."""
    found = watched(*still(0, 11), *still(14, 25), (26, {"a": "1"}))

    assert [[]] * 24 + [["a"]] == found


def test_a_break_begins_anew() -> None:
    """Nobody is dead sooner than a whole lease after it."""
    watch = Watch(TIMEOUT, GAP)
    for at in range(12):
        watch.look({"a": "1"}, at, at)
    watch.broke()

    found = [watch.look({"a": "1"}, at, at) for at in range(12, 25)]
    assert [[]] * 12 + [["a"]] == found


def test_a_slow_answer_is_reckoned_in_favour_of_the_node() -> None:
    """It may have changed its entry just before the first, and just after the last was asked."""
    watch = Watch(TIMEOUT, GAP)
    watch.look({"a": "1"}, 0.0, 1.0)
    for at in range(2, 14):
        watch.look({"a": "1"}, at - 1.0, float(at))

    assert [] == watch.look({"a": "1"}, 12.9, 14.0)
    assert ["a"] == watch.look({"a": "1"}, 13.0, 14.0)


def test_watched_nodes_are_bounded() -> None:
    """Those beyond the bound wait until others are gone."""
    many = {str(number): "1" for number in range(MAX_WATCHED + 5)}
    found = watched(*((float(at), many) for at in range(13)))

    assert MAX_WATCHED == len(found[-1])


@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 3), st.booleans()), max_size=60),
)
def test_nobody_dies_within_a_lease_of_its_change_or_of_a_break(
    steps: list[tuple[float, int, bool]],
) -> None:
    """Whatever the rhythm of looks, changes and breaks."""
    watch, now, entry, since = Watch(TIMEOUT, GAP), 100.0, 0, 100.0
    for pause, change, breaks in steps:
        now += pause
        if breaks:
            watch.broke()
        if change == 3:
            entry += 1
        if breaks or change == 3 or pause > GAP:
            since = now
        if watch.look({"a": str(entry)}, now, now):
            assert now - since >= TIMEOUT
