"""What one update costs Redis: CPU of its script, bytes on the wire and in the file, memory.

    python benchmarks/bench_scripts.py [rounds] [calls a round]

Runs on a private server with an append-only file (`everysec`). All variants do the same thing, one
key of 118 bytes of 200 sessions with two devices and ten keys, and take turns, round by round, so
that other load on the machine meets them alike. `script` is `usec_per_call` of EVALSHA in `INFO
commandstats`, `cpu` what the server's process used, both in microseconds a call, median and least
of the rounds. An empty script is the cost of calling one.
"""

import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import redis

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.redis_servers import RedisServer
from syncbridge.limits import Limits
from syncbridge.records.sessions import Apply
from syncbridge_server.redis.link.wire import pack
from syncbridge_server.redis.scripts import Scripts
from syncbridge_server.redis.stores.codec import StoreSettings, encode_apply

SESSIONS = 200
PIPELINE = 50
NODE = "node0123456789ab"
LIMITS = Limits()
Call = tuple[bytes | str | int, ...]
Make = Callable[[int], Call]


def update(turn: int) -> tuple[int, str, bytes, bytes, str]:
    """Session, device, key, value and correlation id of an update."""
    session, own = turn % SESSIONS, turn // SESSIONS
    value = b'"%06d%b"' % (turn, b"x" * 110)
    return session, f"device-{own % 2}", b"cursor%d" % (own % 10), value, uuid.uuid4().hex[:20]


def calls(digest: bytes, sids: list[str], *, how: str, cluster: bool = False) -> Make:
    """Calls of `apply.lua`. `how`: what tells a repetition, `stream`, `id` or `nothing`."""
    numbers: dict[tuple[int, str], Iterator[int]] = {}
    settings = StoreSettings.of(NODE, LIMITS, lambda: os.urandom(8))
    settings.old_data, settings.cluster = False, cluster

    def make(turn: int) -> Call:
        session, device, key, value, mutation = update(turn)
        request = Apply(sids[session], "user-123", device, [key, value], [])
        request.mutation_id = mutation if how != "nothing" else ""
        if how == "stream":
            request.stream = "one queue"
            request.seq = next(numbers.setdefault((session, device), count(1)))
        call = encode_apply(request, settings)
        return ("EVALSHA", digest, len(call.keys), *call.keys, *call.args)

    return make


class Variant:
    """One way to write, and what it cost in each round."""

    def __init__(self, name: str, make: Make, sids: list[str]) -> None:
        self.name, self._make, self._sids = name, make, sids
        self._turns = count()
        self.script: list[float] = []
        self.cpu: list[float] = []
        self.wire = self.file = 0.0

    def run(self, client: redis.Redis, calls: int) -> None:
        """One round; every answer must be OK."""
        packed = [pack(*self._make(next(self._turns))) for _ in range(calls)]
        client.config_resetstat()
        cpu, size = used_cpu(client), client.info("persistence")["aof_current_size"]
        connection = client.connection_pool.get_connection()
        for start in range(0, calls, PIPELINE):
            connection.send_packed_command(packed[start : start + PIPELINE])
            for _ in packed[start : start + PIPELINE]:
                reply = connection.read_response()
                if isinstance(reply, list) and reply[0] != 0:
                    raise SystemExit(f"{self.name}: refused with status {reply[0]}")
        client.connection_pool.release(connection)
        self.cpu.append((used_cpu(client) - cpu) / calls * 1e6)
        self.script.append(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])
        self.wire = sum(map(len, packed)) / calls
        self.file = (client.info("persistence")["aof_current_size"] - size) / calls

    def memory(self, client: redis.Redis) -> int:
        """Bytes of all keys of one session."""
        keys = client.scan_iter(match=f"s:*{self._sids[0]}*", count=10_000) if self._sids else ()
        return sum(client.memory_usage(key, samples=0) or 0 for key in keys)


def used_cpu(client: redis.Redis) -> float:
    """CPU seconds of the server."""
    info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def variants(client: redis.Redis) -> list[Variant]:
    """All that are compared."""
    scripts = Scripts()
    for text in scripts.sources.values():
        client.script_load(text)
    apply = scripts.digests["apply"]
    empty = client.script_load("#!lua\nreturn 0")
    found = [Variant("empty script", lambda turn: ("EVALSHA", empty, 0), [])]

    def add(name: str, how: str, cluster: bool = False, digest: bytes = apply) -> None:
        sids = [str(uuid.uuid4()) for _ in range(SESSIONS)]
        found.append(Variant(name, calls(digest, sids, how=how, cluster=cluster), sids))

    add("nothing", "nothing")
    add("stream", "stream")
    add("stream, cluster", "stream", cluster=True)
    add("id without a stream", "id")
    scripts.limit(LIMITS, writers=True)
    client.script_load(scripts.sources["apply"])
    add("stream, key writers", "stream", digest=scripts.digests["apply"])
    scripts.limit(LIMITS)
    scripts.tell(True)
    add("stream, events written", "stream", digest=scripts.digests["apply"])
    return found


def main() -> None:
    """Measure and print a table."""
    rounds, calls = (int(text) for text in (*sys.argv[1:], "12", "3000")[:2])
    with RedisServer() as server, server.client() as client:
        client.config_set("appendonly", "yes")
        client.config_set("auto-aof-rewrite-percentage", 0)
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.05)
        compared = variants(client)
        for _ in range(rounds):
            for variant in compared:
                variant.run(client, calls)
        print(f"{'':28}{'script':>16}{'cpu':>16}{'wire':>7}{'file':>7}{'session':>9}")
        for v in compared:
            times = [f"{statistics.median(t):8.1f}{min(t):8.1f}" for t in (v.script, v.cpu)]
            sizes = f"{v.wire:7.0f}{v.file:7.0f}{v.memory(client):9}"
            print(f"{v.name:28}{times[0]}{times[1]}{sizes}")


if __name__ == "__main__":
    main()
