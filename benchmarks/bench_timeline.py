"""What the evidence of calls costs a webhook: CPU of the server and of Redis, with it and without.

`python benchmarks/bench_timeline.py [--rounds 20] [--out FILE]`

A whole server varies from run to run by more than the evidence costs, so what is done about one
webhook is taken apart: a channel of PEOPLE is read, hears of one more who joins, and is written
back; the user is noted in the index. In each round BATCH webhooks go through the rules and the
codec, then to a real Redis, once as shipped and once noting nothing; who begins alternates. CPU is
that of this process, and of Redis what INFO says; of each the least of the rounds counts. The
target is a tenth of WEBHOOK_US, which `bench_webhooks.py` measures: the server's CPU of a webhook
from its request to its effect.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import redis
import trio

from bench_webhooks import SECRETS
from harness.machine import describe
from harness.process import prepare_this_process
from harness.servers import Workplace, redis_server
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.intake import WebhookReport, apply_webhooks
from syncbridge.voice.provider.events import ParticipantJoined
from syncbridge.voice.records import ChannelConfig
from syncbridge.voice.timeline import Timeline
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.evidence import RedisEvidence
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.voice.channel_writer import ChannelWriter

PEOPLE = 30
BATCH = 200
WEBHOOK_US = 1387
TARGET_PERCENT = 10.0
NOW = 1_800_000_000_000
SHIPPED = (Timeline.note, Timeline.changed)


def nothing(*_: Any, **__: Any) -> None:
    """Stands for what notes entries."""


def switch(*, on: bool) -> None:
    """Let changes note entries, or not."""
    chosen: Any = SHIPPED if on else (nothing, nothing)
    for name, method in zip(("note", "changed"), chosen, strict=True):
        setattr(Timeline, name, method)


def opened(channel: Channel, now: int) -> None:
    channel.opening(now, ChannelConfig(), "w")
    channel.opened("s", now)
    for number in range(PEOPLE):
        joined(channel, now, f"u{number}")


def joined(channel: Channel, now: int, user: str) -> None:
    """What a webhook does."""
    event = ParticipantJoined(session_id="s", user_id=user, peer_id=f"{user}-{'x' * 30}")
    apply_webhooks(channel, [WebhookReport(event, now, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W")], now)


class Bench:
    """Webhooks that take effect in channels of a real Redis."""

    def __init__(self, io: RedisIO, bus: RedisBus, store: redis.Redis) -> None:
        self.evidence = RedisEvidence(io)
        self.writer = ChannelWriter(
            RedisChannels(io, bus, "n", 3600.0), ChannelLimits(), lambda: NOW / 1000
        )
        self.store = store
        self.count = 0

    async def turn(self, *, on: bool) -> tuple[float, float]:
        """CPU in us a webhook: of this process, of Redis."""
        switch(on=on)
        self.count += 1
        name = f"c{self.count}"
        await self.writer.change(name, opened)
        await trio.sleep(0.05)
        ours, theirs = time.process_time(), redis_cpu(self.store)
        notes = []
        for number in range(BATCH):
            user = f"v{number % 8}"
            await self.writer.change(name, partial(joined, user=user))
            notes.append((user, name, NOW))
        if on:
            await self.evidence.note_calls(notes)
        used = time.process_time() - ours, redis_cpu(self.store) - theirs
        return used[0] / BATCH * 1e6, used[1] / BATCH * 1e6


def redis_cpu(store: redis.Redis) -> float:
    """Seconds of CPU that a Redis has used."""
    info: Any = store.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


async def measure(unix: Path, rounds: int) -> dict[bool, list[tuple[float, float]]]:
    """All rounds, with and without."""
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    url = f"unix://{unix}"
    store = redis.Redis(unix_socket_path=str(unix))
    async with RedisIO(url).running() as io, RedisBus(io, "n").running() as bus:
        bench = Bench(io, bus, store)
        for number in range(rounds):
            for on in (True, False) if number % 2 else (False, True):
                found[on].append(await bench.turn(on=on))
    return found


def figures(found: dict[bool, list[tuple[float, float]]]) -> dict[str, float]:
    """The least of each, and what the evidence adds."""
    shipped, bare = ([min(part) for part in zip(*found[on], strict=True)] for on in (True, False))
    server, store = shipped[0] - bare[0], shipped[1] - bare[1]
    return {
        "change_us": bare[0],
        "change_redis_us": bare[1],
        "more_server_us": server,
        "more_redis_us": store,
        "more_percent": (server + store) / WEBHOOK_US * 100,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_this_process()
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Workplace(Path(folder), SECRETS)) as unix,
    ):
        told = figures(trio.run(measure, unix, options.rounds))
    for name, value in told.items():
        print(f"{name:20} {value:8.1f}")
    met = told["more_percent"] <= TARGET_PERCENT
    print(f"target: at most {TARGET_PERCENT:g} % of {WEBHOOK_US} us: {'met' if met else 'missed'}")
    if options.out:
        options.out.write_text(json.dumps({"machine": describe(), "figures": told}, indent=2))


if __name__ == "__main__":
    main()
