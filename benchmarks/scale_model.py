"""What 10,000 to 100 million devices cost in Redis and in nodes, and which part breaks first.

    python benchmarks/scale_model.py             from the run in scale_model.json
    python benchmarks/scale_model.py --measure   measure anew (about a minute), and write that file

A model, not a measurement: it multiplies what one action costs, measured on two shipped servers
with one Redis, by how often it happens. `Mix` says how often; that is assumed. What format 1 cost
is taken from where it was written down, named beside each figure. benchmarks/README.md says what
this does not show.
"""

import argparse
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import redis

from harness import machine
from harness.process import Running, prepare_this_process
from harness.servers import SYNCBRIDGE, Workplace, catalogue, redis_server, sharing
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench.credentials import devices, token_mint
from syncbridge_tools.bench.scenarios import heartbeat_message, update_templates
from syncbridge_tools.bench.usage import cpu_seconds, sample

STORE = Path(__file__).with_suffix(".json")
SESSIONS, RATE, UPDATE_SECONDS, IDLE_SECONDS, ECHO_SECONDS = 1_000, 2_000, 8.0, 31.0, 2.0
DEVICES = (10_000, 1_000_000, 10_000_000, 100_000_000)
DAY = 86_400.0
MACHINE = ("processor", "cores", "Redis", "load average at the start")


class Costs(NamedTuple):
    """Of one action: microseconds of Redis and of the servers together, bytes in and out of Redis.

    `update_script_us` is the part of `update_redis_us` that the script itself takes. `idle_*` are a
    second of one session of two devices on two nodes; `node_*` a second of a node without devices.
    Memory in bytes: of a session in Redis, of a connection in a server.
    """

    join_redis_us: float
    join_server_us: float
    join_bytes: float
    update_redis_us: float
    update_script_us: float
    update_server_us: float
    update_bytes: float
    heartbeat_server_us: float
    idle_redis_us: float
    idle_server_us: float
    idle_bytes: float
    node_redis_us: float
    node_bytes: float
    session_bytes: float
    connection_bytes: float


class Mix(NamedTuple):
    """How devices are used: assumed.

    Attributes:
        devices: of one session. updates: of a device, a second. joins: of a device, a day.
        stored: sessions kept in Redis for each one that is in use.
        busy: share of a core that is planned with.
        connections: of a process; its bound by default is 65,536.
    """

    devices: int = 2
    updates: float = 1 / 60
    heartbeats: float = 1 / 25
    joins: float = 10.0
    stored: float = 4.0
    busy: float = 0.6
    connections: int = 50_000


RENEWALS = 333_000 / 5_000_000
"""Of a session of two devices, a second, in format 1: design.md 7, at 10 million devices."""

FORMAT_1 = {
    "update_bytes": 744.0,  # issue: 36 us of script and 744 bytes for a one-key SET
    "session_bytes": 27_900.0,  # decision record 9, measured: 27.9 KB a session
    # 25 us of Redis and 330 bytes a renewal: a run of this model while nodes still renewed sessions
    "idle_redis_us": RENEWALS * 25.0,
    "idle_bytes": RENEWALS * 330.0,
    # issue 6: 32 scripts a second of an idle node, of about 4 us each
    "node_redis_us": 32 * 4.0,
}
"""What differed in format 1. The rest is taken from the measured run."""

SCRIPT_OF_FORMAT_1 = 26.2 / 15.5
"""Script of an update in format 1 and now, measured in turn on one machine: decision record 9."""


class Needs(NamedTuple):
    """What a number of devices takes."""

    redis_cores: float
    redis_mbit: float
    redis_gib: float
    primaries: int
    nodes: int
    server_cores: float
    node_gib: float


class Bound(NamedTuple):
    """Something that ends: at how many of it, and what happens then."""

    what: str
    reached: bool
    then: str


def of_format_1(now: Costs) -> Costs:
    """What is written down, and the rest as it is now: calls and network beside the script too."""
    more = now.update_script_us * (SCRIPT_OF_FORMAT_1 - 1)
    return now._replace(**FORMAT_1)._replace(update_redis_us=now.update_redis_us + more)


def needs(count: int, costs: Costs, mix: Mix) -> Needs:
    """Multiply."""
    sessions = count / mix.devices
    joins, updates = count * mix.joins / DAY, count * mix.updates
    nodes = max(2, -(-count // mix.connections))
    redis_us = joins * costs.join_redis_us + updates * costs.update_redis_us
    redis_us += sessions * costs.idle_redis_us + nodes * costs.node_redis_us
    sent = joins * costs.join_bytes + updates * costs.update_bytes
    sent += sessions * costs.idle_bytes + nodes * costs.node_bytes
    server_us = joins * costs.join_server_us + updates * costs.update_server_us
    server_us += sessions * costs.idle_server_us
    server_us += count * mix.heartbeats * costs.heartbeat_server_us
    cores = redis_us / 1e6
    kept = sessions * mix.stored * costs.session_bytes / 2**30
    return Needs(
        cores,
        sent * 8 / 1e6,
        kept,
        max(1, -int(-cores // mix.busy), -int(-kept // 32)),
        nodes,
        server_us / 1e6,
        count / nodes * costs.connection_bytes / 2**30,
    )


def bounds(found: Needs, mix: Mix, *, cluster: bool) -> Iterator[Bound]:
    """What ends first, the nearest first."""
    share = found.server_cores / found.nodes
    yield Bound(
        "one Redis", found.primaries > 1 and not cluster, "a cluster is refused: 2 of 3 are 503"
    )
    yield Bound("a node's core", share > mix.busy, f"{share:.2f} of a core: fewer connections each")
    yield Bound("names of nodes", found.nodes > 1_024, "figures of /admin leave the oldest out")
    yield Bound(
        "connections of a primary",
        found.nodes * 3 > 10_000,
        "`maxclients` 10,000: raise it, or fewer and larger nodes",
    )
    yield Bound("buckets", found.primaries > 1_024, "a bucket is the least that can be moved")


def report(run: dict[str, Any], mix: Mix) -> None:
    """Both tables."""
    after = Costs(**run["costs"])
    print(f"Measured on {run['date']}, commit {run['commit']}: {run['machine']}")
    print(f"Assumed: {', '.join(f'{k} {v:.4g}' for k, v in mix._asdict().items())}\n")
    for name, costs, cluster in (
        ("before (format 1, as written down)", of_format_1(after), False),
        ("after (measured)", after, True),
    ):
        print(name)
        head = ("devices", "Redis cores", "Mbit/s", "Redis GiB", "primaries", "nodes")
        print("".join(f"{h:>13}" for h in (*head, "server cores", "GiB a node")), " first to break")
        for count in DEVICES:
            found = needs(count, costs, mix)
            broken = [b for b in bounds(found, mix, cluster=cluster) if b.reached]
            first = f"{broken[0].what}: {broken[0].then}" if broken else "nothing"
            values = (f"{count:,}", *(_short(v) for v in found))
            print("".join(f"{v:>13}" for v in values), f" {first}")
        print()
    print("An action, microseconds of Redis / of servers, bytes of Redis:")
    print(f"  join {after.join_redis_us:.0f} / {after.join_server_us:.0f}, {after.join_bytes:.0f}")
    print(
        f"  update {after.update_redis_us:.0f} (script {after.update_script_us:.0f})"
        f" / {after.update_server_us:.0f}, {after.update_bytes:.0f}"
    )
    print(
        f"  idle session, a second {after.idle_redis_us:.2f} / {after.idle_server_us:.2f},"
        f" {after.idle_bytes:.0f}"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


class Meter:
    """CPU and bytes of a Redis and of some servers since the meter was made."""

    def __init__(self, store: "redis.Redis", servers: list[Running]) -> None:
        self._store, self._servers = store, servers
        self._pid = store.info("server")["process_id"]
        self._before = self._read()

    def _read(self) -> tuple[float, float, float, float]:
        told = self._store.info("stats")
        sent = told["total_net_input_bytes"] + told["total_net_output_bytes"]
        servers = sum(cpu_seconds(server.pid) for server in self._servers)
        return time.perf_counter(), cpu_seconds(self._pid), servers, float(sent)

    def since(self) -> tuple[float, float, float, float]:
        """Seconds, CPU seconds of Redis and of the servers, bytes of Redis."""
        seconds, ours, theirs, sent = (
            now - then for now, then in zip(self._read(), self._before, strict=True)
        )
        return seconds, ours, theirs, sent


@contextmanager
def installation(place: Workplace) -> Iterator[tuple["redis.Redis", list[Running]]]:
    """Two nodes on one Redis."""
    with ExitStack() as stack:
        unix = stack.enter_context(redis_server(place))
        spec = catalogue(place)[SYNCBRIDGE]
        servers = [stack.enter_context(sharing(spec, place, unix)) for _ in range(2)]
        yield stack.enter_context(redis.Redis(unix_socket_path=str(unix))), servers


def measure(place: Workplace) -> Costs:
    """Sessions of two devices, one on each node."""
    with installation(place) as (store, servers):
        meter = Meter(store, servers)
        time.sleep(UPDATE_SECONDS)
        empty = meter.since()
        people = list(devices(token_mint(), 2 * SESSIONS, 2))
        swarms = [Swarm("127.0.0.1", server.port, SESSIONS) for server in servers]
        try:
            found = joined(store, servers, swarms, people)
            store.config_resetstat()
            meter = Meter(store, servers)
            sent = swarms[0].updates(
                update_templates(), RATE, UPDATE_SECONDS, senders=range(SESSIONS), copies=0
            )
            _, ours, theirs, moved = meter.since()
            found["update_script_us"] = store.info("commandstats")["cmdstat_evalsha"][
                "usec_per_call"
            ]
            found |= per("update", sent.acknowledged, ours, theirs, moved)
            meter = Meter(store, servers)
            echoed = swarms[0].echo(heartbeat_message(), ECHO_SECONDS, reply_type=2)
            found["heartbeat_server_us"] = meter.since()[2] / echoed.done * 1e6
            swarms[1].idle(1.0)
            meter = Meter(store, servers)
            time.sleep(IDLE_SECONDS)
            seconds, ours, theirs, moved = meter.since()
        finally:
            for swarm in swarms:
                swarm.close(reset=True)
    rest = (value / empty[0] * seconds for value in empty[1:])
    ours, theirs, moved = (v - r for v, r in zip((ours, theirs, moved), rest, strict=True))
    found |= per("idle", SESSIONS * seconds, max(ours, 0.0), max(theirs, 0.0), max(moved, 0.0))
    found["node_redis_us"] = empty[1] / empty[0] / 2 * 1e6
    found["node_bytes"] = empty[3] / empty[0] / 2
    return Costs(**found)


def joined(
    store: "redis.Redis", servers: list[Running], swarms: list[Swarm], people: list[Any]
) -> dict[str, float]:
    """Join both devices of each session."""
    meter, held = Meter(store, servers), store.info("memory")["used_memory"]
    before = [sample(server.pid) for server in servers]
    for at, swarm in enumerate(swarms):
        done = swarm.connect([one.auth_message() for one in people[at::2]])
        if done.failed:
            raise RuntimeError(done.error)
    _, ours, theirs, moved = meter.since()
    grown = sum(sample(s.pid).since(then).private for s, then in zip(servers, before, strict=True))
    return per("join", len(people), ours, theirs, moved) | {
        "session_bytes": (store.info("memory")["used_memory"] - held) / SESSIONS,
        "connection_bytes": grown / len(people),
    }


def per(name: str, count: float, ours: float, theirs: float, moved: float) -> dict[str, float]:
    return {
        f"{name}_redis_us": ours / count * 1e6,
        f"{name}_server_us": theirs / count * 1e6,
        f"{name}_bytes": moved / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        keys = {"JWT_SECRET": secrets.token_hex(32), "JWT_REFRESH_SECRET": secrets.token_hex(32)}
        os.environ.update(keys)
        prepare_this_process()
        described = machine.describe()
        with tempfile.TemporaryDirectory(prefix="syncbridge-scale-") as directory:
            costs = measure(Workplace(Path(directory), keys))
        run = {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": described.get("commit", ""),
            "machine": ", ".join(f"{k} {described[k]}" for k in MACHINE),
            "costs": costs._asdict(),
        }
        STORE.write_text(json.dumps(run, indent=1) + "\n")
    report(json.loads(STORE.read_text()), Mix())


if __name__ == "__main__":
    main()
