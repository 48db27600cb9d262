"""The looks of one pass: within a share, twice at doubts, and what stops them."""

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from syncbridge.errors import StoreUnavailable
from syncbridge.voice.compare import Reason
from syncbridge_server.voice.checks.check_round import CheckRound, SyncLimits
from syncbridge_server.voice.checks.state_check import CheckResult
from syncbridge_server.voice.figures.metrics import voice_metrics

LIMITS = SyncLimits(together=3, patience_s=2.0, second_s=0.5)


class StateCheck:
    """Sees what a table says, the last entry for ever. `log`: who was looked at, in order."""

    def __init__(self, **sights: list[Any]) -> None:
        self.sights = sights
        self.log: list[str] = []
        self.limited_until = 0.0
        self.running = self.most = 0

    async def check(self, channel_id: str, listing: object = None) -> CheckResult:
        self.log.append(channel_id)
        self.running += 1
        self.most = max(self.most, self.running)
        await trio.sleep(0.01)
        self.running -= 1
        plan = self.sights.get(channel_id, [CheckResult.VERIFIED])
        result = plan.pop(0) if len(plan) > 1 else plan[0]
        if isinstance(result, Exception):
            raise result
        if isinstance(result, float):
            self.limited_until = trio.current_time() + result
            return CheckResult.RATE_LIMITED
        assert isinstance(result, CheckResult)
        return result


def round_of(state_check: StateCheck, names: list[str], share: int) -> CheckRound:
    metrics = voice_metrics(CollectorRegistry()).sync
    wanted = dict.fromkeys(names, Reason.COUNT)
    return CheckRound(state_check, metrics, LIMITS, wanted, None, share)  # type: ignore[arg-type]


async def test_doubts_are_looked_at_twice(autojump_clock: trio.testing.MockClock) -> None:
    """The second look comes after all first ones, and a pause; others are looked at once."""
    state_check = StateCheck(b=[CheckResult.DOUBTFUL, CheckResult.VERIFIED])
    one = round_of(state_check, ["a", "b", "c"], 10)
    await one.run()

    assert (["a", "b", "c", "b"], 4, []) == (state_check.log, one.made, list(one.queue))
    assert trio.current_time() >= LIMITS.second_s


async def test_a_doubt_that_stays_is_left_to_the_next_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Two looks and no more, however doubtful."""
    state_check = StateCheck(a=[CheckResult.DOUBTFUL])
    await round_of(state_check, ["a"], 10).run()

    assert ["a", "a"] == state_check.log


async def test_nothing_is_learnt(autojump_clock: trio.testing.MockClock) -> None:
    """What cannot be verified is named, and the others are looked at all the same."""
    one = round_of(
        StateCheck(b=[CheckResult.UNVERIFIED], c=[CheckResult.LOST]), ["a", "b", "c", "d"], 10
    )
    await one.run()

    assert ({"b", "c"}, 4) == (one.unverified, one.made)


async def test_a_spent_budget_is_waited_for_once(autojump_clock: trio.testing.MockClock) -> None:
    """Not for long: then the round stops, and who was not looked at is first in the queue."""
    short = StateCheck(a=[1.0, CheckResult.VERIFIED])
    patient = round_of(short, ["a", "b"], 10)
    await patient.run()
    late = StateCheck(b=[60.0])
    stopped = round_of(late, ["a", "b", "c", "d", "e", "f", "g"], 10)
    await stopped.run()

    assert (2, []) == (patient.made, list(patient.queue))
    assert "b" == next(iter(stopped.queue))
    assert stopped.made + len(stopped.queue) == 7


async def test_the_store_fails(autojump_clock: trio.testing.MockClock) -> None:
    """Everything stops; who is left waits; the error is the caller's."""
    state_check = StateCheck(b=[StoreUnavailable("away")])
    one = round_of(state_check, list("abcdefgh"), 20)
    with pytest.raises(StoreUnavailable):
        await one.run()

    assert "b" in one.queue
    assert state_check.most <= LIMITS.together


@given(
    st.lists(
        st.sampled_from([CheckResult.VERIFIED, CheckResult.DOUBTFUL, CheckResult.UNVERIFIED]),
        max_size=30,
    ),
    st.integers(1, 40),
)
def test_a_share_is_kept_and_nobody_is_forgotten(sights: list[CheckResult], share: int) -> None:
    """However it goes: no more looks than the share, and who was not looked at is in the queue."""
    names = [f"c{n}" for n in range(len(sights))]
    state_check = StateCheck(**{name: [result] for name, result in zip(names, sights, strict=True)})
    one = round_of(state_check, names, share)
    trio.run(one.run, clock=trio.testing.MockClock(autojump_threshold=0))

    assert one.made == len(state_check.log) <= share
    assert set(names) == set(state_check.log) | set(one.queue)
    assert not {n for n, s in zip(names, sights, strict=True) if s is CheckResult.VERIFIED} & (
        set(state_check.log) & set(one.queue)
    )
