"""Looks at rooms before somebody is let in: shared, bounded, and never in the way for long."""

import pytest
import trio
import trio.testing

from syncbridge.errors import StoreUnavailable
from syncbridge_server.voice.checks.looking import Sight
from syncbridge_server.voice.checks.room_check import SHARED_S, RoomCheck


class Looker:
    """`sights` are answered in turn, the last one for ever; each look takes a second."""

    def __init__(self, *sights: Sight) -> None:
        self.sights = list(sights)
        self.asked: list[str] = []
        self.error: Exception | None = None

    async def look(self, channel_id: str) -> Sight:
        self.asked.append(channel_id)
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return self.sights.pop(0) if len(self.sights) > 1 else self.sights[0]


async def test_who_comes_together_shares_a_look(autojump_clock: trio.testing.MockClock) -> None:
    """Ten at once and one a little later: one look for each session, the same answer for all."""
    looker = Looker(Sight.LOST)
    check, found = RoomCheck(looker), list[bool]()

    async def come(number: int) -> None:
        found.append(await check.lost(f"c{number % 2}", f"s{number % 2}"))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(come, number)
    await come(1)

    assert ["c0", "c1"] == sorted(looker.asked)
    assert [True] * 11 == found


async def test_a_look_holds_for_a_few_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """Asked without a pause, the provider is looked at once in that time, and old looks go."""
    looker = Looker(Sight.SEEN, Sight.LOST)
    check = RoomCheck(looker)
    assert not await check.lost("c", "s")
    await trio.sleep(SHARED_S / 2)
    assert not await check.lost("c", "s")
    await trio.sleep(SHARED_S)

    assert await check.lost("c", "s")
    assert 2 == len(looker.asked)
    await trio.sleep(2 * SHARED_S)
    await check.lost("c", "another")
    assert ["another"] == list(check._looks)


@pytest.mark.parametrize("sight", [sight for sight in Sight if sight is not Sight.LOST])
async def test_only_lost_is_lost(autojump_clock: trio.testing.MockClock, sight: Sight) -> None:
    """Whatever else a look finds out, or does not, lets people in."""
    assert not await RoomCheck(Looker(sight)).lost("c", "s")


async def test_when_who_looks_goes_another_one_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first one gives up: who waits looks, and nobody waits for ever."""
    looker, found = Looker(Sight.LOST), list[bool]()
    check = RoomCheck(looker)

    async def give_up() -> None:
        with trio.move_on_after(0.5):
            await check.lost("c", "s")

    async def stay() -> None:
        await trio.sleep(0.1)
        found.append(await check.lost("c", "s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        nursery.start_soon(stay)

    assert ([True], 2) == (found, len(looker.asked))


async def test_a_store_that_is_away_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """And nothing is remembered of that look."""
    looker = Looker(Sight.LOST)
    check = RoomCheck(looker)
    looker.error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await check.lost("c", "s")
    looker.error = None

    assert await check.lost("c", "s")
