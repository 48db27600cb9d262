"""Durable updates a second, and what each costs the server, beside a Go peer on Redis (j).

Bursts: in each, every session's first device sends five updates at once, and the clock runs until
the last of them has arrived at the session's other device and come back to its sender. Redis has
an update before anybody is told of it, in both servers, and both write to both devices. Both wait
up to 30 s for Redis, so that a burst is a queue and never a refusal.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import redis

from _data import dump, state
from harness.load import Numbers, Shortfall, Size
from harness.process import SERVER_CORE, Running, free_port, started
from harness.rest_client import Rest
from harness.servers import (
    GO_REDIS,
    SYNCBRIDGE,
    Workplace,
    catalogue,
    environment,
    redis_server,
    sharing,
)
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench import scenarios
from syncbridge_tools.bench.credentials import Device, admin_token, devices, token_mint
from syncbridge_tools.bench.usage import cpu_seconds

STATES = (3, 200)
CHANGING = 3
UPDATES = 5
AT_ONCE = 1e6
BURST_SECONDS = 60.0
STORE_DEADLINE = "30s"


def measure(place: Workplace, size: Size) -> dict[str, Numbers]:
    """Both servers with both states, in turn. Raises Shortfall, StartError and OSError."""
    found: dict[str, Numbers] = {}
    for keys in STATES:
        for name in (SYNCBRIDGE, GO_REDIS):
            if name == SYNCBRIDGE or place.binary("go_redis").exists():
                numbers = _one(name, place, size, keys)
                found.setdefault(name, {}).update(numbers)
    return found


def document(keys: int) -> bytes:
    """A state of that many keys, three of which are the ones that are updated."""
    changing = {f"k{number}": "not yet updated" for number in range(CHANGING)}
    return dump(state(keys - CHANGING) | changing)


def _one(name: str, place: Workplace, size: Size, keys: int) -> Numbers:
    people = list(devices(token_mint(), 2 * size.sessions, 2))
    with redis_server(place) as unix, _server(name, place, unix) as server:
        (create if name == SYNCBRIDGE else _store)(server, unix, people[::2], document(keys))
        swarm = Swarm("127.0.0.1", server.port, len(people))
        try:
            result = swarm.connect([one.auth_message() for one in people])
            if result.failed:
                raise Shortfall(f"{name}: {result.failed} connections failed: {result.error}")
            return bursts(swarm, server, size, f"durable_{keys}")
        finally:
            swarm.close(reset=True)


@contextlib.contextmanager
def _server(name: str, place: Workplace, unix: Path) -> Iterator[Running]:
    if name == SYNCBRIDGE:
        ours = catalogue(place)[SYNCBRIDGE]
        with sharing(ours, place, unix, SYNCBRIDGE_STORE_DEADLINE=STORE_DEADLINE) as server:
            yield server
        return
    port = free_port()
    command = [str(place.binary("go_redis")), "-listen", f"127.0.0.1:{port}", "-redis", str(unix)]
    log = place.directory / "go_redis.log"
    with started(command, environment(place, port), log, core=SERVER_CORE, port=port) as server:
        yield server


def create(server: Running, unix: Path, people: list[Device], first: bytes) -> None:
    with Rest(server.port, admin_token(token_mint())) as rest:
        for one in people:
            rest.create(one.session_id, one.user_id, first)


def _store(server: Running, unix: Path, people: list[Device], first: bytes) -> None:
    """What the Go peer keeps: see its `document`."""
    blob = b'{"version":1,"state":' + first + b"}"
    with redis.Redis(unix_socket_path=str(unix)) as store, store.pipeline(False) as pipe:
        for one in people:
            pipe.set(f"session:{one.session_id}", blob)
        pipe.execute()


def bursts(swarm: Swarm, server: Running, size: Size, name: str) -> Numbers:
    """The first burst is not counted: it is for connections, pools and caches."""
    _burst(swarm, size)
    seconds, before = 0.0, cpu_seconds(server.pid)
    for _ in range(size.bursts):
        seconds += _burst(swarm, size)
    cpu = max(cpu_seconds(server.pid) - before, 0.01)
    updates = size.bursts * size.sessions * UPDATES
    return {
        f"{name}_per_s": updates / seconds,
        f"{name}_per_cpu_s": updates / cpu,
        f"{name}_cpu_us": cpu / updates * 1e6,
    }


def _burst(swarm: Swarm, size: Size) -> float:
    updates = size.sessions * UPDATES
    result = swarm.updates(
        scenarios.update_templates(CHANGING),
        AT_ONCE,
        (updates + 0.5) / AT_ONCE,
        senders=range(0, swarm.count, 2),
        drain=BURST_SECONDS,
    )
    if result.delivered != updates or result.acknowledged != updates:
        raise Shortfall(
            f"{updates - result.delivered} of {updates} updates were not delivered; {result.totals}"
        )
    return result.seconds
