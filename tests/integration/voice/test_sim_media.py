"""Media connections of the stand-in provider: in the room is who is connected."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import jwt
import pytest
import trio

from support.voice.sim_kit import Rig, rig
from support.ws_client import Device
from syncbridge_server.voice.provider.calling import new_client
from syncbridge_tools.rtk_sim import beside
from syncbridge_tools.rtk_sim.world import Happening

ROOM = "room"


@pytest.fixture
async def sim() -> AsyncIterator[Rig]:
    """A stand-in with one room."""
    async with rig() as running:
        running.sim.world.create(ROOM, ROOM, 0.0, 3)
        yield running


def token(user: str, room: str = ROOM) -> str:
    """A participant's token, signed by whomever."""
    return jwt.encode({"sub": user, "room": room}, "a-key-of-a-test-of-32-bytes-or-more")


async def connected(sim: Rig, said: str) -> Device:
    """A connection that has said something first."""
    device = await Device.open(urlsplit(sim.url).port or 0, path="/media")
    await device.send_text(said)
    return device


async def present(sim: Rig, *users: str) -> None:
    """Wait until exactly these users are in the room."""
    with trio.fail_after(5):
        while (await sim.truth())["rooms"][ROOM]["participants"] != [*users]:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_connection_is_a_participant(sim: Rig) -> None:
    """Of two connections of one user each ends for itself."""
    async with await connected(sim, token("ann")) as first:
        identity = (await first.receive())["connectionId"]
        async with await connected(sim, token("ann")) as second:
            assert identity != (await second.receive())["connectionId"]
            await present(sim, "ann", "ann")
        await present(sim, "ann")
    await present(sim)


async def test_speaking_is_told(sim: Rig) -> None:
    """As it would be by a user's microphone; what else is said ends the connection."""
    told: list[Happening] = []
    sim.sim.reports.tell = told.extend
    async with await connected(sim, token("ann")) as device:
        await device.receive()
        for speaking in ("true", "false"):
            await device.send_text(f'{{"speaking": {speaking}}}')
        await device.send_text("louder")
        assert 4001 == (await device.closed()).code
    await present(sim)

    assert ["started", "joined", "speaking", "speaking", "left", "ended"] == [x.kind for x in told]
    assert [True, False] == [one.speaking for one in told if one.kind == "speaking"]


@pytest.mark.parametrize("said", [token("ann", "nowhere"), "no token", "", "ä"])
async def test_who_has_no_token_for_a_room_is_refused(sim: Rig, said: str) -> None:
    """With a code of its own, and nobody is there."""
    async with await connected(sim, said) as device:
        assert 4001 == (await device.closed()).code
    await present(sim)


async def test_a_full_room_takes_nobody(sim: Rig) -> None:
    """One more than its places."""
    devices = [await connected(sim, token(f"u{n}")) for n in range(3)]
    for device in devices:
        await device.receive()
    async with await connected(sim, token("late")) as device:
        assert 4001 == (await device.closed()).code
    for device in devices:
        await device.close()


async def test_who_is_removed_loses_the_connection(sim: Rig) -> None:
    """By the provider, as for a room that has ended."""
    async with await connected(sim, token("ann")) as device:
        await device.receive()
        await sim.move(ROOM, "ann", "leave")
        assert 4000 == (await device.closed()).code


async def test_the_one_beside_a_server_serves_when_it_is_asked() -> None:
    """On loopback, at an address that is there at once, with a key of its own."""
    (url, key, _), (other, other_key, _) = beside.start(), beside.start()
    async with new_client() as client:
        refused = await client.get(f"{url}/sessions")
        let_in = await client.get(f"{url}/sessions", headers={"Authorization": f"Bearer {key}"})

    assert "127.0.0.1" == urlsplit(url).hostname
    assert (401, 200) == (refused.status_code, let_in.status_code)
    assert (url, key) != (other, other_key)
