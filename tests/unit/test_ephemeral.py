"""What devices say of themselves: merged, told whole, newest first, and gone with them."""

import json

import pytest

from syncbridge.ephemeral import Ephemeral, merged, rendered
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.roster import Roster


def online(**fences: int) -> Roster:
    roster = Roster()
    for device, fence in fences.items():
        roster.joined(device, fence)
    return roster


def heard(known: Ephemeral, roster: Roster, **told: tuple[int, int, object]) -> None:
    known.heard(json.dumps(told).encode(), roster, 64)


def test_changes_are_merged_and_null_takes_back() -> None:
    """Keys that are not named stay as they are; one that is not there is not missed."""
    after = merged({b"x": b"1", b"y": b"2"}, [b"y", b"null", b"z", b"[3]", b"w", b"null"], **BOUNDS)

    assert {b"x": b"1", b"z": b"[3]"} == after
    assert b'{"x":1,"z":[3]}' == rendered(after)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([b"a", b"1", b"b", b"2", b"c", b"3"], ErrorCode.TOO_MANY_KEYS),
        ([b"a", b'"' + b"x" * 30 + b'"'], ErrorCode.TOO_LARGE),
    ],
)
def test_what_is_too_much_is_refused(changes: list[bytes], code: ErrorCode) -> None:
    """The bounds are those of the whole map, after the changes."""
    with pytest.raises(SyncBridgeError) as refused:
        merged({}, changes, **BOUNDS)

    assert code is refused.value.code


def test_only_the_newest_map_of_a_device_is_told() -> None:
    """Changes between two messages are one; what equals the last is none."""
    known = Ephemeral()
    known.own("a", 1, b'{"x":1}')
    known.own("a", 1, b'{"x":2}')
    known.own("b", 2, b"{}")
    told = [known.take_changed(), known.take_changed()]
    known.own("a", 1, b'{"x":2}')

    assert [b'{"a":{"x":2},"b":{}}', b"{}"] == told
    assert set() == known.changed
    assert b"" == known.text("b")


def test_what_one_node_shares_another_hears() -> None:
    """The same map; a repetition is no news, and what is older neither."""
    here, there, roster = Ephemeral(), Ephemeral(), online(a=7)
    here.own("a", 7, b'{"x":1}')
    first = here.take_unshared()
    here.own("a", 7, b'{"x":2}')
    second = here.take_unshared()
    here.share(["a", "unknown"])
    again = here.take_unshared()
    for data in (second, again, first):
        there.heard(data, roster, 64)

    assert second == again
    assert b'{"x":2}' == there.text("a")
    assert b'{"a":{"x":2}}' == there.take_changed()
    assert b"" == here.take_unshared()


def test_what_is_told_of_an_ended_connection_is_dropped() -> None:
    """The device has left, or is there by a newer connection; one not heard of yet is kept."""
    known, roster = Ephemeral(), online(gone=1, again=3)
    roster.left("gone", 1)
    heard(known, roster, gone=(1, 1, {"x": 1}), again=(2, 1, {"x": 1}), coming=(9, 1, {"x": 1}))

    assert ["", "", '{"x": 1}'] == [known.text(n).decode() for n in ("gone", "again", "coming")]


def test_a_map_goes_with_its_connection() -> None:
    """A newer connection of the device starts with nothing; its own arrival takes nothing away."""
    known = Ephemeral()
    known.own("a", 1, b'{"x":1}')
    known.own("b", 2, b'{"x":1}')
    known.take_changed()
    known.joined("a", 3)
    known.joined("b", 2)
    known.left("unknown")

    assert b'{"b":{"x":1}}' == known.take_changed() == known.everything()


def test_devices_of_other_nodes_are_bounded() -> None:
    """So many are kept, whatever is told."""
    known = Ephemeral()
    told = json.dumps({f"d{n}": (1, 1, {}) for n in range(9)}).encode()
    known.heard(told, Roster(), 4)

    assert 4 == len(known.changed)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"a":{"x":1}}', b'{"a":[1,2]}', b'{"a":["1",2,{}]}']
)
def test_what_no_node_sends_is_refused(data: bytes) -> None:
    """It says ValueError, and nothing has changed."""
    known = Ephemeral()
    with pytest.raises(ValueError, match=r"."):
        known.heard(data, Roster(), 4)

    assert not known


def test_silence_takes_everything_back() -> None:
    """The devices are told of empty maps, once."""
    known = Ephemeral()
    known.own("a", 1, b'{"x":1}')
    silenced = [known.silence(), known.silence()]
    told = known.take_changed()

    assert [True, False] == silenced
    assert b'{"a":{}}' == told
    assert not known.silence()
    assert not known.changed


def test_a_roster_counts_who_is_online() -> None:
    """Through arrivals, replacements and departures; and knows whether somebody is elsewhere."""
    roster = online(a=1, b=2)
    roster.joined("a", 3)
    roster.left("b", 2)
    roster.left("b", 2)

    assert 1 == roster.online
    assert (True, False) == (roster.reaches_beyond(["b"]), roster.reaches_beyond(["a"]))
    assert (True, False) == (roster.has_ended("b", 2), roster.has_ended("a", 3))


BOUNDS = {"keys": 2, "size": 20}
