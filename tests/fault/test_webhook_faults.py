"""Webhooks as others' outages have seen them: swapped, alone, twice, late, and a node killed."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from support.redis_servers import RedisServer, until
from support.server_kit import running_node, server_process
from support.voice import sim_kit
from support.voice.sim_kit import KEY, SECRET
from support.voice.webhook_kit import HOOK, KINDS, Site, event, signed, site, voice_settings
from syncbridge_server.redis.stores.inbox import GROUP, WAITING


@pytest.fixture(params=KINDS)
async def one(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with site(request.param) as running:
        yield running


async def tell(one: Site, *bodies: bytes) -> None:
    """Webhooks, each after the one before was accepted."""
    for body in bodies:
        assert 200 == (await one.post(body)).status_code


async def test_joined_and_left_swapped(one: Site) -> None:
    """Ann came and went; Bob is there."""
    session, now = await one.open("c"), time.time()
    await tell(
        one,
        event(one.kind, "left", session, "ann", "p1", now - 1),
        event(one.kind, "joined", session, "ann", "p1", now - 2),
        event(one.kind, "joined", session, "bob", "p2", now - 1),
    )

    await one.until_users("c", "bob")
    await one.until_worked_off()
    assert {"bob"} == await one.users("c")


async def test_left_without_joined(one: Site) -> None:
    """A participant of whom nothing was known does not appear, nor takes others along."""
    session, now = await one.open("c"), time.time()
    await tell(
        one,
        event(one.kind, "joined", session, "bob", "p2", now - 2),
        event(one.kind, "left", session, "ann", "p1", now - 1),
    )

    await one.until_worked_off()
    assert {"bob"} == await one.users("c")


async def test_the_only_participant_comes_back_at_once(one: Site) -> None:
    """The end of the session, or of its occupancy, is reported between: the call goes on."""
    session = await one.open("c")
    await one.report_to(one.nodes[0])
    for _ in range(3):
        await one.rig.move(session, "ann")
        await one.rig.move(session, "ann", "leave")
    await one.rig.move(session, "ann")

    await one.until_users("c", "ann")
    await one.until_worked_off()
    record = (await one.look("c")).record
    assert record.room is not None
    assert (session, {"ann"}) == (record.room.session_id, await one.users("c"))


async def test_leaving_within_300_ms(one: Site) -> None:
    """The provider reports both at nearly the same time."""
    session = await one.open("c")
    await one.report_to(one.nodes[0])
    await one.rig.move(session, "ann")
    await one.rig.move(session, "ann", "leave")
    await one.rig.move(session, "bob")

    await one.until_users("c", "bob")
    await one.until_worked_off()
    assert {"bob"} == await one.users("c")


async def test_a_delivery_that_comes_again_after_the_participant_left(one: Site) -> None:
    """The same joined, with the same and with a new delivery id, brings nobody back."""
    session, now = await one.open("c"), time.time()
    joined = event(one.kind, "joined", session, "ann", "p1", now - 3)
    headers = signed(one.kind, joined)
    assert 200 == (await one.post(joined, headers)).status_code
    await one.until_users("c", "ann")
    await tell(one, event(one.kind, "left", session, "ann", "p1", now - 2))
    await one.until_users("c")
    assert 200 == (await one.post(joined, headers)).status_code
    await tell(one, joined + b" ")

    await one.until_worked_off()
    assert set() == await one.users("c")


async def test_a_delayed_left_after_rejoining(one: Site) -> None:
    """The left of the first connection comes when the second is there."""
    session, now = await one.open("c"), time.time()
    await tell(
        one,
        event(one.kind, "joined", session, "ann", "p1", now - 9),
        event(one.kind, "joined", session, "ann", "p2", now - 3),
    )
    await one.until_users("c", "ann")
    await tell(one, event(one.kind, "left", session, "ann", "p1", now - 6))

    await one.until_worked_off()
    call = (await one.look("c")).call
    assert call is not None
    assert ("p2",) == call.connections("ann")


async def test_a_node_killed_between_acceptance_and_effect(tmp_path: Path) -> None:
    """What it had taken, and could not finish, takes effect on another node."""
    body = event("rtk", "joined", "s-1", "ann", "p1")
    async with sim_kit.rig() as rig:
        variables = {
            "RTK_API_URL": rig.url,
            "RTK_API_KEY": KEY,
            "SYNCBRIDGE_VOICE_WEBHOOK_SECRETS": SECRET,
        }
        with RedisServer(aof=True) as redis:
            with server_process(tmp_path, redis.url, **variables) as process:
                async with httpx.AsyncClient() as http:
                    url = process.url + HOOK
                    answer = await http.post(url, content=body, headers=signed("rtk", body))
                assert 200 == answer.status_code
                await until(lambda: _taken(redis) == 1)
                process.kill()
            async with running_node(redis.url, **voice_settings(rig, "rtk")) as node:
                one = Site("rtk", rig, redis, [node])
                await one.open("c", "s-1")
                await one.until_users("c", "ann")
                await one.until_worked_off()


def _taken(redis: RedisServer) -> int:
    """Deliveries that a node has taken and not finished."""
    with redis.client() as client:
        if not client.exists(WAITING) or not client.xinfo_groups(WAITING):
            return 0
        return int(client.xpending(WAITING, GROUP)["pending"])


async def test_a_session_that_becomes_known_later() -> None:
    """The first participant is reported before the answer to the creation has been noted."""
    async with site() as one:
        body = event("rtk", "joined", "s-2", "ann", "p1")
        assert 200 == (await one.post(body)).status_code
        await until(lambda: _taken(one.redis) == 1)
        await one.open("c", "s-2")

        await one.until_users("c", "ann")
