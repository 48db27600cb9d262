"""Voice tokens at a steady rate: what SyncBridge adds to the time that the provider takes.

`python benchmarks/bench_voice_tokens.py [--rounds 5] [--seconds 4] [--rate 100] [--out FILE]`

One server on SERVER_CORE; the load, Redis and the stand-in provider share the other core. Three
loads in each round, in turn: the provider is asked for tokens directly (its own time), SyncBridge
for tokens of calls that are there, and SyncBridge for the first token of channels that have no call
yet, so that a session is opened at the provider as well (two requests of it). What is added is the
p99 of ours less the median of the provider's own, once or twice; the target is 50 ms.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import trio

from harness.machine import describe
from harness.open_loop import OpenLoop, percentile, report
from harness.process import (
    LOAD_CORE,
    SERVER_CORE,
    Running,
    free_port,
    prepare_this_process,
    started,
)
from harness.servers import Workplace, redis_server
from syncbridge.identity import Role, VoiceGrant
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.configuration.load import load_settings
from syncbridge_tools.bench.usage import cpu_seconds

SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
KEY = "bench-key"
WEBHOOK_SECRET = "c" * 40
CHANNELS = 50
USERS = 40
TARGET_MS = 50.0


def environment(redis: Path, port: int, provider: str) -> dict[str, str]:
    """A server that asks the stand-in for every token, with a budget that is no bound here."""
    return {
        **SECRETS,
        "SERVER_ADDR": f"127.0.0.1:{port}",
        "REDIS_ADDR": f"unix://{redis}",
        "RTK_API_URL": provider,
        "RTK_API_KEY": KEY,
        "SYNCBRIDGE_VOICE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "SYNCBRIDGE_VOICE_REQUESTS_PER_MINUTE": "600000",
        "SYNCBRIDGE_VOICE_REQUEST_BURST": "10000",
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
        "SYNCBRIDGE_ACCESS_LOG": "false",
    }


def user_tokens() -> list[str]:
    """Access tokens of users with voice grants for every channel."""
    tokens, _ = build_tokens(load_settings())
    voice = (VoiceGrant("*", "*", ("speak",)),)
    now = time.time()
    return [
        tokens.mint_access(Grant(f"user-{n}", Role.USER, "", "", voice), now, 3600.0)[0]
        for n in range(USERS)
    ]


def post(path: str, token: str, body: dict[str, Any]) -> bytes:
    text = json.dumps(body).encode()
    head = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + text


def asked(users: list[str], channels: list[str], count: int) -> list[bytes]:
    """Requests for voice tokens, over users and channels in turn."""
    return [
        post(
            "/api/voice/token",
            users[n // len(channels) % len(users)],
            {"waddleId": "bench", "channelId": channels[n % len(channels)]},
        )
        for n in range(count)
    ]


def direct(provider: str, count: int) -> list[bytes]:
    """Requests for tokens of one session, to the provider itself."""
    session = f"direct-{uuid.uuid4().hex}"
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"sessionId": session, "maxParticipants": 1000}
    httpx.post(f"{provider}/sessions", json=body, headers=headers).raise_for_status()
    return [
        post(
            f"/sessions/{session}/tokens",
            KEY,
            {"sessionId": session, "participantId": f"user-{n}", "permissions": {}},
        )
        for n in range(count)
    ]


def measure(server: Running, sim: Running, rate: float, seconds: float) -> dict[str, float]:
    """One round."""
    count, run = int(rate * seconds), uuid.uuid4().hex[:8]
    users = user_tokens()
    channels = [f"{run}-{n}" for n in range(CHANNELS)]
    trio.run(OpenLoop(server.port, asked(users, channels, CHANNELS), rate).run)
    provider = OpenLoop(
        sim.port, direct(f"http://127.0.0.1:{sim.port}", count), rate, statuses=(201,)
    )
    trio.run(provider.run)
    before = cpu_seconds(server.pid)
    ours = OpenLoop(server.port, asked(users, channels, count), rate)
    trio.run(ours.run)
    used = cpu_seconds(server.pid) - before
    fresh = [f"{run}-first-{n}" for n in range(count)]
    first = OpenLoop(server.port, asked(users, fresh, count), rate)
    trio.run(first.run)
    own = percentile(provider.late, 0.5)
    return {
        "provider_p50_ms": own,
        "provider_p99_ms": percentile(provider.late, 0.99),
        "token_p50_ms": percentile(ours.late, 0.5),
        "token_p99_ms": percentile(ours.late, 0.99),
        "token_added_p99_ms": percentile(ours.late, 0.99) - own,
        "token_cpu_us": used / count * 1e6,
        "first_token_p50_ms": percentile(first.late, 0.5),
        "first_token_p99_ms": percentile(first.late, 0.99),
        "first_token_added_p99_ms": percentile(first.late, 0.99) - 2 * own,
    }


def one_round(rate: float, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder), SECRETS)
        port, sim_port = free_port(), free_port()
        provider = f"http://127.0.0.1:{sim_port}"
        stand_in = [sys.executable, "-m", "syncbridge_server", "rtk-sim"]
        stand_in += ["--bind", f"127.0.0.1:{sim_port}"]
        keys = {"RTK_API_KEY": KEY, "RTK_SECRET_KEY": WEBHOOK_SECRET}
        serve = [sys.executable, "-m", "syncbridge_server", "serve"]
        with (
            redis_server(place) as redis,
            started(
                stand_in, keys, place.directory / "sim.log", core=LOAD_CORE, port=sim_port
            ) as sim,
            started(
                serve,
                environment(redis, port, provider),
                place.directory / "server.log",
                core=SERVER_CORE,
                port=port,
            ) as server,
        ):
            return measure(server, sim, rate, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.update(SECRETS)
    prepare_this_process()
    samples = [one_round(options.rate, options.seconds) for _ in range(options.rounds)]
    title = f"voice token at {options.rate:g}/s"
    lines = report(title, samples, TARGET_MS, lambda name: name.endswith("added_p99_ms"))
    if options.out:
        document = {"machine": describe(), "figures": lines, "samples": samples}
        options.out.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
