"""What devices are told of each other, whatever the order in which a node hears of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.records.sessions import Device
from syncbridge.roster import MAX_OFFLINE, News, Roster


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

    assert len(roster._known) <= MAX_OFFLINE
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
