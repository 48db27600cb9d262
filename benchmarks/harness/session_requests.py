"""Handoff and conflict resolution over REST while a process holds all connections (h, i).

Every handoff is that of a session whose two devices are connected, and each session is handed over
once. Both are measured twice: with all connections idle, and while the other sessions are updated.
"""

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from harness.load import Numbers, Shortfall, Size
from harness.rest_client import Rest
from harness.servers import SYNCBRIDGE, Workplace, catalogue, serving
from harness.session_probe import state_of
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench import scenarios
from syncbridge_tools.bench.credentials import Device, admin_token, devices, token_mint

BENCHMARKS = Path(__file__).resolve().parent.parent
CONTESTED = 40
CONNECT_SECONDS = 120.0
PROBE_SECONDS = 120.0
PER_SECOND = 100.0


def measure(place: Workplace, size: Size) -> dict[str, Numbers]:
    """The numbers of one round. Raises Shortfall, StartError and OSError."""
    people = list(devices(token_mint(), size.connections, 2))
    with serving(catalogue(place)[SYNCBRIDGE], place) as server:
        swarm = Swarm("127.0.0.1", server.port, len(people))
        try:
            result = swarm.connect([one.auth_message() for one in people], seconds=CONNECT_SECONDS)
            if result.failed:
                raise Shortfall(f"{result.failed} connections failed: {result.error}")
            numbers = _probed(swarm, server.port, people[: 2 * size.handoffs], 0, "")
            people = people[2 * size.handoffs :]
            busy = _probed(swarm, server.port, people[: 2 * size.handoffs], size.rates[0], "busy_")
            return {SYNCBRIDGE: {**numbers, **busy}}
        finally:
            swarm.close(reset=True)


def _probed(swarm: Swarm, port: int, people: list[Device], rate: int, prefix: str) -> Numbers:
    """Run the probe; the swarm reads meanwhile, and writes `rate` updates a second."""
    token = admin_token(token_mint())
    sources, targets = people[::2], people[1::2]
    contested = [str(uuid.uuid4()) for _ in range(CONTESTED)]
    with Rest(port, token) as rest:
        for one in sources:
            rest.create(one.session_id, one.user_id, state_of(0, 0, 0))
        for name in contested:
            rest.create(name, f"contested-{name[:8]}", state_of(0, 0, 0))
    asked = {
        "token": token,
        "handoffs": [
            [a.session_id, a.device_id, b.device_id] for a, b in zip(sources, targets, strict=True)
        ],
        "conflicts": contested,
    }
    found = _run(swarm, port, json.dumps(asked), 2 * len(sources) / PER_SECOND, rate)
    if found["wrong"]:
        raise Shortfall(f"{len(found['wrong'])} requests went wrong: {found['wrong'][:3]}")
    return {f"{prefix}{name}": value for name, value in found["figures"].items()}


def _run(swarm: Swarm, port: int, asked: str, seconds: float, rate: int) -> Any:
    command = [sys.executable, "-m", "harness.session_probe", str(port), str(PER_SECOND)]
    with subprocess.Popen(
        command, cwd=BENCHMARKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probe:
        assert probe.stdin is not None
        probe.stdin.write(asked)
        probe.stdin.close()
        probe.stdin = None
        if rate:
            senders = range(swarm.count // 2, swarm.count, 2)
            templates = scenarios.update_templates()
            swarm.updates(templates, rate, seconds + 1.0, senders=senders, drain=10.0)
        while probe.poll() is None:
            swarm.idle(0.2)
        output, _ = probe.communicate(timeout=PROBE_SECONDS)
    if probe.returncode:
        raise Shortfall("the probe for sessions failed")
    return json.loads(output)
