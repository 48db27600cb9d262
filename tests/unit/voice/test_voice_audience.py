"""Who of a node hears of which channel, on a real hub without sockets' bytes."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from syncbridge.errors import SyncBridgeError
from syncbridge.identity import Identity, Role, VoiceGrant
from syncbridge.voice.naming import id_of_key, qualified_key
from syncbridge_core.hub import Hub
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.voice.sockets.audience import MAX_WATCHED, ChannelAudience


class LiveCalls:
    """Channels that users are in. `live`: keys and waddles of calls."""

    def __init__(self) -> None:
        self.present: set[tuple[str, str]] = set()
        self.live: set[tuple[str, str]] = set()

    def calls_of(self, user_id: str) -> list[Any]:
        class Call:
            def __init__(self, channel_id: str) -> None:
                self.channel_id = channel_id

        return [Call(channel) for channel, user in sorted(self.present) if user == user_id]

    def named(self, channel_id: str, waddle_id: str = "") -> list[Any]:
        class Call:
            def __init__(self, key: str, waddle: str) -> None:
                self.channel_id, self.waddle_id = key, waddle

        live = [Call(key, waddle) for key, waddle in self.live if id_of_key(key) == channel_id]
        return [call for call in live if waddle_id in ("", call.waddle_id)]

    def member(self, channel_id: str, user_id: str) -> bool | None:
        return True if (channel_id, user_id) in self.present else None


class Rig:
    """An audience, and connections that exist."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.live_calls = LiveCalls()
        self.audience = ChannelAudience(self.hub, None, self.live_calls)  # type: ignore[arg-type]
        self.peers: list[socket.socket] = []

    def connect(self, user: str, waddle: str = "w") -> Connection:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        self.peers.append(peer)
        connection = Connection(self.hub.adopt(ours.detach(), 0), "node", "here", 0)
        grants = (VoiceGrant(waddle, "*"),)
        connection.identity = Identity(user, Role.USER, "j", 0, 9e9, voice=grants)
        self.audience.add(connection, user)
        return connection

    def size(self, channel_id: str) -> int:
        """How many hear of a channel."""
        topic = self.audience._topics.get(channel_id)
        return self.hub.topic_size(topic) if topic is not None else 0


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.hub.shutdown()
    for peer in made.peers:
        peer.close()


def test_all_devices_of_a_participant_hear(rig: Rig) -> None:
    """Those that are there when the user joins, and those that come later; none afterwards."""
    one, two = rig.connect("ann"), rig.connect("ann")
    rig.connect("bob")
    rig.live_calls.present.add(("c", "ann"))

    assert [one, two] == rig.audience.joined("c", ["ann", "eve"])
    three = rig.connect("ann")
    assert 3 == rig.size("c")
    rig.audience.remove(two, "ann")
    assert ([one, three], 2) == (rig.audience.devices("ann"), rig.size("c"))
    rig.live_calls.present.clear()
    rig.audience.left("c", "w", ["ann"])
    assert 0 == rig.size("c")


def test_a_watcher_hears_until_it_does_not_want_to(rig: Rig) -> None:
    """Also as a participant who leaves; a participant who stops to watch goes on to hear."""
    ann = rig.connect("ann")
    rig.live_calls.live.add(("c", "w"))
    rig.audience.watch("c", "", ann)
    rig.live_calls.present.add(("c", "ann"))
    rig.audience.joined("c", ["ann"])
    rig.audience.unwatch("c", "", ann)
    assert 1 == rig.size("c")
    rig.audience.watch("c", "", ann)
    rig.live_calls.present.clear()
    rig.audience.left("c", "w", ["ann"])
    assert 1 == rig.size("c")
    rig.audience.unwatch("c", "", ann)
    assert 0 == rig.size("c")


def test_only_the_true_waddle_lets_a_watcher_stay(rig: Rig) -> None:
    """When a call begins, those with a grant for its waddle hear of it, and no others."""
    good, bad = rig.connect("ann"), rig.connect("eve", "elsewhere")
    for connection in (good, bad):
        rig.audience.watch("c", "", connection)
    rig.audience.review("c", "w")

    assert 1 == rig.size("c")
    rig.audience.remove(good, "ann")
    assert 0 == rig.size("c")


@pytest.mark.parametrize("named", [True, False])
def test_a_watcher_hears_of_its_waddle_only(rig: Rig, named: bool) -> None:
    """Another waddle's call of the id neither reaches nor ends its watching."""
    ann, eve = rig.connect("ann"), rig.connect("eve", "elsewhere")
    key = qualified_key("elsewhere", "c")
    for connection, waddle in ((ann, "w"), (eve, "elsewhere")):
        rig.audience.watch("c", waddle if named else "", connection)
    rig.live_calls.live |= {("c", "w"), (key, "elsewhere")}
    rig.audience.review("c", "w")
    assert (1, 0) == (rig.size("c"), rig.size(key))
    rig.audience.review(key, "elsewhere")
    assert (1, 1) == (rig.size("c"), rig.size(key))
    assert [[key], ["c"]] == [
        rig.audience.channels_of(eve, "eve"),
        rig.audience.channels_of(ann, "ann"),
    ]
    ann.identity = eve.identity
    rig.audience.review_connection(ann)
    assert (0, 1 if named else 2) == (rig.size("c"), rig.size(key))


def test_watching_is_bounded_and_leaves_nothing_behind(rig: Rig) -> None:
    """The next channel is refused; when the connection is gone, so is everything about it."""
    ann = rig.connect("ann")
    for number in range(MAX_WATCHED):
        rig.audience.watch(f"c{number}", "", ann)
    rig.audience.watch("c0", "", ann)
    with pytest.raises(SyncBridgeError, match="at most 32"):
        rig.audience.watch("more", "", ann)

    rig.audience.remove(ann, "ann")
    audience = rig.audience
    assert ({}, {}, {}, {}, {}) == (
        audience._topics,
        audience._open,
        audience._devices,
        audience._watchers,
        audience._watched,
    )
    assert 0 == rig.hub.statistics().open_topics
