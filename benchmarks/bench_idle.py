"""What idle sessions cost Redis: commands and CPU a second, by `INFO commandstats` and `INFO cpu`.

`python benchmarks/bench_idle.py [--sessions 5000] [--seconds 40] [--out FILE]`

A node joins the sessions with two devices each, which have written once. Then nothing happens for
`--seconds`: what Redis is asked in that time is the price of holding them. The CPU of the same
Redis beside a node without sessions, measured first, is taken off. Silent sockets are kept for
longer than by default, or a busy machine would measure how they are closed. Targets: an idle node
at most 3 commands a second and no script; 5,000 sessions at most 100 reads and 1 ms a second.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import redis

from harness.machine import describe
from harness.process import prepare_this_process
from harness.raw_device import AUTH, RawDevice
from harness.servers import SYNCBRIDGE, Workplace, catalogue, redis_server, sharing
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.configuration.load import load_settings

SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
SETTINGS = SECRETS | {"SYNCBRIDGE_PRESENCE_TIMEOUT": "15m"}
"""Above two minutes it does not change how often sessions are compared."""
AUTH_SUCCESS, STATE_UPDATE = 8, 5
SETTLE_SECONDS = 5.0
Figures = dict[str, Any]


def snapshot(raw: redis.Redis) -> tuple[dict[str, int], float]:
    """Calls by command, and seconds of CPU."""
    calls: Any = raw.info("commandstats")
    cpu: Any = raw.info("cpu")
    return (
        {name.removeprefix("cmdstat_"): each["calls"] for name, each in calls.items()},
        cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    )


def measured(raw: redis.Redis, seconds: float) -> Figures:
    """Calls and milliseconds of CPU a second, our own two looks taken off."""
    before, cpu = snapshot(raw)
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    after, cpu_after = snapshot(raw)
    calls = {name: count - before.get(name, 0) for name, count in after.items()}
    calls["info"] -= 2
    rates = {name: round(count / took, 2) for name, count in calls.items() if count}
    return {
        "commands": rates,
        "total": round(sum(calls.values()) / took, 2),
        "scripts": calls.get("evalsha", 0),
        "cpu_ms": round(1000 * (cpu_after - cpu) / took, 3),
    }


def join(port: int, sessions: int, stack: contextlib.ExitStack) -> None:
    """Two devices in each session; the second one writes."""
    tokens, _ = build_tokens(load_settings())
    for _ in range(sessions):
        sid, user = str(uuid.uuid4()), uuid.uuid4().hex
        token = tokens.mint_access(Grant(user, Role.USER), time.time(), 900.0)[0]
        for name in ("phone", "tablet"):
            device = stack.enter_context(RawDevice(port))
            device.send(AUTH, {"token": token, "device_id": name, "session_id": sid})
            device.receive(AUTH_SUCCESS)
        device.send(STATE_UPDATE, {"key": "a", "value": 1})
        device.receive(STATE_UPDATE)


def run(sessions: int, seconds: float) -> dict[str, Figures]:
    """Figures of the idle node, and of the same node with the sessions."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="syncbridge-idle-"))
        place = Workplace(Path(folder), SETTINGS)
        unix = stack.enter_context(redis_server(place))
        server = stack.enter_context(sharing(catalogue(place)[SYNCBRIDGE], place, unix))
        raw = stack.enter_context(redis.Redis(unix_socket_path=str(unix)))
        time.sleep(SETTLE_SECONDS)
        found = {"idle node": measured(raw, seconds)}
        began = time.monotonic()
        join(server.port, sessions, stack)
        print(f"{sessions} sessions joined in {time.monotonic() - began:.1f} s", flush=True)
        time.sleep(SETTLE_SECONDS)
        found[f"{sessions} sessions"] = measured(raw, seconds)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sessions", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.update(SECRETS)
    prepare_this_process()
    found = run(options.sessions, options.seconds)
    for name, figures in found.items():
        print(name, json.dumps(figures), flush=True)
    idle, busy = found.values()
    print(f"the sessions: {busy['cpu_ms'] - idle['cpu_ms']:.3f} ms of Redis CPU a second")
    if options.out:
        options.out.write_text(json.dumps({"machine": describe(), "figures": found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
