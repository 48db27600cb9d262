"""The Python client's devices: whole lists, parts of a large session, and what `me` says."""

from typing import Any

import pytest

from syncbridge_client import InvalidUpdate, wire
from syncbridge_client.catalogue import Limits
from syncbridge_client.events import DeviceJoined, DeviceLeft, DeviceSaid, Event
from syncbridge_client.presence import Presence


def entry(device_id: str, **more: Any) -> wire.DeviceEntry:
    return wire.DeviceEntry(device_id, **more)


def joined() -> Presence:
    """A client that has joined a session of 100 devices as `me`, and is shown two others."""
    presence = Presence(20)
    devices = [entry("a"), entry("b"), entry("me")]
    welcome = wire.Welcome(1, device_id="me", devices=devices, devices_total=100)
    presence.connected(welcome, 0.0)
    return presence


def names(events: list[Event]) -> list[tuple[str, str]]:
    found = []
    for event in events:
        if isinstance(event, DeviceJoined):
            found.append(("joined", event.device.device_id))
        elif isinstance(event, DeviceLeft):
            found.append(("left", event.device_id))
        elif isinstance(event, DeviceSaid):
            found.append(("said", ",".join(event.device_ids)))
    return found


def test_it_takes_who_came_and_went_together() -> None:
    """Who came says what its entry has; a device that was never shown is not told to have left."""
    presence = joined()
    left = [wire.Left("a", "closed"), wire.Left("never seen", "closed")]
    came = [entry("c", me={"x": 1})]
    events = presence.listed(wire.DeviceList(delta=True, joined=came, left=left, total=90))

    assert [("joined", "c"), ("left", "a")] == names(events)
    assert (["b", "me", "c"], 90) == (list(presence.devices), presence.total)
    assert {"x": 1} == presence.devices["c"].me


def test_what_devices_say_leaves_the_total_alone() -> None:
    """Only known devices count, and only what has changed is told."""
    presence = joined()
    said = wire.DeviceList(delta=True, me={"a": {"x": 1}, "unknown": {"x": 2}})
    events = [names(presence.listed(said)) for _ in range(2)]

    assert [[("said", "a,unknown")], []] == events
    assert (100, {"x": 1}) == (presence.total, presence.devices["a"].me)
    assert "unknown" not in presence.devices


def test_it_says_everything_again_when_a_large_session_is_small_enough_again() -> None:
    """Once: the server has taken back what was said when the session grew beyond the bound."""
    presence = Presence(20)
    limits = Limits(presence_list=4)
    presence.connected(wire.Welcome(1, device_id="me", devices=[entry("me")], limits=limits), 0.0)
    presence.say({"x": 1})
    presence.take(0.0)
    steps = [
        wire.DeviceList(devices=[entry("a")], total=5, partial=True),
        wire.DeviceList(delta=True, total=6),
        wire.DeviceList(delta=True, me={"a": {"y": 1}}),
        wire.DeviceList(delta=True, total=4),
        wire.DeviceList(devices=[entry("me")], total=9),
    ]
    said = []
    for step in steps:
        presence.listed(step)
        said.append(presence.take(9.0) if presence.ready(9.0) else {})

    assert [{}, {}, {}, {"x": 1}, {}] == said


def test_it_keeps_itself_when_another_part_is_shown() -> None:
    """A window stands in place of all that was known, but for the client's own device."""
    presence = joined()
    presence.listed(wire.DeviceList(devices=[entry("x")], total=80))

    assert ({"x", "me"}, 80) == (set(presence.devices), presence.total)


@pytest.mark.parametrize(
    "me",
    [
        {f"k{i}": i for i in range(17)},
        {"long": "é" * 510},
        {"long": "x" * 1_000},
        {"__proto__": 1},
        {"": 1},
    ],
    ids=["17 keys", "1 KiB", "1 KiB with the rest", "reserved", "empty"],
)
def test_it_does_not_say_what_would_be_refused(me: dict[str, Any]) -> None:
    """The server would refuse it with all else, and again on each connection."""
    presence = joined()
    presence.say({"cursor": [3, 14]})
    with pytest.raises(InvalidUpdate):
        presence.say(me)
    presence.connected(wire.Welcome(1, device_id="me"), 1.0)

    assert {"cursor": [3, 14]} == presence.take(1.0)


def test_it_says_as_much_as_the_server_allows() -> None:
    """The bounds are those of the last connection."""
    presence = Presence(20)
    presence.connected(wire.Welcome(1, limits=Limits(ephemeral_keys=1)), 0.0)
    presence.say({"one": 1})

    with pytest.raises(InvalidUpdate, match="at most 1 keys"):
        presence.say({"two": 2})
