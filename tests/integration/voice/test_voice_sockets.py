"""Calls on the sockets: who is told what, on two nodes; what a socket says about a call, and what
it does not.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.voice import calls_kit as kit
from support.voice.calls_kit import came, device_of, hear, join, open_call, people, states, went
from support.ws_client import Device
from syncbridge.identity import Role

HEARTBEAT, SNAPSHOT_REQUEST, ERROR, AUTH, DEVICE_LIST = 1, 3, 6, 7, 12


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of its own: calls are known by the names that users have here."""
    with RedisServer() as server:
        yield server.url


@pytest.fixture(params=["json", "protobuf"])
async def nodes(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes with voice; the devices of the first speak either encoding."""
    fast: dict[str, Any] = {"rate_limit_enabled": False, **kit.NOWHERE}
    async with running_node(redis_url, **fast) as one, running_node(redis_url, **fast) as two:
        one.protobuf = request.param == "protobuf"
        yield one, two


def error_of(message: dict[str, Any]) -> str:
    assert message["type"] == ERROR, message
    return str(message["payload"]["code"])


async def test_a_join_is_answered_and_told_on_every_node(nodes: tuple[Node, Node]) -> None:
    """The answer is the whole call; participants elsewhere hear of it, their own devices too."""
    one, two = nodes
    await open_call(one, "c")
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
        await device_of(two, "ann", "tablet") as tablet,
    ):
        first = await join(ann, "c")
        assert {"userId": "ann", "deviceId": "phone"}.items() <= first["participants"][0].items()
        assert ("s1", "active", 30_000) == (
            first["sessionId"],
            first["phase"],
            first["reportIntervalMs"],
        )
        assert {"ann", "bob"} == people(await join(bob, "c"))
        (told,) = await states(ann, "connected")
        while told["userId"] != "bob":
            (told,) = await states(ann, "connected")
        # The user's other device is given the call, and who holds it.
        assert {"ann"} == people(await tablet.receive("voice_state"))
        (held,) = await states(tablet, "held")
        assert ("phone", "ann") == (held["deviceId"], held["userId"])


async def test_others_do_not_see_the_devices_of_a_user(nodes: tuple[Node, Node]) -> None:
    """Who holds the call is told to the user's own devices alone."""
    one, two = nodes
    await open_call(one, "c")
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(bob, "c")
        await join(ann, "c")
        await states(bob, "connected")
        await join(bob, "c")
        await join(ann, "c", muted=True)
        await states(bob, "muted")

        assert not any("phone" in message for message in bob.raw)


async def test_a_blip_of_the_socket_keeps_the_call(nodes: tuple[Node, Node]) -> None:
    """The socket breaks and comes back on another node: the call went on, and is told at once."""
    one, two = nodes
    await open_call(one, "c")
    async with await device_of(two, "bob", "laptop") as bob:
        await join(bob, "c")
        async with await device_of(one, "ann", "phone") as ann:
            await join(ann, "c", connectionId="c1")
            await states(bob, "connected")
            await ann.kill()
        async with await device_of(two, "ann", "phone") as again:
            assert {"ann", "bob"} == people(again.welcome["voice"][0])
            assert "c" == {d["device_id"]: d for d in again.welcome["devices"]}["phone"]["in_call"]
            await join(again, "c", connectionId="c1", muted=True)
            states_told = [(await states(bob, "muted"))[0]["userId"]]

        assert ["ann"] == states_told
        assert [] == told_of(bob, "disconnected")


async def test_snapshots_and_lists_show_the_call(nodes: tuple[Node, Node]) -> None:
    """SNAPSHOT_RESPONSE carries the calls, DEVICE_LIST and REST mark the device that holds one."""
    one, _ = nodes
    await open_call(one, "c")
    session = new_session()
    async with await device_of(one, "ann", "phone", session_id=session) as ann, one.http() as http:
        assert [] == ann.welcome["voice"]
        await ann.set("a", 1)
        await join(ann, "c")
        snapshot = (await ann.request(SNAPSHOT_REQUEST))["payload"]
        listed = (await ann.request(DEVICE_LIST))["payload"]["devices"]
        rest = await http.get(f"/session/{session}/devices", headers=bearer(kit.pass_for("ann")))

    assert {"ann"} == people(snapshot["voice"][0])
    assert ["c"] == [device["in_call"] for device in listed]
    assert ["c"] == [device["in_call"] for device in rest.json()["devices"]]


async def test_who_leaves_is_told_and_hears_no_more(nodes: tuple[Node, Node]) -> None:
    """The leaver gets its own `disconnected`; later news are for the others."""
    one, two = nodes
    await open_call(one, "c")
    async with (
        await device_of(one, "ann", "phone") as ann,
        await device_of(two, "bob", "laptop") as bob,
    ):
        await join(bob, "c")
        await join(ann, "c", connectionId="c1")
        answer = await ann.request("voice_leave", {"channelId": "c", "connectionId": "c1"})
        assert {"ann", "bob"} == people(answer)
        await hear(two, "c", went("ann", "c1"))
        (gone,) = await states(ann, "disconnected")
        assert ("ann", "left") == (gone["userId"], gone["reason"])
        await states(bob, "disconnected")
        await join(bob, "c", muted=True)
        await kit.until(one, lambda live_calls: kit.muted(live_calls, "c", "bob"))
        await ann.request(HEARTBEAT)

        assert [] == told_of(ann, "muted")


async def test_a_watcher_hears_of_a_channel_and_can_stop(nodes: tuple[Node, Node]) -> None:
    """Before there is a call and during it; nobody sees the watcher."""
    one, two = nodes
    async with (
        await device_of(one, "eve", "writer") as eve,
        await device_of(two, "ann", "phone") as ann,
    ):
        empty = await eve.request("voice_watch", {"channelId": "c", "waddleId": kit.WADDLE})
        assert ("ended", []) == (empty["phase"], empty["participants"])
        await open_call(two, "c")
        await join(ann, "c")
        assert "ann" == (await states(eve, "connected"))[0]["userId"]
        again = await eve.request("voice_watch", {"channelId": "c"})
        assert {"ann"} == people(again)
        await eve.request("voice_unwatch", {"channelId": "c"})
        await join(ann, "c", muted=True)
        await kit.until(one, lambda live_calls: kit.muted(live_calls, "c", "ann"))
        await eve.request(HEARTBEAT)
        assert [] == told_of(eve, "muted")


@pytest.mark.parametrize("channel", ["café/👩\u200d👧", "\u202eשלום\u2028", "ż" * 128])
async def test_a_channel_may_be_called_anything(nodes: tuple[Node, Node], channel: str) -> None:
    """Joined, watched and spoken in on both nodes, in either encoding."""
    one, two = nodes
    await open_call(two, channel)
    async with (
        await device_of(one, "eve", "writer") as eve,
        await device_of(two, "ann", "phone") as ann,
    ):
        await eve.request("voice_watch", {"channelId": channel, "waddleId": kit.WADDLE})
        assert channel == (await join(ann, channel))["channelId"]
        assert channel == (await states(eve, "connected"))[0]["channelId"]
        await kit.until(two, lambda live_calls: live_calls.member(channel, "ann") is not None)
        await ann.send("speaking", {"channelId": channel, "isSpeaking": True})
        assert channel == (await eve.receive("speaking_update"))["channelId"]
        left = await ann.request("voice_leave", {"channelId": channel})
        assert ("voice_state", channel) == (left["type"], left["channelId"])


async def test_a_false_waddle_does_not_let_a_watcher_in(nodes: tuple[Node, Node]) -> None:
    """A grant for another waddle is no way in, also when the channel had no call yet."""
    one, _ = nodes
    token = kit.pass_for("eve", waddle="elsewhere")
    async with (
        await device_of(one, "eve", "writer", token=token) as eve,
        await device_of(one, "ann", "phone") as ann,
    ):
        early = await eve.request("voice_watch", {"channelId": "c", "waddleId": "elsewhere"})
        assert "voice_state" == early["type"]
        await open_call(one, "c")
        await join(ann, "c")
        late = await eve.request("voice_watch", {"channelId": "c", "waddleId": "elsewhere"})
        claims = [
            await eve.request("voice_watch", {"channelId": "c", "waddleId": kit.WADDLE}),
            await join(eve, "c", waddleId=kit.WADDLE),
        ]
        joined = await join(eve, "c", waddleId="elsewhere")

        assert ("elsewhere", "ended", []) == (late["waddleId"], late["phase"], late["participants"])
        assert ["forbidden", "forbidden"] == [error_of(claim) for claim in claims]
        assert "not_found" == error_of(joined)
        assert not any('"ann"' in message for message in eve.raw)


@pytest.mark.parametrize(
    ("kind", "members", "code"),
    [
        ("voice_join", {"channelId": "none"}, "not_found"),
        ("voice_join", {}, "invalid_message"),
        ("voice_join", {"channelId": ""}, "invalid_field"),
        ("voice_join", {"channelId": "c" * 257}, "invalid_field"),
        ("voice_join", {"channelId": "c\x85"}, "invalid_field"),
        ("voice_watch", {"channelId": "c", "waddleId": "\x00"}, "invalid_field"),
        ("voice_join", {"channelId": "c", "muted": "yes"}, "invalid_message"),
        ("voice_join", {"channelId": "c", "connectionId": "x" * 129}, "invalid_field"),
        ("speaking", {"channelId": "c", "isSpeaking": True}, "forbidden"),
        ("speaking", {"channelId": "c"}, "invalid_message"),
        ("voice_dance", {"channelId": "c"}, "unknown_type"),
    ],
)
async def test_what_is_not_acceptable_gets_an_error(
    redis_url: str, kind: str, members: dict[str, Any], code: str
) -> None:
    """With its code and the correlation id, and the socket stays open."""
    async with running_node(redis_url, **kit.NOWHERE) as node:
        await open_call(node, "c")
        async with await device_of(node, "ann", "phone") as ann:
            assert code == error_of(await ann.request(kind, members))
            assert {"ann"} == people(await join(ann, "c"))


async def test_a_grant_is_needed(redis_url: str) -> None:
    """A token without one, and one for another channel, may not join; a service may."""
    async with running_node(redis_url, **kit.NOWHERE) as node:
        await open_call(node, "c")
        for token in (kit.plain_token("ann"), kit.pass_for("ann", channel="other")):
            async with await device_of(node, "ann", "phone", token=token) as ann:
                assert "forbidden" == error_of(await join(ann, "c"))
        token = mint("bot", Role.SERVICE)
        async with await device_of(node, "bot", "b", token=token) as bot:
            assert {"bot"} == people(await join(bot, "c"))


async def test_without_a_provider_there_is_no_voice(redis_url: str) -> None:
    """The messages are refused as unsupported, and AUTH_SUCCESS says nothing of calls."""
    async with running_node(redis_url) as node:
        async with await device_of(node, "ann", "phone") as ann:
            assert "voice" not in ann.welcome
            assert "unsupported" == error_of(await join(ann, "c"))


async def test_a_migration_and_the_end_are_told(nodes: tuple[Node, Node]) -> None:
    """Participants are asked to come over, and told when the call is over."""
    one, two = nodes
    await open_call(one, "c")
    async with await device_of(one, "ann", "phone") as ann:
        await join(ann, "c", connectionId="c1")
        writer = kit.desk_of(two)
        room = await writer.change("c", lambda channel, now: channel.migrate(now, "too_old"))
        assert room is not None
        await writer.change("c", lambda channel, now: channel.moved("s2", now, room.key))
        told = await ann.receive("session_migration")
        assert ("s1", "s2", "rejoin_required") == (
            told["oldSessionId"],
            told["newSessionId"],
            told["action"],
        )
        state = await join(ann, "c", connectionId="c2", sessionId="s2")
        assert ("s2", "active") == (state["sessionId"], state["phase"])
        await writer.change("c", lambda channel, now: channel.end(now, "closed"))
        await states(ann, "disconnected")
        assert "closed" == (await ann.receive("session_ended"))["reason"]
        assert "not_found" == error_of(await join(ann, "c"))


async def test_a_live_socket_keeps_nobody_in_the_call(redis_url: str) -> None:
    """Heartbeats renew no lease: a client that falls silent about its media is removed."""
    fast = {"presence_timeout": 1.0, "heartbeat_interval": 0.3, **kit.NOWHERE}
    async with running_node(redis_url, **fast) as node:
        await open_call(node, "c")
        async with (
            await device_of(node, "ann", "phone") as ann,
            await device_of(node, "bob", "laptop") as bob,
        ):
            await join(bob, "c")
            await join(ann, "c")
            beats = 0
            with trio.fail_after(10):
                while kit.calls_of(node).live_calls.member("c", "ann") is not None:
                    await ann.request(HEARTBEAT)
                    await join(bob, "c")
                    beats += 1
                    await trio.sleep(0.1)
            await join(bob, "c")

            assert [("ann", "expired")] == told_of(bob, "disconnected")
            assert beats > 2
            assert 2 == (await ann.request(HEARTBEAT))["type"]


async def test_the_provider_brings_devices_to_the_call(nodes: tuple[Node, Node]) -> None:
    """Who is in the media without having said so hears of the call all the same."""
    one, two = nodes
    await open_call(one, "c")
    async with await device_of(one, "ann", "phone") as ann:
        await hear(two, "c", came("ann", "c1"))
        assert {"ann"} == people(await ann.receive("voice_state"))
        await states(ann, "connected")
        await hear(two, "c", came("bob", "c2"))
        assert "bob" == (await states(ann, "connected"))[0]["userId"]


async def test_a_node_that_starts_knows_the_calls(redis_url: str) -> None:
    """Its devices are told at once of calls that began before it."""
    async with running_node(redis_url, **kit.NOWHERE) as one:
        for number in range(30):
            await open_call(one, f"c{number}", f"s{number}")
            await hear(one, f"c{number}", came("ann", f"conn{number}"))
        async with running_node(redis_url, **kit.NOWHERE) as two:
            async with await device_of(two, "ann", "phone") as ann:
                channels = {call["channelId"] for call in ann.welcome["voice"]}

    assert {f"c{number}" for number in range(30)} == channels


def told_of(device: Device, state: str) -> list[tuple[str, str]]:
    """(user, reason) of the voice_state_updates with a state that a device has received."""
    updates = [m for m in device.seen if m["type"] == "voice_state_update" and m["state"] == state]
    return [(update["userId"], update.get("reason", "")) for update in updates]
