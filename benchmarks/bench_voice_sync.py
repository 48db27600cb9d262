"""What it costs to compare live calls with the provider: requests, CPU, and how long a pass takes.

`python benchmarks/bench_voice_sync.py [--sessions 10000] [--drift 0.01] [--rounds 5] [--out FILE]`

The stand-in provider, with all sessions in it, and Redis have LOAD_CORE; the comparison runs here,
on SERVER_CORE, over real HTTP. Of each call two users are known; in `drift` of the sessions one of
them has left and no webhook has arrived.

* `heal`: the first pass. Its list finds the calls that differ, two looks at each bring the truth,
  which is checked; a round in which one call is wrong afterwards is an error.
* `agree`: the second pass. Everything agrees: the list, and nothing else.
* `each`: one request a session, as the specification's sketch has it, without reading or comparing
  anything: the least that it can cost.

The budget is not bounded here. `seconds_of_budget` is what the requests of a pass cost at the share
of the default settings: so long it takes, or the next one has to wait, where it is bounded.
CPU is that of this process, threads included. The stand-in goes through all sessions for each page,
so `seconds` say more about it than about us.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from harness.machine import describe
from harness.process import LOAD_CORE, SERVER_CORE, free_port, started
from harness.servers import Workplace, redis_server
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.evidence import Polled
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.records import ChannelConfig, Room
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.settings import Settings
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.checks.check_round import SyncLimits
from syncbridge_server.voice.checks.state_check import StateCheck
from syncbridge_server.voice.checks.sync_pass import PassReport, SyncPass
from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.from_settings import sync_limits
from syncbridge_server.voice.provider.calling import ProviderCalls, new_client
from syncbridge_server.voice.provider.rtk import RtkProvider
from syncbridge_tools.rtk_sim import world
from syncbridge_tools.rtk_sim.app import new_sim, running

KEY = "a-key"
TOGETHER = 8
UNBOUNDED = 1e9


def drifted(sessions: int, share: float) -> set[int]:
    """Which calls are not what we know; the same for the provider and for us."""
    return set(random.Random(7).sample(range(sessions), round(sessions * share)))


async def provide(port: int, sessions: int, share: float) -> None:
    """The stand-in provider with all sessions in it."""
    world.MAX_ROOMS = sessions + 1
    sim = new_sim(KEY)
    gone = drifted(sessions, share)
    for number in range(sessions):
        room = sim.world.create(f"s{number}", "", 0.0, 10)
        for user in ("ann",) if number in gone else ("ann", "bob"):
            sim.world.join(room, user, 0.0)
    async with running(sim, f"127.0.0.1:{port}"):
        await trio.sleep_forever()


class Bench:
    """Calls in Redis, and a provider to compare them with."""

    def __init__(
        self, provider: RtkProvider, writer: ChannelWriter, sessions: int, share: float
    ) -> None:
        self.provider = provider
        self.writer = writer
        self.sessions = sessions
        self.gone = drifted(sessions, share)
        metrics = voice_metrics(CollectorRegistry()).sync
        limits = SyncLimits(calls=10**9, rate=UNBOUNDED, stale_s=1e6, together=TOGETHER)
        state_check = StateCheck(provider, writer, _Nobody(), metrics)
        self.sync_pass = SyncPass(provider, writer, state_check, metrics, limits)

    async def fill(self) -> None:
        """Every call as we know it: two users, compared just now."""
        limit = trio.CapacityLimiter(256)

        async def one(number: int) -> None:
            async with limit:
                await self.writer.change(f"c{number}", known_call(f"s{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(self.sessions):
                nursery.start_soon(one, number)

    async def check(self) -> None:
        """Raise RuntimeError unless every call that had drifted is true now."""
        for number in sorted(self.gone):
            call = (await self.writer.read(f"c{number}")).call
            if call is None or call.users != ("ann",):
                raise RuntimeError(f"c{number} is wrong after the pass")

    async def each(self) -> PassReport:
        """One request a session."""
        names = iter(range(self.sessions))

        async def work() -> None:
            for number in names:
                await self.provider.fetch_state(f"s{number}")

        async with trio.open_nursery() as nursery:
            for _ in range(TOGETHER):
                nursery.start_soon(work)
        return PassReport(looks=self.sessions, sent=self.sessions)


class _Nobody:
    """Nothing is lost here, so nothing is opened again."""

    async def recreate(self, channel_id: str, lost_session_id: str) -> Room:
        raise RuntimeError(f"{channel_id} was taken for lost")


def known_call(session_id: str) -> Callable[[Channel, int], None]:
    """A call with ann and bob in it."""

    def rule(channel: Channel, now: int) -> None:
        room = channel.opening(now, ChannelConfig(), "w")
        channel.opened(session_id, now)
        there = (("ann", ""), ("bob", ""))
        channel.apply([Polled(generation=room.generation, at=now, present=there)], now)
        channel.record.last_sync_at = now

    return rule


@asynccontextmanager
async def bench(redis: Path, port: int, sessions: int, share: float) -> AsyncIterator[Bench]:
    """Everything connected."""
    async with RedisIO(f"unix://{redis}").running() as io, RedisBus(io, "bench").running() as bus:
        channels = RedisChannels(io, bus, "bench", 3600)
        writer = ChannelWriter(channels, ChannelLimits(), time.time)
        async with new_client() as client:
            budget = RequestBudget(UNBOUNDED, UNBOUNDED)
            calls = ProviderCalls(client, f"http://127.0.0.1:{port}", KEY, budget, 30.0)
            yield Bench(RtkProvider(calls), writer, sessions, share)


async def timed(work: Callable[[], Awaitable[PassReport]], sessions: int) -> dict[str, float]:
    """Requests, seconds and CPU of one way to do it."""
    began, used = time.perf_counter(), time.process_time()
    report = await work()
    used, seconds = time.process_time() - used, time.perf_counter() - began
    return {
        "requests": report.calls,
        "seconds": seconds,
        "cpu_seconds": used,
        "cpu_us_per_session": used / sessions * 1e6,
        "seconds_of_budget": report.calls / sync_limits(Settings()).rate,
    }


async def measure(redis: Path, port: int, sessions: int, share: float) -> dict[str, Any]:
    """One round: fill, heal, agree, each."""
    async with bench(redis, port, sessions, share) as one:
        await one.fill()
        healed = await timed(one.sync_pass.run_pass, sessions)
        await one.check()
        agreed = await timed(one.sync_pass.run_pass, sessions)
        return {"heal": healed, "agree": agreed, "each": await timed(one.each, sessions)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--drift", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--provide", type=int, metavar="PORT", help="be the provider, for ourselves"
    )
    options = parser.parse_args()
    if options.provide:
        trio.run(provide, options.provide, options.sessions, options.drift)
        return
    os.sched_setaffinity(0, {SERVER_CORE} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
    samples = [one_round(options) for _ in range(options.rounds)]
    result = report(samples, options)
    if options.out:
        options.out.write_text(json.dumps({"machine": describe(), **result}, indent=2))


def one_round(options: argparse.Namespace) -> dict[str, Any]:
    """A provider and a Redis of its own for each round."""
    with tempfile.TemporaryDirectory() as folder:
        place, port = Workplace(Path(folder), {}), free_port()
        command = [sys.executable, __file__, "--provide", str(port)]
        command += ["--sessions", str(options.sessions), "--drift", str(options.drift)]
        log = place.directory / "provider.log"
        with redis_server(place) as redis, started(command, {}, log, core=LOAD_CORE, port=port):
            return trio.run(measure, redis, port, options.sessions, options.drift)


def report(samples: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Print medians with their range; returns them with all samples."""
    lines = []
    for way in samples[0]:
        for name in samples[0][way]:
            values = sorted(sample[way][name] for sample in samples)
            line = {
                "figure": f"{way} of {options.sessions} calls: {name}",
                "median": round(statistics.median(values), 3),
                "range": [round(values[0], 3), round(values[-1], 3)],
            }
            lines.append(line)
            print(json.dumps(line))
    return {"figures": lines, "samples": samples}


if __name__ == "__main__":
    main()
