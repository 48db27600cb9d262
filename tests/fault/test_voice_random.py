"""Calls on two nodes while everything around them breaks; then who is shown must be who is there,
and nobody may have been reported gone meanwhile who was there.

`SYNCBRIDGE_VOICE_EVENTS` and `SYNCBRIDGE_VOICE_SEED` make the run longer or another.
"""

import os
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node
from support.voice.voice_kit import voice_server
from support.voice_random.people import Events, Person
from support.voice_random.place import Deployed, Place, Wrong, place
from support.voice_random.trouble import DEEDS, PROVIDER, WEBHOOKS, Trouble
from support.voice_random.truth import MOVED, Removal, false_removals
from support.voice_random.watching import Watcher
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Left, Source
from syncbridge.voice.provider.capabilities import EMPTY_APART_S
from syncbridge.voice.provider.records import CannotVerify, VerifyFailure
from syncbridge.voice.records import Room
from syncbridge_server.voice.checks.state_check import CheckResult, StateCheck

EVENTS = int(os.environ.get("SYNCBRIDGE_VOICE_EVENTS", "600"))
SEED = int(os.environ.get("SYNCBRIDGE_VOICE_SEED", "1"))
LIMIT = 400 + EVENTS / 5
"""Seconds after which something hangs."""
CHANNELS = [f"channel-{number}" for number in range(10)]
VACATED = CHANNELS[-1]
"""In the end nobody is here any more, and nobody reports it."""
PEOPLE = 80
STAYING = 4
GRACE_S = 10.0
"""News of a departure are late by the provider's repetitions, an outage of ours, and five seconds
when the node that took them is killed; meanwhile the user may be back, and polls may fail."""
DEED_S = 4.0
"""A process is back after so long; where it takes longer, news are later by the difference."""
REPORT_S = 2.0
"""A webhook is delivered after so long, one after the other; likewise."""
DEEDS_IN_ALL = 24
LONG = 2_000
"""A run of so many events also waits until each kind of fault has happened."""


class Run:
    """A run and what was seen of it. `settled`: comparisons and seconds until all was true."""

    def __init__(self, where: Deployed, events: int, seed: int) -> None:
        self.place = where
        faults = (*PROVIDER, *WEBHOOKS) if events >= LONG else ()
        self.events = Events(events, frozenset({*DEEDS, *faults, "came over", "left"}))
        self.watchers = [
            Watcher(where.servers, node, CHANNELS, where.told_session) for node in (0, 1)
        ]
        self.people = [
            Person(f"user-{number}", where, CHANNELS, self.events, seed * 1000 + number)
            for number in range(PEOPLE)
        ]
        self.staying = [
            Person(f"staying-{number}", where, CHANNELS, self.events, seed)
            for number in range(STAYING)
        ]
        self.trouble = Trouble(where, CHANNELS, self.events, seed, max(events // DEEDS_IN_ALL, 60))
        self.settled = (0, 0.0)

    @property
    def removals(self) -> list[Removal]:
        """Everybody who was reported gone, by each watcher."""
        return [removal for watcher in self.watchers for removal in watcher.removals]

    async def run(self) -> None:
        """Everything, until what is shown is true; AssertionError when that takes too long."""
        async with trio.open_nursery() as nursery:
            for watcher in self.watchers:
                nursery.start_soon(watcher.run)
            async with trio.open_nursery() as happening:
                for person, channel in zip(self.staying, CHANNELS, strict=False):
                    await person.stay(channel)
                    happening.start_soon(person.follow, channel)
                for person in self.people:
                    happening.start_soon(person.run)
                happening.start_soon(self.trouble.run)
            await self._last_moves()
            await self._settle()
            nursery.cancel_scope.cancel()

    async def _last_moves(self) -> None:
        """Nobody reports them: only a comparison can find out. Before that, calls have moved."""
        for channel in CHANNELS:
            while await self.place.migrates(channel):  # noqa: ASYNC110 - in another process
                await trio.sleep(0.05)
        await self.place.reported()
        await self.place.rig.faults(webhooks=["lost"])
        for number, person in enumerate(self.people):
            await person.finish(CHANNELS[number % (len(CHANNELS) - 1)], VACATED)
        await self.place.reported()
        await self.place.rig.faults()

    async def _settle(self) -> None:
        """One comparison may be under way; the next one brings the truth. A call that is empty
        needs the list of one more, 20 seconds later: what says nothing must say it twice.
        """
        began, first = time.time(), await self.place.passes()
        noted = inf  # when the first list of an empty call had been read
        again = inf  # comparisons by which the second one has been
        while True:
            passes = await self.place.passes() - first
            wrong = await self._wrong()
            if not wrong:
                self.settled = (passes, time.time() - began)
                return
            if passes >= 2:
                noted = min(noted, time.time())
            if time.time() > noted + EMPTY_APART_S:
                again = min(again, passes + 2)
            late = [one.text for one in wrong if passes >= (again if one.empty else 2)]
            assert not late, "\n".join(late)
            await trio.sleep(0.05)

    async def _wrong(self) -> list[Wrong]:
        found = [await self.place.wrong(channel, node) for channel in CHANNELS for node in (0, 1)]
        return [one for one in found if one is not None]

    @property
    def grace(self) -> float:
        """For how many seconds somebody must have been there to be judged."""
        late = max(self.trouble.longest - DEED_S, 0.0) + max(self.place.slowest - REPORT_S, 0.0)
        return GRACE_S + late

    def figures(self) -> dict[str, float]:
        """What happened; none of it may be nothing."""
        counts, truth, now = self.events.counts, self.place.truth, time.time()
        return {
            "events": self.events.total,
            "came": counts["joined"],
            "left": counts["left"],
            "came over": counts["came over"],
            "faults of the provider": sum(counts.get(name, 0) for name in (*PROVIDER, *WEBHOOKS)),
            "deeds": sum(counts.get(name, 0) for name in DEEDS),
            "tokens refused": self.place.refused,
            "reported gone": len(self.removals),
            "of that by a migration": sum(r.reason == MOVED for r in self.removals) or 1,
            "user seconds": round(truth.seconds(now)),
            "of that judged": round(truth.seconds(now, self.grace)),
            "connections of watchers": sum(watcher.connected for watcher in self.watchers),
        }


@pytest.mark.slow
async def test_calls_under_faults(redis_server: RedisServer, tmp_path: Path) -> None:
    """Nobody was falsely reported gone or shut out, and one comparison brings the truth."""
    began = time.time()
    with trio.fail_after(LIMIT):
        async with place(redis_server, tmp_path) as where:
            run = Run(where, EVENTS, SEED)
            await run.run()
    passes, seconds = run.settled
    print(f"seed {SEED}, {time.time() - began:.0f} s, true after {passes} passes, {seconds:.1f} s")
    print(run.figures(), run.events.counts)
    print(f"longest deed {run.trouble.longest:.1f} s, slowest report {where.slowest:.1f} s")

    assert [] == false_removals(where.truth, run.removals, run.grace)
    assert [] == [out for out in where.truth.evicted if not out[3]]
    assert [] == [out for out in where.truth.evicted if out[1] not in where.left_rooms]
    assert 0 not in run.figures().values()
    assert run.events.needed <= run.events.counts.keys()


@dataclass
class One:
    """One server in this process."""

    nodes: list[Node]

    def port(self, number: int) -> int:
        """It alone."""
        return self.nodes[0].port


def left(generation: int, at: int, user: str, connection: str) -> Left:
    """The provider's word that a connection is gone."""
    return Left(
        generation=generation,
        at=at,
        source=Source.WEBHOOK,
        user_id=user,
        connection_id=connection,
    )


async def believed(
    self: StateCheck, channel_id: str, room: Room, answer: CannotVerify, *_: object
) -> CheckResult:
    """The wrong rule: an empty answer says that nobody is there."""
    if answer.doubt is not VerifyFailure.EMPTY:
        return CheckResult.UNVERIFIED

    def forget(channel: Channel, now: int) -> None:
        assert channel.call is not None
        gone = [
            (user, one) for user in channel.call.users for one in channel.call.connections(user)
        ]
        channel.apply([left(room.generation, now, user, one) for user, one in gone], now)

    await self._writer.change(channel_id, forget)
    return CheckResult.VERIFIED


@pytest.mark.parametrize("wrong", [False, True])
async def test_control_a_wrong_rule_is_found_out(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    """The same people, watchers and judgement, with and without a rule that others had."""
    if wrong:
        monkeypatch.setattr(StateCheck, "_unsure", believed)
    sync: dict[str, Any] = {"voice_sync": 0.3, "voice_sync_stale": 0.3}
    async with voice_server(redis_server.url, **sync) as rig, httpx.AsyncClient() as http:
        where = Place(One(rig.nodes), rig.sim, http)
        watcher = Watcher(where.servers, 0, ["channel-0"], where.told_session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.run)
            for number in range(3):
                await Person(f"user-{number}", where, [], Events(9), number).stay("channel-0")
            await rig.until_channel("channel-0", lambda c: bool(c.call and len(c.call.users) == 3))
            await rig.sim.faults(lists="empty")
            passes = rig.voice.synchronizer.passes

            async def enough() -> bool:
                return rig.voice.synchronizer.passes > passes + 2 and (
                    len(watcher.removals) >= 3 * wrong
                )

            await rig.until(enough, "comparisons")
            nursery.cancel_scope.cancel()
    found = false_removals(where.truth, watcher.removals, 0.0)

    assert watcher.told >= 3
    assert ({f"user-{n}" for n in range(3)} if wrong else set()) == {r.user for r in found}
