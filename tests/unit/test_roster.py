"""What devices are told of each other, whatever the order in which a node hears of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.records.sessions import Device
from syncbridge.roster import (
    MAX_OFFLINE,
    NAMED,
    PERIOD,
    RATE,
    News,
    Roster,
    Summary,
    is_large,
)


def test_a_device_joins_and_leaves() -> None:
    """Each is told once, however often it is heard."""
    roster = Roster()
    told = [roster.joined("a", 1), roster.joined("a", 1), roster.left("a", 1), roster.left("a", 1)]

    assert [News.JOINED, News.NOTHING, News.LEFT, News.NOTHING] == told


def test_a_departure_that_comes_late_is_dropped() -> None:
    """The device was replaced meanwhile: it left, it joined, and it stays."""
    roster = Roster()
    told = [roster.joined("a", 1), roster.joined("a", 2), roster.left("a", 1)]

    assert [News.JOINED, News.REPLACED, News.NOTHING] == told
    assert roster.is_online("a")


def test_an_arrival_that_comes_after_its_departure_is_dropped() -> None:
    """Nobody sees either."""
    roster = Roster()
    told = [roster.left("a", 1), roster.joined("a", 1)]

    assert [News.NOTHING, News.NOTHING] == told
    assert not roster.is_online("a")


def test_the_fence_is_that_of_the_connection_that_is_online() -> None:
    """A newcomer with an older one has been replaced; none is known of who has left."""
    roster = Roster()
    fences = [roster.fence("a")]
    roster.joined("a", 1)
    fences.append(roster.fence("a"))
    roster.joined("a", 2)
    fences.append(roster.fence("a"))
    roster.left("a", 2)
    fences.append(roster.fence("a"))

    assert [0, 1, 2, 0] == fences


def test_missing_are_those_that_a_list_should_name() -> None:
    """Online here, not in the list, and not newer than it."""
    roster = Roster()
    for device, fence in (("a", 1), ("b", 2), ("c", 9)):
        roster.joined(device, fence)
    listed = [Device("a", b"{}", 0, True, 1), Device("b", b"{}", 0, False, 0)]

    assert [("b", 2)] == roster.missing(listed, newest=5)


def test_a_newcomer_is_unaware_of_who_left_before_its_list_was_made() -> None:
    """Once: a device that comes back and leaves is seen by everybody."""
    roster = Roster()
    for device, fence in (("a", 1), ("b", 2)):
        roster.joined(device, fence)
    roster.newcomer(7, [Device("a", b"{}", 0, True, 1)], newest=5)
    roster.newcomer(8, [Device("a", b"{}", 0, True, 1)], newest=6)

    assert (set(), {7, 8}) == (roster.unaware("a"), roster.unaware("b"))
    assert set() == roster.unaware("b")


def test_begin_takes_only_who_is_online() -> None:
    """As AUTH_SUCCESS shows them."""
    roster = Roster()
    roster.begin([Device("a", b"{}", 9, True, 1), Device("b", b"{}", 0, False, 0)])

    assert (True, False) == (roster.is_online("a"), roster.is_online("b"))


def test_memory_is_bounded_and_keeps_who_is_online() -> None:
    """Thousands of devices that come and go; one that stays."""
    roster = Roster()
    roster.joined("stays", 1)
    for number in range(2, 5_000):
        roster.joined(f"d{number}", number)
        roster.left(f"d{number}", number)

    assert MAX_OFFLINE + 1 == len(list(roster.listed()))
    assert roster.is_online("stays")


CONNECTIONS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=300)
@given(CONNECTIONS, st.data())
def test_any_order_pairs_up_and_ends_in_the_truth(devices: list[str], data: st.DataObject) -> None:
    """Changes are shuffled and repeated; a device is never told to join twice or to leave twice."""
    last = {device: fence for fence, device in enumerate(devices, 1)}
    stays = {d for d in last if data.draw(st.booleans())}
    changes = [("joined", device, fence) for fence, device in enumerate(devices, 1)]
    changes += [
        ("left", device, fence)
        for fence, device in enumerate(devices, 1)
        if fence != last[device] or device not in stays
    ]
    changes += data.draw(st.lists(st.sampled_from(changes), max_size=5))
    roster, online = Roster(), dict.fromkeys(last, 0)
    for kind, device, fence in data.draw(st.permutations(changes)):
        news = (roster.joined if kind == "joined" else roster.left)(device, fence)
        online[device] += {News.JOINED: 1, News.LEFT: -1}.get(news, 0)
        assert online[device] in (0, 1)
        assert online[device] == roster.is_online(device)

    assert {d: d in stays for d in last} == {d: roster.is_online(d) for d in last}


@pytest.mark.parametrize("fence", [1, 1_800_000_000_000])
def test_fences_may_be_as_large_as_the_time_in_milliseconds(fence: int) -> None:
    """They are compared exactly."""
    roster = Roster()
    roster.joined("a", fence)

    assert News.NOTHING is roster.left("a", fence - 1)
    assert News.REPLACED is roster.joined("a", fence + 1)


def test_who_is_online_is_never_pushed_out() -> None:
    """More are online than are remembered of those that left; the order is that of arrival."""
    roster = Roster()
    for number in range(4 * MAX_OFFLINE):
        roster.joined(f"d{number}", number + 1)

    assert 4 * MAX_OFFLINE == roster.online
    assert ["d0", "d1"] == [device_id for device_id, _ in roster.window(2)]


def test_a_list_is_asked_for_once() -> None:
    """Until it is there; and again when it is doubted."""
    roster = Roster()
    asked = [roster.ask(), roster.ask()]
    roster.begin([Device("a", b"{}", 0, True, 3)], newest=3)
    asked.append(roster.ask())
    roster.begun = False
    asked.append(roster.ask())

    assert [True, False, False, True] == asked


def test_what_was_heard_before_the_list_stands() -> None:
    """The list is older: its device has left, and has come again, meanwhile."""
    roster = Roster()
    roster.left("gone", 3)
    roster.joined("again", 5, b"new")
    roster.begin([Device("gone", b"{}", 0, True, 3), Device("again", b"old", 0, True, 4)], 4)

    assert {("again", b"new", True)} == set(roster.listed())
    assert roster.agrees(1, 5)


@pytest.mark.parametrize(
    ("online", "newest", "newcomer", "agrees"),
    [
        (2, 2, "", True),
        (3, 2, "c", True),
        (2, 2, "b", True),
        (2, 1, "", True),
        (1, 2, "", False),
        (2, 3, "", False),
        (3, 2, "", False),
    ],
)
def test_a_roster_is_held_against_two_numbers(
    online: int, newest: int, newcomer: str, agrees: bool
) -> None:
    """How many are online, and the newest fence; the newcomer may be known already."""
    roster = Roster()
    roster.begin([Device("a", b"{}", 0, True, 1), Device("b", b"{}", 0, True, 2)])

    assert agrees == roster.agrees(online, newest, newcomer)


def test_a_signed_out_device_is_in_no_list() -> None:
    """But its fence is known: a late arrival of it is dropped."""
    roster = Roster()
    roster.joined("a", 1)
    roster.left("a", 1, removed=True)

    assert [] == list(roster.listed())
    assert News.NOTHING is roster.joined("a", 1)


def summarised(roster: Roster, summary: Summary, device: str, fence: int, *, on: bool) -> None:
    """A change of a large session."""
    if on:
        news = roster.joined(device, fence)
        summary.joined(device, replaced=news is News.REPLACED)
    else:
        roster.left(device, fence)
        summary.left(device, "closed")


CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12)


@settings(deadline=None)
@given(st.lists(CHANGES, max_size=4))
def test_summaries_lead_to_the_truth(rounds: list[list[tuple[str, bool]]]) -> None:
    """Whoever takes each, in order, knows who is online; no device is in both parts of one."""
    roster, summary, shown, fence = Roster(), Summary(4, 0.0), set[str](), 0
    for changes in rounds:
        for device, on in changes:
            if on != roster.is_online(device) or on:
                fence += 1
                summarised(roster, summary, device, fence, on=on)
        taken = summary.take(roster)
        assert taken is not None
        joined, left = {*taken[0]}, {device for device, _ in taken[1]}
        assert not joined & left
        assert left <= shown
        shown = (shown | joined) - left

    assert {name for name, _, online in roster.listed() if online} == shown


def test_too_many_changes_are_not_named() -> None:
    """They cost no memory either; the next summary begins anew."""
    roster, summary = Roster(), Summary(4, 0.0)
    for number in range(NAMED + 1):
        summarised(roster, summary, f"d{number}", number + 1, on=True)
    first = summary.take(roster)
    summarised(roster, summary, "d0", 1, on=False)

    assert first is None
    assert ([], [("d0", "closed")]) == summary.take(roster)


def test_a_costly_summary_makes_the_next_one_wait() -> None:
    """A second, or as long as it takes to tell so many devices to so many receivers."""
    summary = Summary(4, 10.0)
    dues = [summary.due]
    for named, receivers in ((1, 5), (64, 5_000)):
        summary.told(named, receivers, 10.0)
        dues.append(summary.due)

    assert [10 + PERIOD, 10 + PERIOD, 10 + 64 * 5_000 / RATE] == dues


@pytest.mark.parametrize(
    ("online", "before", "large"),
    [
        (64, False, False),
        (65, False, True),
        (40, False, False),
        (32, True, True),
        (31, True, False),
    ],
)
def test_a_session_is_large_above_a_bound_and_small_below_half_of_it(
    online: int, before: bool, large: bool
) -> None:
    """In between it stays what it is."""
    assert large == is_large(online, 64, before=before)
