"""A pass over all calls, where the store and the provider's list fail in the middle."""

from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from support.voice.voice_store import MemoryChannels, desk_of, open_call
from syncbridge.errors import StoreUnavailable
from syncbridge.voice.provider.capabilities import Capabilities
from syncbridge.voice.provider.records import (
    ActivePage,
    ActiveSession,
    CannotVerify,
    Present,
    SessionState,
    VerifyFailure,
)
from syncbridge.voice.records import Room
from syncbridge.voice.verification import ALL, WAITING
from syncbridge_server.voice.checks.check_round import SyncLimits
from syncbridge_server.voice.checks.state_check import StateCheck
from syncbridge_server.voice.checks.sync_pass import PassReport, SyncPass
from syncbridge_server.voice.figures.metrics import voice_metrics

LIMITS = SyncLimits(calls=100, stale_s=1e6)
NAMES = [f"c{n}" for n in range(10)]


class Provider:
    """Calls by session; pages of three. `broken`: what a page answers instead, by its number."""

    capabilities = Capabilities()

    def __init__(self, calls: dict[str, tuple[str, ...]]) -> None:
        self.calls = calls
        self.broken: dict[int, CannotVerify] = {}
        self.listed = 0
        self.looked: list[str] = []

    async def list_active(self, cursor: str = "", limit: int = 100) -> ActivePage | CannotVerify:
        await trio.lowlevel.checkpoint()
        self.listed += 1
        start = int(cursor or 0)
        if start // 3 in self.broken:
            return self.broken.pop(start // 3)
        lines = [ActiveSession(name, len(users)) for name, users in self.calls.items() if users]
        more = str(start + 3) if start + 3 < len(lines) else ""
        return ActivePage(tuple(lines[start : start + 3]), more)

    async def fetch_state(self, session_id: str) -> SessionState | CannotVerify:
        await trio.lowlevel.checkpoint()
        self.looked.append(session_id)
        users = self.calls.get(session_id)
        if users is None:
            return CannotVerify(VerifyFailure.NOT_FOUND)
        if not users:
            return CannotVerify(VerifyFailure.EMPTY)
        return SessionState(session_id, tuple(Present(user) for user in users))


class Opening:
    def __init__(self) -> None:
        self.recreated: list[str] = []

    async def recreate(self, channel_id: str, lost_session_id: str) -> Room:
        await trio.lowlevel.checkpoint()
        self.recreated.append(channel_id)
        return Room(2, "key", 0)


class Rig:
    """Ten calls with ann and bob in each; at the provider bob has left the first five."""

    def __init__(self) -> None:
        there = {f"s-{n}": ("ann", "bob") for n in NAMES}
        self.provider = Provider(there | {f"s-{n}": ("ann",) for n in NAMES[:5]})
        self.channels = MemoryChannels()
        self.writer = desk_of(self.channels)
        self.opening = Opening()
        metrics = voice_metrics(CollectorRegistry()).sync
        provider: Any = self.provider
        state_check = StateCheck(provider, self.writer, self.opening, metrics, 64)
        self.sync_pass = SyncPass(provider, self.writer, state_check, metrics, LIMITS)

    async def fill(self) -> None:
        for name in NAMES:
            await open_call(self.writer, name, "ann", "bob")
        await trio.sleep(1)
        self.channels.reads = self.channels.writes = 0

    async def users(self, name: str) -> tuple[str, ...]:
        call = (await self.writer.read(name)).call
        return call.users if call is not None else ()

    async def pass_later(self) -> PassReport:
        await trio.sleep(30)
        return await self.sync_pass.run_pass()


async def test_a_pass_looks_at_what_differs(autojump_clock: trio.testing.MockClock) -> None:
    """Four pages, two looks at each of five calls, and the other five are left alone."""
    rig = Rig()
    await rig.fill()
    report = await rig.sync_pass.run_pass()

    assert (4, 10, 0) == (report.pages, report.looks, report.unverified)
    assert {f"s-{n}" for n in NAMES[:5]} == set(rig.provider.looked)
    assert [("ann",)] * 5 + [("ann", "bob")] * 5 == [await rig.users(n) for n in NAMES]


@pytest.mark.parametrize("fail_at", [1, 2, 3])
async def test_a_read_that_fails_ends_the_pass(
    autojump_clock: trio.testing.MockClock, fail_at: int
) -> None:
    """Whichever page of channels it is: nobody is looked at, and nothing is written."""
    rig = Rig()
    await rig.fill()
    rig.channels.fail_at = fail_at
    with pytest.raises(StoreUnavailable):
        await rig.sync_pass.run_pass()

    assert ([], 0) == (rig.provider.looked, rig.channels.writes)


async def test_a_damaged_channel_does_not_hold_up_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is left out; the calls of its page are compared all the same."""
    rig = Rig()
    await rig.fill()
    rig.channels.damaged = {"c1"}
    report = await rig.sync_pass.run_pass()
    rig.channels.damaged = set()

    assert ("verified", 8) == (report.result, report.looks)
    assert [("ann",), ("ann", "bob"), ("ann",)] == [await rig.users(n) for n in NAMES[:3]]


@pytest.mark.parametrize("page", [0, 1, 3])
@pytest.mark.parametrize(
    "doubt", [VerifyFailure.UNREACHABLE, VerifyFailure.RATE_LIMITED, VerifyFailure.REFUSED]
)
async def test_a_page_that_is_not_answered_ends_the_pass(
    autojump_clock: trio.testing.MockClock, page: int, doubt: VerifyFailure
) -> None:
    """Nothing is read or looked at; the next pass is as if this one had not been."""
    rig = Rig()
    await rig.fill()
    rig.provider.broken = {page: CannotVerify(doubt, retry_after=60.0)}
    report = await rig.sync_pass.run_pass()
    reads = rig.channels.reads
    later = await rig.pass_later()

    assert (f"list_{doubt}", 10, [], 0) == (
        report.result,
        report.unverified,
        rig.provider.looked[: report.looks],
        reads,
    )
    assert ("verified", ("ann",)) == (later.result, await rig.users("c0"))


@pytest.mark.parametrize(
    "doubt", [VerifyFailure.EMPTY, VerifyFailure.PARTIAL, VerifyFailure.UNREADABLE]
)
async def test_a_page_that_says_nothing_leaves_the_looks(
    autojump_clock: trio.testing.MockClock, doubt: VerifyFailure
) -> None:
    """The first page is worthless: every call is looked at by itself, and its own word holds."""
    rig = Rig()
    await rig.fill()
    rig.provider.broken = {0: CannotVerify(doubt)}
    report = await rig.sync_pass.run_pass()

    assert (f"list_{doubt}", 15) == (report.result, report.looks)
    assert [("ann",)] * 5 + [("ann", "bob")] * 5 == [await rig.users(n) for n in NAMES]


async def test_a_list_that_became_shorter_is_whole(autojump_clock: trio.testing.MockClock) -> None:
    """Calls ended while its pages were turned: the last one is empty, and that is its end."""
    rig = Rig()
    await rig.fill()
    rig.provider.broken = {3: CannotVerify(VerifyFailure.EMPTY)}

    assert "verified" == (await rig.sync_pass.run_pass()).result


async def test_an_empty_list_agrees_when_nobody_is_in_a_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A server without calls, or with nobody in them, is verified, not in doubt for ever."""
    rig = Rig()
    results = []
    for name, users in (("", ()), ("c0", ()), ("c1", ("ann",))):
        if name:
            await open_call(rig.writer, name, *users)
        rig.provider.calls = {}
        rig.provider.broken = {0: CannotVerify(VerifyFailure.EMPTY)}
        results.append((await rig.pass_later()).result)

    assert ["verified", "verified", "list_empty"] == results


async def test_an_empty_state_without_a_list_removes_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Ten passes: the state is empty, and the list as well."""
    rig = Rig()
    await rig.fill()
    rig.provider.calls = {f"s-{n}": () for n in NAMES}
    for _ in range(10):
        rig.provider.broken = {0: CannotVerify(VerifyFailure.EMPTY)}
        report = await rig.pass_later()

    assert 10 == report.unverified
    assert [("ann", "bob")] * 10 == [await rig.users(n) for n in NAMES]


async def test_a_call_that_others_outlive(autojump_clock: trio.testing.MockClock) -> None:
    """Empty and left out by two lists of others: everybody is gone; by one, nobody."""
    rig = Rig()
    await rig.fill()
    rig.provider.calls["s-c9"] = ()
    await rig.pass_later()
    once = await rig.users("c9")
    await rig.pass_later()

    assert (("ann", "bob"), ()) == (once, await rig.users("c9"))


async def test_a_room_that_is_found_again_is_not_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Not found, found, not found: no two in a row. Two in a row replace it."""
    rig = Rig()
    await rig.fill()
    for state in (None, ("ann", "bob"), None):
        rig.provider.calls.pop("s-c9", None)
        if state:
            rig.provider.calls["s-c9"] = state
            await rig.sync_pass._state_check.check("c9")
            continue
        await rig.pass_later()
    thrice = list(rig.opening.recreated)
    await rig.pass_later()

    assert ([], ["c9"]) == (thrice, rig.opening.recreated)


async def test_a_pass_says_which_calls_it_could_not_verify(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """With the reason: what the look learnt, that it was not made, or that there was no list."""
    rig = Rig()
    await rig.fill()
    rig.provider.calls |= {"s-c0": ()}
    del rig.provider.calls["s-c1"]
    rig.provider.broken = {0: CannotVerify(VerifyFailure.EMPTY)}
    report = await rig.sync_pass.run_pass()
    assert {"c0": "empty", "c1": "not_found"} == report.failed

    rig.sync_pass._limits = SyncLimits(calls=5, stale_s=0.0)
    few = await rig.pass_later()
    waiting = [name for name, why in few.failed.items() if why == WAITING]
    assert len(waiting) == few.waiting > 0
    rig.provider.broken = {0: CannotVerify(VerifyFailure.UNREACHABLE)}
    assert {ALL: "list_unreachable"} == (await rig.pass_later()).failed
