"""`syncbridge deliver` at a steady rate: from an event in the log to its first attempt, and CPU.

    python benchmarks/bench_deliver.py [events a second] [seconds] [dead endpoints] [live ones]

The live endpoints (one by default) answer at once, and the dead ones refuse connections. Each gets
every event. Events go straight into the log of a private Redis; the receiver is in this process,
`syncbridge deliver` in one of its own.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.events.receiver import Got, receiving
from support.redis_servers import RedisServer
from support.server_kit import bare_environment
from syncbridge.events import kinds
from syncbridge.events.endpoints import Endpoint
from syncbridge.events.outbox import encode, new_event
from syncbridge.records.sessions import Notice
from syncbridge_server.events.carrier import NEWS
from syncbridge_server.http.endpoints import new_secret
from syncbridge_server.ports.events import Load, Place
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints
from syncbridge_server.redis.stores.events import RedisEvents

TICK = 0.02


def cpu_of(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, pid: int, rate: int, seconds: int, dead: int, live: int) -> None:
    """Feed the log, and print what arrived when."""
    late: list[float] = []
    sent: dict[str, float] = {}

    def answer(got: Got) -> int:
        late.append(time.time() - sent[got.headers["webhook-id"]])
        return 204

    async with RedisIO(url).running() as io, receiving() as receiver:
        receiver.answer = answer
        events = RedisEvents(io, most=100_000, most_bytes=2**26, session_ms=1)
        endpoints = RedisEndpoints(io)
        urls = [receiver.url(f"/{n}") for n in range(live)]
        urls += [f"http://127.0.0.1:{9 + n}/" for n in range(dead)]
        for number, where in enumerate(urls):
            await endpoints.put(Endpoint(f"e{number}", where, [new_secret()]))
        await trio.sleep(4)
        bus = RedisBus(io, "bench")
        async with bus.running():
            began, cpu, place, number = time.time(), cpu_of(pid), Place(), 0
            while number < rate * seconds:
                await trio.sleep(max(began + number / rate - time.time(), 0) + TICK)
                count = int((time.time() - began) * rate) - number
                if not count:
                    continue
                texts = []
                for _ in range(count):
                    number += 1
                    told = kinds.SessionUpdated(number, number + 1, "e", "l", "d", ["a"])
                    event = new_event(f"b-{number}", "session.updated", 0, told)
                    event.session_id = f"session-{number % 500}"
                    sent[event.id] = time.time()
                    texts.append(encode(event))
                after = Place(f"{number}-0", number)
                await events.carry([Load("0", place, after, texts)])
                place = after
                bus.tell("*", Notice(NEWS, "", b""))
            await receiver.until(number * live, 60)
            spent = cpu_of(pid) - cpu
            took = time.time() - began
    late.sort()
    shown = [f"p{p} {late[int(len(late) * p / 100) - 1] * 1000:.0f} ms" for p in (50, 95, 99)]
    print(f"{number} events in {took:.1f} s, {live} live and {dead} dead endpoints")
    print(f"first attempt {', '.join(shown)}, longest {late[-1] * 1000:.0f} ms")
    each = spent / len(late) * 1000
    print(f"CPU of deliver: {spent / took:.2f} cores, {each:.2f} ms an attempt that arrived")


def main() -> None:
    """Start the processes and measure."""
    given = sys.argv[1:]
    rate, seconds, dead, live = map(int, [*given, *("300", "20", "0", "1")[len(given) :]])
    with RedisServer(aof=True) as server:
        environment = {
            **bare_environment(),
            "REDIS_ADDR": server.url,
            "SYNCBRIDGE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        }
        command = [sys.executable, "-m", "syncbridge_server", "deliver"]
        popen = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            trio.run(measure, server.url, popen.pid, rate, seconds, dead, live)
        finally:
            popen.terminate()
            popen.wait()


if __name__ == "__main__":
    main()
