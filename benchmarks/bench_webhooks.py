"""Webhooks at a steady rate: how long until one is accepted, which is when it is durable.

`python benchmarks/bench_webhooks.py [--rounds 5] [--seconds 3] [--rate 500] [--out FILE]`

One server on SERVER_CORE; the load and Redis, whose append-only file is written every second as the
embedded one's is, have the other core. Each webhook is another participant who joins one of
CHANNELS calls, signed as the provider signs, and due at its own time: the latency counts from then,
so a server that falls behind cannot hide it. The worker of the same server takes them in meanwhile;
a round ends when all have taken effect. "effect" is read from the server's own histogram: the
bound below which 99 % of the webhooks took effect. The target is a p99 of acceptance below 20 ms.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path

import httpx
import trio

from harness.machine import describe
from harness.open_loop import OpenLoop, percentile, report
from harness.process import SERVER_CORE, Running, free_port, prepare_this_process, started
from harness.servers import Workplace, redis_server
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.provider import signatures
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_tools.bench.usage import cpu_seconds

SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
WEBHOOK_SECRET = "c" * 40
CHANNELS = 50
CONNECTIONS = 16
TARGET_MS = 20.0
EFFECT_SECONDS = 60.0
WARM_UP = 200
_BUCKET = re.compile(r'syncbridge_webhook_effect_seconds_bucket\{le="([^"]+)"\} ([0-9.]+)')


def environment(redis: Path, port: int) -> dict[str, str]:
    """A server with an unreachable provider: it is not asked for anything here."""
    return {
        **SECRETS,
        "SERVER_ADDR": f"127.0.0.1:{port}",
        "REDIS_ADDR": f"unix://{redis}",
        "RTK_API_URL": "http://127.0.0.1:9",
        "RTK_API_KEY": "unused",
        "SYNCBRIDGE_VOICE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "SYNCBRIDGE_WEBHOOKS_PER_SECOND": "100000",
        "SYNCBRIDGE_WEBHOOK_BURST": "100000",
        "SYNCBRIDGE_ACCESS_LOG": "false",
    }


async def open_channels(redis: Path, run: str) -> None:
    """Calls that participants can join."""
    async with RedisIO(f"unix://{redis}").running() as io, RedisBus(io, run).running() as bus:
        channels = RedisChannels(io, bus, run, 3600)
        writer = ChannelWriter(channels, ChannelLimits(), time.time)
        for number in range(CHANNELS):
            channel, session = f"{run}-c{number}", f"{run}-s{number}"
            await channels.note_session(session, channel)
            await writer.change(channel, lambda c, now: c.opening(now, ChannelConfig(), "w"))
            await writer.change(channel, partial(opened, session))


def opened(session: str, channel: Channel, now: int) -> None:
    channel.opened(session, now)


def requests(run: str, count: int, first: int) -> list[bytes]:
    """Signed webhooks, each of another participant."""
    key = signatures.secret_bytes(WEBHOOK_SECRET)
    made = []
    for number in range(first, first + count):
        body = json.dumps(
            {
                "type": "participant.joined",
                "sessionId": f"{run}-s{number % CHANNELS}",
                "participantId": f"u{number // CHANNELS % 20}",
                "peerId": f"p{number}",
                "metadata": {"userId": f"u{number}", "username": "somebody"},
            }
        ).encode()
        name, now = uuid.uuid4().hex, int(time.time())
        head = [
            "POST /rtk/participant-joined HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"{signatures.ID_HEADER}: {name}",
            f"{signatures.TIMESTAMP_HEADER}: {now}",
            f"{signatures.SIGNATURE_HEADER}: {signatures.sign(key, name, now, body)}",
        ]
        made.append("\r\n".join([*head, "", ""]).encode() + body)
    return made


def effects(port: int) -> list[tuple[float, float]]:
    """(bound in seconds, webhooks that took effect within it) so far."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    found = [(float(le.replace("+Inf", "inf")), float(n)) for le, n in _BUCKET.findall(text)]
    return found or [(math.inf, 0.0)]


def await_effects(port: int, count: float) -> list[tuple[float, float]]:
    deadline = time.monotonic() + EFFECT_SECONDS
    while (found := effects(port))[-1][1] < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"of {count} webhooks {found[-1][1]} took effect")
        time.sleep(0.05)
    return found


def measure(server: Running, redis: Path, seconds: float, rate: float) -> dict[str, float]:
    """One round on a server that runs."""
    run = uuid.uuid4().hex[:8]
    trio.run(open_channels, redis, run)
    trio.run(OpenLoop(server.port, requests(run, WARM_UP, 0), rate, CONNECTIONS).run)
    before = await_effects(server.port, WARM_UP)
    made = requests(run, int(seconds * rate), WARM_UP)
    load = OpenLoop(server.port, made, rate, CONNECTIONS)
    used = cpu_seconds(server.pid)
    trio.run(load.run)
    after = await_effects(server.port, before[-1][1] + len(load.late))
    used = cpu_seconds(server.pid) - used
    grown = [(a[0], a[1] - b[1]) for a, b in zip(after, before, strict=True)]
    late = sorted(load.late)
    return {
        "p50_ms": percentile(late, 0.5),
        "p99_ms": percentile(late, 0.99),
        "worst_ms": late[-1],
        "effect_p99_ms": next(le for le, n in grown if n >= 0.99 * grown[-1][1]) * 1000,
        "cpu_us": used / len(late) * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_this_process()
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), SECRETS)
        command = [sys.executable, "-m", "syncbridge_server", "serve"]
        for number in range(options.rounds):
            port, log = free_port(), place.directory / "server.log"
            with redis_server(place) as redis:
                env = environment(redis, port)
                with started(command, env, log, core=SERVER_CORE, port=port) as server:
                    samples.append(measure(server, redis, options.seconds, options.rate))
            print(f"round {number + 1}", _round(samples[-1]), flush=True)
    title = f"webhook at {options.rate:g}/s"
    lines = report(title, samples, TARGET_MS, lambda name: name == "p99_ms")
    print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if options.out:
        document = {"machine": describe(), "figures": lines, "samples": samples}
        options.out.write_text(json.dumps(document, indent=2))


def _round(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in numbers.items()}


if __name__ == "__main__":
    main()
