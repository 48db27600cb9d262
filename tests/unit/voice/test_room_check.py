"""Looks at rooms before somebody is let in: shared, bounded, and never in the way for long."""

import pytest
import trio
import trio.testing

from syncbridge.errors import StoreUnavailable
from syncbridge_server.voice.checks.room_check import SHARED_S, RoomCheck
from syncbridge_server.voice.checks.state_check import CheckResult


class StateCheck:
    """`sights` are answered in turn, the last one for ever; each look takes a second."""

    def __init__(self, *sights: CheckResult) -> None:
        self.sights = list(sights)
        self.asked: list[str] = []
        self.error: Exception | None = None

    async def check(self, channel_id: str) -> CheckResult:
        self.asked.append(channel_id)
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return self.sights.pop(0) if len(self.sights) > 1 else self.sights[0]


async def test_who_comes_together_shares_a_look(autojump_clock: trio.testing.MockClock) -> None:
    """Ten at once and one a little later: one look for each session, the same answer for all."""
    state_check = StateCheck(CheckResult.LOST)
    check, found = RoomCheck(state_check), list[bool]()

    async def come(number: int) -> None:
        found.append(await check.lost(f"c{number % 2}", f"s{number % 2}"))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(come, number)
    await come(1)

    assert ["c0", "c1"] == sorted(state_check.asked)
    assert [True] * 11 == found


async def test_a_look_holds_for_a_few_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """Asked without a pause, the provider is looked at once in that time, and old looks go."""
    state_check = StateCheck(CheckResult.VERIFIED, CheckResult.LOST)
    check = RoomCheck(state_check)
    assert not await check.lost("c", "s")
    await trio.sleep(SHARED_S / 2)
    assert not await check.lost("c", "s")
    await trio.sleep(SHARED_S)

    assert await check.lost("c", "s")
    assert 2 == len(state_check.asked)
    await trio.sleep(2 * SHARED_S)
    await check.lost("c", "another")
    assert ["another"] == list(check._checks)


@pytest.mark.parametrize(
    "result", [result for result in CheckResult if result is not CheckResult.LOST]
)
async def test_only_lost_is_lost(
    autojump_clock: trio.testing.MockClock, result: CheckResult
) -> None:
    """Whatever else a look finds out, or does not, lets people in."""
    assert not await RoomCheck(StateCheck(result)).lost("c", "s")


async def test_when_who_looks_goes_another_one_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first one gives up: who waits looks, and nobody waits for ever."""
    state_check, found = StateCheck(CheckResult.LOST), list[bool]()
    check = RoomCheck(state_check)

    async def give_up() -> None:
        with trio.move_on_after(0.5):
            await check.lost("c", "s")

    async def stay() -> None:
        await trio.sleep(0.1)
        found.append(await check.lost("c", "s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        nursery.start_soon(stay)

    assert ([True], 2) == (found, len(state_check.asked))


async def test_a_store_that_is_away_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """And nothing is remembered of that look."""
    state_check = StateCheck(CheckResult.LOST)
    check = RoomCheck(state_check)
    state_check.error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await check.lost("c", "s")
    state_check.error = None

    assert await check.lost("c", "s")
