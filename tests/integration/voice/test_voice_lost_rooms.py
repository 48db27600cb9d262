"""Rooms that the provider has lost while nobody was in them, and the last one who leaves.

Whole servers, a real Redis, and the stand-in provider over HTTP; where a test needs a comparison,
it makes it.
"""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer
from support.voice.voice_kit import VoiceRig, voice_server
from support.voice.webhook_kit import Site, event, eventually, site
from syncbridge.voice.ahead import prewarm
from syncbridge.voice.channel import Channel
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.voice.checks import room_check

MANUALLY: dict[str, Any] = {
    "kind": "rtk-minted",
    "voice_sync": 86_400.0,
    "voice_monitor": 86_400.0,
    "voice_deadline": 0.5,
}


async def waiting(rig: VoiceRig) -> str:
    """Somebody got a token, and never came."""
    return str((await rig.token("ann", "lobby"))["sessionId"])


async def emptied(rig: VoiceRig) -> str:
    """Somebody was in the call, and left."""
    session = await rig.join("ann", "lobby")
    await rig.sim.move(session, "ann", "leave")
    await rig.until_channel("lobby", lambda c: c.call is not None and not c.call.users)
    return session


async def pooled(rig: VoiceRig) -> str:
    """The call is over, and its room is kept."""
    session = await emptied(rig)
    deed: Callable[[Channel, int], Any] = lambda c, now: c.expire(now + 301_000)  # noqa: E731
    await rig.voice.writer.change("lobby", deed)
    assert (await rig.channel("lobby")).record.pooled_until
    return session


async def prewarmed(rig: VoiceRig) -> str:
    """The room is open ahead of an event."""

    def warm(channel: Channel, now: int) -> None:
        prewarm(channel, now, now, ChannelConfig(), "waddle")

    await rig.voice.writer.change("lobby", warm)
    return (await rig.voice.opening.room("lobby", "waddle")).session_id


async def lose(rig: VoiceRig, session: str) -> None:
    """The provider forgets a session, and tells nobody."""
    world = rig.sim.sim.world
    await rig.sim.faults(webhooks=["lost"])
    world.end(world.rooms[session], 0.0)
    await rig.sim.faults()


def looks(rig: VoiceRig) -> float:
    """How often the provider was asked who is in a call."""
    name, registry = "syncbridge_voice_provider_requests_total", rig.node.server.registry
    outcomes = ("ok", "empty", "not_found")
    values = [
        registry.get_sample_value(name, {"call": "fetch_state", "outcome": outcome})
        for outcome in outcomes
    ]
    return sum(value or 0.0 for value in values)


@pytest.mark.parametrize("state", [waiting, emptied, pooled, prewarmed])
async def test_nobody_is_sent_into_a_lost_room(
    redis_server: RedisServer, state: Callable[[VoiceRig], Awaitable[str]]
) -> None:
    """Tokens are signed here, nobody is in the room: the next ones are for another session."""
    async with voice_server(redis_server.url, voice_pool_uses=1, **MANUALLY) as rig:
        await rig.join("zoe", "other")
        dead = await state(rig)
        await lose(rig, dead)
        sessions = set[str]()

        async def come(number: int) -> None:
            sessions.add((await rig.token(f"user-{number}", "lobby"))["sessionId"])

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(come, number)
        room = (await rig.channel("lobby")).record.room

        assert room is not None
        assert {room.session_id} == sessions
        assert dead not in sessions


async def test_looks_before_tokens_are_few(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None by who opens the room, one by the many who come then, none when somebody is in it."""
    monkeypatch.setattr(room_check, "SHARED_S", 60.0)
    async with voice_server(redis_server.url, **MANUALLY) as rig:
        session = (await rig.token("ann", "lobby"))["sessionId"]
        opened = looks(rig)
        many = {(await rig.token(f"user-{n}", "lobby"))["sessionId"] for n in range(10)}
        come = looks(rig)
        await rig.join("ann", "talk")
        talking = looks(rig)
        for number in range(3):
            await rig.token(f"user-{number}", "talk")

        assert ({session}, 0.0, 1.0) == (many, opened, come)
        assert talking == looks(rig)


@pytest.mark.parametrize("fault", [{"status": 503}, {"rate_limit": 3}, {"hang": True}])
async def test_a_provider_that_cannot_be_asked_keeps_nobody_out(
    redis_server: RedisServer, fault: dict[str, Any]
) -> None:
    """Tokens that we sign are given out for a room that is open, as ever."""
    async with voice_server(redis_server.url, **MANUALLY) as rig:
        session = (await rig.token("ann", "lobby"))["sessionId"]
        await rig.sim.faults(**fault)

        assert session == (await rig.token("bob", "lobby"))["sessionId"]


async def ended_unseen(rig: VoiceRig) -> str:
    """An empty room was ended, its webhook came, and the provider could not be asked then."""
    session = await emptied(rig)
    await rig.sim.faults(status=503)
    world = rig.sim.sim.world
    rig.sim.sim.reports.tell(world.end(world.rooms[session], time.time()))
    await rig.until_channel("lobby", lambda c: c.record.lost == 1)

    async def refused() -> bool:
        name, labels = "syncbridge_voice_provider_requests_total", {"call": "fetch_state"}
        registry = rig.node.server.registry
        outcome = labels | {"outcome": "unreachable"}
        return bool(registry.get_sample_value(name, outcome))

    await rig.until(refused, "a look that found out nothing")
    return session


async def test_a_room_in_doubt_is_looked_at_by_the_next_pass(redis_server: RedisServer) -> None:
    """Nobody is in it and no list names it; the end of its session was heard: it is asked for."""
    async with voice_server(redis_server.url, **MANUALLY) as rig:
        await rig.join("zoe", "other")
        await ended_unseen(rig)
        await rig.voice.synchronizer.make_pass()
        assert 1 == (await rig.channel("lobby")).record.lost
        await rig.sim.faults()
        await rig.voice.synchronizer.make_pass()

        assert (await rig.channel("lobby")).call is None


async def test_a_token_meanwhile_keeps_the_doubt(redis_server: RedisServer) -> None:
    """While the provider is away it is given out; afterwards it is for another session."""
    async with voice_server(redis_server.url, voice_breaker_failures=1000, **MANUALLY) as rig:
        dead = await ended_unseen(rig)
        assert dead == (await rig.token("ann", "lobby"))["sessionId"]
        assert 1 == (await rig.channel("lobby")).record.lost
        await rig.sim.faults()

        async def another() -> bool:
            return bool((await rig.token("ann", "lobby"))["sessionId"] != dead)

        await rig.until(another, "another session, when the look is made again")


def plain(kind: str, session: str, user: str) -> bytes:
    """A webhook as the specification has it: without a connection, and without a time."""
    return json.dumps({"type": kind, "sessionId": session, "participantId": user}).encode()


async def vacate(one: Site, *users: str) -> str:
    """These come and go in the only call, and the webhooks name no connection."""
    session = await one.open("c")
    for user in users:
        await one.rig.move(session, user)
        await one.post(plain("participant.joined", session, user))
    await one.until_users("c", *users)
    for user in users:
        await one.rig.move(session, user, "leave")
    return session


async def test_the_last_one_leaves_without_a_connection() -> None:
    """The only call there is: its state and the list are empty, and yet nobody stays behind."""
    async with site(voice_sync=86_400.0) as one:
        session = await vacate(one, "ann", "bob")
        for user in ("ann", "bob"):
            await one.post(plain("participant.left", session, user))
        await one.until_users("c")


async def test_one_who_is_not_reported_stays() -> None:
    """An empty answer is the second word about Ann, and the first one about Bob."""
    async with site(voice_sync=86_400.0) as one:
        session = await vacate(one, "ann", "bob")
        await one.post(plain("participant.left", session, "ann"))
        await one.until_worked_off()
        for _ in range(3):
            await one.voice.synchronizer.make_pass()

        assert {"bob"} == await one.users("c")


async def test_a_left_with_an_id_of_somebody_known_by_a_poll() -> None:
    """The `joined` was lost: the provider is asked at once, and the user is gone."""
    async with site(voice_sync=86_400.0) as one:
        session = await one.open("c")
        await one.rig.move(session, "ann")
        await one.voice.synchronizer.make_pass()
        assert {"ann"} == await one.users("c")
        await one.rig.move(session, "ann", "leave")
        await one.post(event("rtk", "left", session, "ann", "p1"))

        async def out() -> bool:
            return not await one.users("c")

        await eventually(out)
