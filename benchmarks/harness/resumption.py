"""All devices of a node come to another node after theirs was killed (m).

Two nodes share a Redis. All devices are connected to the first. Each session has been written to
since the version that its devices name when they come back, so that every one has something to
learn. Then the first node is killed with SIGKILL, and all devices connect to the second at once,
with `resume: {epoch, version}`. The clock starts before the kill and stops when the last device
has its AUTH_SUCCESS. The first node is gone when the second works, so one core is enough.

Afterwards an update of every session must reach its other device on the second node, and a sample
of devices must be given exactly the changes that they missed.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import redis

from _data import dump, state
from harness.load import Numbers, Shortfall, Size
from harness.process import Running
from harness.raw_device import AUTH, RawDevice
from harness.rest_client import Rest
from harness.servers import SYNCBRIDGE, Workplace, catalogue, redis_server, sharing
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench import scenarios
from syncbridge_tools.bench.credentials import Device, admin_token, devices, token_mint
from syncbridge_tools.bench.usage import cpu_seconds

KEYS = 20
SAMPLES = 20
AUTH_SUCCESS = 8
AT_ONCE = 256
SECONDS = 120.0
RATE = 2_000.0

Store = redis.Redis
Position = dict[str, Any]


def measure(place: Workplace, size: Size) -> dict[str, Numbers]:
    """The numbers of one round. Raises Shortfall, StartError and OSError."""
    people = list(devices(token_mint(), size.resumed, 2))
    spec = catalogue(place)[SYNCBRIDGE]
    with (
        redis_server(place) as unix,
        sharing(spec, place, unix) as first,
        sharing(spec, place, unix) as second,
    ):
        positions = _create(first, people)
        before = _connected(first, [one.auth_message() for one in people])
        try:
            _write_everywhere(before)
            messages = [_resuming(one, positions[one.session_id]) for one in people]
        except BaseException:
            before.close(reset=True)
            raise
        numbers = _lose(before, first, second, messages, unix)
        _check_samples(second, people, positions)
    return {SYNCBRIDGE: numbers}


def _create(server: Running, people: list[Device]) -> dict[str, Position]:
    """Every session at its first version; where that is, by session."""
    first = dump(state(KEYS))
    positions: dict[str, Position] = {}
    with Rest(server.port, admin_token(token_mint())) as rest:
        for one in people[::2]:
            made = rest.create(one.session_id, one.user_id, first)
            positions[one.session_id] = {"epoch": made["epoch"], "version": made["version"]}
    return positions


def _connected(server: Running, messages: list[bytes]) -> Swarm:
    swarm = Swarm("127.0.0.1", server.port, len(messages))
    result = swarm.connect(messages, concurrency=AT_ONCE, seconds=SECONDS)
    if result.failed:
        swarm.close(reset=True)
        raise Shortfall(f"{result.failed} of {len(messages)} failed: {result.error}")
    return swarm


def _write_everywhere(swarm: Swarm) -> None:
    """One update a session, which must reach the session's other device."""
    sessions = swarm.count // 2
    seconds = (sessions + 0.5) / RATE
    senders = range(0, swarm.count, 2)
    templates = scenarios.update_templates(1)
    result = swarm.updates(templates, RATE, seconds, senders=senders, drain=SECONDS)
    if result.delivered != sessions:
        raise Shortfall(f"{sessions - result.delivered} of {sessions} updates were not delivered")


def _resuming(one: Device, position: Position) -> bytes:
    message = json.loads(one.auth_message())
    message["payload"]["resume"] = position
    return json.dumps(message, separators=(",", ":")).encode()


def _lose(
    before: Swarm, first: Running, second: Running, messages: list[bytes], unix: Path
) -> Numbers:
    with redis.Redis(unix_socket_path=str(unix)) as store:
        used = cpu_seconds(second.pid)
        commands, redis_used = _commands(store)
        begun = time.perf_counter()
        os.kill(first.pid, signal.SIGKILL)
        before.close(reset=True)
        after = _connected(second, messages)
        try:
            seconds = time.perf_counter() - begun
            received = after.totals.payload_bytes
            done, redis_cpu = _commands(store)
            cpu = cpu_seconds(second.pid) - used
            opened = after.opened
            _write_everywhere(after)
        finally:
            after.close(reset=True)
    return {
        "resumed": opened,
        "resume_seconds": seconds,
        "resume_cpu_us": cpu / opened * 1e6,
        "resume_bytes": received / opened,
        "resume_redis_commands_per_s": (done - commands) / seconds,
        "resume_redis_commands": (done - commands) / opened,
        "resume_redis_cpu_share": (redis_cpu - redis_used) / seconds,
    }


def _commands(store: Store) -> tuple[float, float]:
    """Commands that Redis has carried out, those inside of scripts too, and its CPU seconds."""
    told: dict[str, Any] = store.info()
    cpu = float(told["used_cpu_user"]) + float(told["used_cpu_sys"])
    return float(told["total_commands_processed"]), cpu


def _check_samples(server: Running, people: list[Device], positions: dict[str, Position]) -> None:
    """A device that resumes is given the changes since then, and no more; they are true."""
    step = max(len(people) // SAMPLES, 1)
    with Rest(server.port, admin_token(token_mint())) as rest:
        for one in people[::step]:
            with RawDevice(server.port) as device:
                device.send(AUTH, json.loads(_resuming(one, positions[one.session_id]))["payload"])
                told = device.receive(AUTH_SUCCESS).content["payload"]
            _, whole = rest.ask("GET", f"/session/{one.session_id}")
            right = {
                "resumed": True,
                "version": whole["version"],
                "changes": {"k0": whole["state_data"]["k0"]},
                "deleted_keys": [],
            }
            found = {name: told.get(name) for name in right}
            if found != right:
                raise Shortfall(f"resumed with {found}, expected {right}")
