"""Who speaks, as listeners on two nodes hear it: the first change, the last state, and silence."""

import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, new_session, running_node
from support.voice import calls_kit as kit
from support.voice.calls_kit import came, device_of, hear, join, open_call, went
from support.voice.voice_kit import voice_server
from support.ws_client import Device
from syncbridge.records.sessions import Notice

HEARTBEAT, SNAPSHOT_REQUEST, ERROR = 1, 3, 6


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of its own: calls are known by the names that users have here."""
    with RedisServer() as server:
        yield server.url


@pytest.fixture(params=["json", "protobuf"])
async def nodes(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes with voice and an open call; the devices of the first speak either encoding."""
    fast: dict[str, Any] = {"rate_limit_enabled": False, **kit.NOWHERE}
    async with running_node(redis_url, **fast) as one, running_node(redis_url, **fast) as two:
        one.protobuf = request.param == "protobuf"
        await open_call(one, "c")
        yield one, two


async def speak(device: Device, *said: bool) -> None:
    for speaking in said:
        await device.send("speaking", {"channelId": "c", "isSpeaking": speaking})


def changes(message: dict[str, Any]) -> list[tuple[str, bool]]:
    """Who changed to what, in either form of a speaking_update."""
    assert message["channelId"] == "c"
    return [(one["userId"], one["isSpeaking"]) for one in message.get("updates", [message])]


async def heard(device: Device, *wanted: tuple[str, bool]) -> list[float]:
    """Wait for these changes, in this order and without others between; when each came."""
    left, times = list(wanted), []
    while left:
        for change in changes(await device.receive("speaking_update")):
            assert change == left.pop(0)
            times.append(time.monotonic())
    return times


async def test_a_change_is_heard_everywhere_and_the_last_one_always(
    nodes: tuple[Node, Node],
) -> None:
    """A burst of changes is two: the first at once, the last at the end of the window."""
    one, two = nodes
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(ann, "c")
        await join(bob, "c")
        await kit.until(one, lambda live_calls: live_calls.member("c", "bob") is not None)
        await speak(ann, True)
        first = [(await heard(device, ("ann", True)))[0] for device in (ann, bob)]
        await speak(ann, False, True, False, True, False)
        last = [(await heard(device, ("ann", False)))[0] for device in (ann, bob)]
        assert all(after > before for before, after in zip(first, last, strict=True))
        await speak(ann, True)
        for device in (ann, bob):
            await heard(device, ("ann", True))


async def test_silence_clears_itself(nodes: tuple[Node, Node]) -> None:
    """Nobody says that ann has stopped: listeners on both nodes hear so all the same."""
    one, two = nodes
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(ann, "c")
        await join(bob, "c")
        await speak(ann, True)
        await ann.kill()
        await heard(bob, ("ann", True), ("ann", False))


async def test_who_goes_on_speaking_is_not_cleared_on_other_nodes(
    nodes: tuple[Node, Node],
) -> None:
    """Reports that repeat a state change nothing; the other node is kept informed of it."""
    one, two = nodes
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(ann, "c")
        await join(bob, "c")
        with trio.move_on_after(3.0):
            while True:
                await speak(ann, True)
                await trio.sleep(0.5)
        state = await bob.request("voice_watch", {"channelId": "c"})
        assert {"ann": True, "bob": False} == {
            person["userId"]: person["speaking"] for person in state["participants"]
        }
        updates = [m for m in bob.seen if m["type"] == "speaking_update"]
        assert [[("ann", True)]] == [changes(update) for update in updates]


async def test_muted_is_not_speaking(nodes: tuple[Node, Node]) -> None:
    """Muting clears the indicator on both nodes; a muted user cannot set it."""
    one, two = nodes
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(ann, "c")
        await join(bob, "c")
        await speak(ann, True)
        await heard(bob, ("ann", True))
        await join(ann, "c", muted=True)
        await heard(bob, ("ann", False))
        refused = await ann.request("speaking", {"channelId": "c", "isSpeaking": True})
        assert (ERROR, "forbidden") == (refused["type"], refused["payload"]["code"])
        # The provider's word does not set it either.
        kit.calls_of(two).speaking.report_now("c", "ann", True)
        await join(ann, "c", muted=False)
        await speak(ann, True)
        await heard(bob, ("ann", True))


async def test_who_leaves_does_not_speak(nodes: tuple[Node, Node]) -> None:
    """The indicator is cleared before the user is gone, and does not come back with them."""
    one, two = nodes
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(ann, "c", connectionId="c1")
        await join(bob, "c")
        await speak(ann, True)
        await heard(bob, ("ann", True))
        await hear(two, "c", went("ann", "c1"))
        await heard(bob, ("ann", False))
        await hear(two, "c", came("ann", "c2"))
        await kit.until(two, lambda live_calls: live_calls.member("c", "ann") is not None)
        state = await bob.request("voice_watch", {"channelId": "c"})
        assert [False, False] == [person["speaking"] for person in state["participants"]]


async def test_the_providers_word_counts_on_any_node(nodes: tuple[Node, Node]) -> None:
    """A webhook on one node says that somebody speaks, one on the other that they stopped."""
    one, two = nodes
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(ann, "c")
        await join(bob, "c")
        await kit.until(one, lambda live_calls: live_calls.member("c", "bob") is not None)
        kit.calls_of(one).speaking.report_now("c", "ann", True)
        await heard(ann, ("ann", True))
        await heard(bob, ("ann", True))
        kit.calls_of(two).speaking.report_now("c", "ann", False)
        await heard(bob, ("ann", False))
        await heard(ann, ("ann", False))


async def test_the_providers_webhook_reaches_a_socket(redis_url: str) -> None:
    """The provider reports who speaks to the URL that its session was opened with."""
    async with voice_server(redis_url, speaking_timeout=60.0) as rig:
        session = await rig.join("ann", "lobby")
        token = kit.pass_for("bob", waddle="*")
        async with await device_of(rig.node, "bob", "laptop", token=token) as bob:
            await bob.request("voice_watch", {"channelId": "lobby"})
            for action, speaking in (("speak", True), ("fall_silent", False)):
                await rig.sim.move(session, "ann", action)
                told = await bob.receive("speaking_update")
                assert ("lobby", "ann", speaking) == (
                    told["channelId"],
                    told["userId"],
                    told["isSpeaking"],
                )


async def test_several_changes_of_a_tick_are_one_message(nodes: tuple[Node, Node]) -> None:
    """What the participants say in one tick comes as `updates`."""
    one, two = nodes
    async with await device_of(two, "bob", "laptop") as bob:
        await join(bob, "c")
        for name in ("ann", "eve"):
            await hear(one, "c", came(name, f"of-{name}"))
        await kit.until(two, lambda live_calls: live_calls.member("c", "eve") is not None)
        voice_gateway = kit.calls_of(two)
        call = voice_gateway.live_calls.calls["c"]
        for name in ("ann", "eve"):
            voice_gateway.speaking.report(call, name, True)
        await bob.request(HEARTBEAT)
        told = [m for m in bob.seen if m["type"] == "speaking_update"]

        assert [{("ann", True), ("eve", True)}] == [set(changes(message)) for message in told]


async def test_one_node_alone_tells_nobody(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other nodes the notices are spared, all but one in a while."""
    monkeypatch.setattr("syncbridge_server.redis.bus.bus.ALONE_SECONDS", 60.0)
    async with running_node(redis_url, rate_limit_enabled=False, **kit.NOWHERE) as node:
        await open_call(node, "c")
        voice_gateway = kit.calls_of(node)
        bus = node.server.bus
        sent: list[str] = []
        tell = bus.tell

        def noting(to: str, notice: Notice) -> None:
            sent.append(notice.kind)
            tell(to, notice)

        monkeypatch.setattr(bus, "tell", noting)
        async with await device_of(node, "ann", "phone") as ann:
            await join(ann, "c")
            await speak(ann, True)
            await heard(ann, ("ann", True))
            with trio.fail_after(5):
                while not bus.alone:  # noqa: ASYNC110 - the answer comes from another thread
                    await trio.sleep(0.005)
            before = voice_gateway.speaking.shared
            await speak(ann, False)
            await heard(ann, ("ann", False))

        assert voice_gateway.speaking.shared > before
        assert 1 == sent.count("speaking")


async def test_a_node_that_dies_leaves_nobody_speaking(redis_url: str) -> None:
    """What it told last is cleared by the others when it is not repeated."""
    fast: dict[str, Any] = {"rate_limit_enabled": False, **kit.NOWHERE}
    async with running_node(redis_url, **fast) as two:
        await open_call(two, "c")
        async with await device_of(two, "bob", "laptop") as bob:
            await join(bob, "c")
            await hear(two, "c", came("ann", "c1"))
            async with running_node(redis_url, **fast) as one:
                await kit.until(one, lambda live_calls: live_calls.member("c", "ann") is not None)
                kit.calls_of(one).speaking.report_now("c", "ann", True)
                await heard(bob, ("ann", True))
            await heard(bob, ("ann", False))


async def test_who_reads_slowly_learns_in_the_end_who_speaks(redis_url: str) -> None:
    """A change that was given up for a device that did not read comes as the whole call later."""
    async with running_node(
        redis_url,
        rate_limit_enabled=False,
        conflate_bytes=20_000,
        outbox_bytes=100_000,
        speaking_timeout=60.0,
        **kit.NOWHERE,
    ) as node:
        await open_call(node, "c")
        session, hub = new_session(), node.server.hub
        async with (
            await device_of(node, "ann", "phone") as ann,
            await device_of(node, "bob", "slow", session_id=session) as slow,
            await device_of(node, "bob", "writer", session_id=session) as writer,
        ):
            await join(ann, "c")
            await slow.request("voice_watch", {"channelId": "c"})
            numbers = count()
            while not hub.statistics().state_dropped:
                await writer.set("k", {"n": next(numbers), "y": "y" * 4000})
            await speak(ann, True)
            await heard(ann, ("ann", True))
            while not hub.statistics().speaking_dropped:
                await slow.send(SNAPSHOT_REQUEST)
                await writer.request(HEARTBEAT)
            while (state := await slow.receive("voice_state"))["correlation_id"] is not None:
                pass

        assert [("ann", True)] == [(p["userId"], p["speaking"]) for p in state["participants"]]
