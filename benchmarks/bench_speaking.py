"""Who speaks, in one channel with very many listeners: bytes, CPU, and how late a first change is.

    python benchmarks/bench_speaking.py [--listeners 10000] [--seconds 10] [--rounds 3] [--out FILE]

One server on SERVER_CORE; load and Redis on the other core. SPEAKERS participants change their
state 20 times a second each, all the time. The listeners watch the channel. `kernel` is the server
as it is; `naive` and `drop_only` are the same server with the baselines of servers/speaking.py.
`c_loop` is the limit of the machine: a bare loop of send() in C (peers/c_send) that now and then
writes one frame of 200 bytes to each of the listeners, and does nothing else.

* `messages_per_listener_s`, `kb_per_listener_s`: what one listener receives.
* `cpu_s_per_s`: CPU of the server. Above 0.95 it cannot follow, and sheds.
* `first_p50_ms`, `first_p99_ms`: PROBES more participants, who change state every 1.3 s or so, at
  random, far apart from their window: from sending the report to its arrival at two listeners, the
  first who came and the last. Of `c_loop`: the arrival of each frame at the last listener.
  `first_lost`: changes that never arrived. `first_quiet_*`: those alone during which no core stood
  still (harness/stalls.py); `first_quiet_share`: how many of all.
* `wrong`: probes whose last word (true, and false within 60 ms) the listeners did not end with.

One message to everybody costs a write for each listener, 5 to 9 us here, where the core that writes
does the receiver's part of TCP as well: so 10,000 listeners are reached within 55 ms at best, and
the last of them is the last to hear. The target is a p99 of the first change below 50 ms.
"""

import argparse
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
import uuid
from functools import cache, partial
from pathlib import Path
from typing import Any

import trio

from harness.machine import describe
from harness.process import SERVER_CORE, Running, free_port, prepare_this_process, started
from harness.raw_device import TEXT, RawDevice
from harness.servers import (
    C_SEND,
    Workplace,
    build_c,
    catalogue,
    environment,
    redis_server,
    serving,
)
from harness.stalls import Seen, Stalls, watched
from syncbridge.identity import Role, VoiceGrant
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.records import ChannelConfig
from syncbridge_core.swarm import UPDATE_VALUE, Swarm
from syncbridge_server.auth.claims import Grant
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.voice import RedisChannels
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_tools.bench.credentials import token_mint
from syncbridge_tools.bench.usage import cpu_seconds

HERE = Path(__file__).resolve().parent
SECRETS = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "b" * 40}
C_LOOP = "c_loop"
RULES = ("kernel", C_LOOP, "drop_only", "naive")
SPEAKERS, CHANGES = 50, 20
PROBES, PROBE_SECONDS, SPREAD_SECONDS = 5, 1.3, 0.2
FRAME_SECONDS = 0.3
BROADCAST = 13
CHANNEL = "c"
SETTLE_SECONDS = 60.0
QUIET = 2.5


mint = cache(token_mint)


def auth(user: str) -> bytes:
    """AUTH of one more device, with a grant for the channel."""
    grant = Grant(user, Role.USER, voice=(VoiceGrant("w", CHANNEL, ("speak",)),))
    token = mint().mint_access(grant, time.time(), 3600)[0]
    return dump({"type": 7, "payload": {"token": token, "device_id": user}})


def dump(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def speaking(state: bool, **more: str) -> bytes:
    return dump({"type": "speaking", "channelId": CHANNEL, "isSpeaking": state, **more})


async def open_channel(redis: Path) -> None:
    """A call without participants."""
    async with RedisIO(f"unix://{redis}").running() as io, RedisBus(io, "bench").running() as bus:
        channels = RedisChannels(io, bus, "bench", 3600)
        writer = ChannelWriter(channels, ChannelLimits(), time.time)
        config = ChannelConfig(max_participants=1000)
        await writer.change(CHANNEL, lambda c, now: c.opening(now, config, "w"))
        await writer.change(CHANNEL, opened)


def opened(channel: Channel, now: int) -> None:
    channel.opened("s", now)


class Wire(RawDevice):
    """One device that a thread of this process reads."""

    @classmethod
    def of(cls, port: int, user: str) -> "Wire":
        device = cls(port)
        device.say(auth(user))
        device.receive(8)
        return device

    def say(self, message: bytes) -> None:
        self._write(TEXT, message)

    def until(self, kind: str) -> Any:
        return self.receive(kind).content  # type: ignore[arg-type]


class Listener(threading.Thread):
    """Reads all that one watcher hears; `heard`: user -> (state, when) of each change."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.device = Wire.of(port, name)
        self.device.say(dump({"type": "voice_watch", "channelId": CHANNEL}))
        self.device.until("voice_state")
        self.heard: dict[str, list[tuple[bool, float]]] = {}

    def run(self) -> None:
        try:
            while True:
                message = self.device.until("speaking_update")
                now = time.perf_counter()
                for change in message.get("updates", [message]):
                    if change["userId"].startswith("probe"):
                        kept = self.heard.setdefault(change["userId"], [])
                        kept.append((change["isSpeaking"], now))
        except (OSError, ValueError):
            pass

    def stop(self) -> None:
        self.device._socket.shutdown(socket.SHUT_RDWR)
        self.join(5)
        self.device.__exit__(None, None, None)


class Probe(threading.Thread):
    """Changes its state now and then; `sent`: (state, when)."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.user = f"probe-{number}"
        self.device = Wire.of(port, self.user)
        self.device.say(dump({"type": "voice_join", "channelId": CHANNEL}))
        self.device.until("voice_state")
        self.sent: list[tuple[bool, float]] = []
        self.ended = threading.Event()
        self._number = number

    def run(self) -> None:
        self.ended.wait(self._number * PROBE_SECONDS / PROBES)
        state, chance = False, random.Random(self._number)
        while not self.ended.wait(PROBE_SECONDS + chance.uniform(-1, 1) * SPREAD_SECONDS):
            state = not state
            self._say(state)

    def last_word(self) -> None:
        """Speaks, and ends to speak within one window."""
        self.device.say(speaking(True))
        time.sleep(0.06)
        self.device.say(speaking(False))

    def _say(self, state: bool) -> None:
        self.sent.append((state, time.perf_counter()))
        self.device.say(speaking(state))


def late(probe: Probe, listener: Listener) -> tuple[list[tuple[float, float]], int]:
    """((sent, heard) of each change, changes that were not)."""
    times, lost = [], 0
    heard = list(listener.heard.get(probe.user, ()))
    for state, at in probe.sent:
        arrival = next((t for said, t in heard if said is state and t >= at), None)
        if arrival is None or arrival - at > PROBE_SECONDS:
            lost += 1
        else:
            times.append((at, arrival))
    return times, lost


def crowd(port: int, listeners: int) -> Swarm:
    """Speakers who have joined, and listeners who watch."""
    swarm = Swarm("127.0.0.1", port, SPEAKERS + listeners)
    users = [f"speaker-{n}" for n in range(SPEAKERS)] + [f"u-{n}" for n in range(listeners)]
    found = swarm.connect([auth(user) for user in users], seconds=300.0)
    if found.failed:
        raise RuntimeError(f"{found.failed} connections failed: {found.error}")
    join = dump({"type": "voice_join", "channelId": CHANNEL})
    for index in range(SPEAKERS):
        swarm.send(index, join)
    watch = dump({"type": "voice_watch", "channelId": CHANNEL})
    swarm.idle(QUIET)
    for index in range(SPEAKERS, SPEAKERS + listeners):
        swarm.send(index, watch)
    answered = swarm.receive(listeners, SETTLE_SECONDS)
    if answered.done < listeners:
        raise RuntimeError(f"only {answered.done} of {listeners} watch")
    return swarm


def measured(server: Running, listeners: int, seconds: float, stalls: Stalls) -> dict[str, float]:
    """One server, one load."""
    first = Listener(server.port, "first")
    swarm = crowd(server.port, listeners)
    probes = [Probe(server.port, number) for number in range(PROBES)]
    last = Listener(server.port, "last")
    threads: list[threading.Thread] = [first, last, *probes]
    for thread in threads:
        thread.start()
    templates = [speaking(state, n=UPDATE_VALUE.decode()) for state in (True, False)]
    before = cpu_seconds(server.pid)
    result = swarm.updates(
        templates, SPEAKERS * CHANGES, seconds, senders=range(SPEAKERS), drain=0.5
    )
    used = cpu_seconds(server.pid) - before
    for probe in probes:
        probe.ended.set()
        probe.join()
    swarm.idle(QUIET)
    for probe in probes:
        probe.last_word()
    swarm.idle(1.5)
    numbers = figures(result, used, probes, [first, last], SPEAKERS + listeners, stalls.seen())
    first.stop()
    last.stop()
    swarm.close(reset=True)
    return numbers


def figures(
    result: Any,
    used: float,
    probes: list[Probe],
    listeners: list[Listener],
    clients: int,
    stops: Seen,
) -> dict[str, float]:
    spans: list[tuple[float, float]] = []
    lost = wrong = 0
    for probe in probes:
        for listener in listeners:
            found, missing = late(probe, listener)
            spans += found
            lost += missing
            wrong += listener.heard.get(probe.user, [(True, 0.0)])[-1][0]
    totals, seconds = result.totals, result.seconds
    return {
        "messages_per_listener_s": round(totals.messages / clients / seconds, 2),
        "kb_per_listener_s": round(totals.payload_bytes / clients / seconds / 1000, 3),
        "cpu_s_per_s": round(used / seconds, 3),
        "cpu_us_per_message": round(used / max(totals.messages, 1) * 1e6, 2),
        **first_changes(spans, stops),
        "first_lost": lost,
        "wrong": wrong,
        "closed": totals.closed,
        "unsent": result.unsent,
    }


def first_changes(spans: list[tuple[float, float]], stops: Seen) -> dict[str, float]:
    """How late these were, all of them and those in quiet moments."""
    times = waits(spans)
    quiet = waits([span for span in spans if not stops.during(*span)])
    return {
        "first_p50_ms": round(percentile(times, 0.5), 1),
        "first_p99_ms": round(percentile(times, 0.99), 1),
        "first_quiet_p50_ms": round(percentile(quiet, 0.5), 1),
        "first_quiet_p99_ms": round(percentile(quiet, 0.99), 1),
        "first_quiet_share": round(len(quiet) / max(len(times), 1), 2),
    }


def bare_loop(listeners: int, seconds: float, place: Workplace) -> dict[str, float]:
    """How late the last of so many listeners gets a frame from a loop of send()."""
    if not build_c(place):
        raise FileNotFoundError("no C compiler for peers/c_send")
    spans: list[tuple[float, float]] = []
    with serving(catalogue(place)[C_SEND], place) as server, watched() as stalls:
        swarm = Swarm("127.0.0.1", server.port, listeners + 1)
        swarm.connect()
        order = partial(swarm.send, 0, b"fan 1")
        for _ in range(int(seconds / FRAME_SECONDS)):
            swarm.idle(FRAME_SECONDS)
            began = time.perf_counter()
            result = swarm.receive(listeners, 10.0, wanted_type=BROADCAST, trigger=order)
            if result.done < listeners:
                raise RuntimeError(f"{listeners - result.done} frames lost")
            spans.append((began, began + result.seconds))
        swarm.close(reset=True)
        return first_changes(spans, stalls.seen())


def waits(spans: list[tuple[float, float]]) -> list[float]:
    """ms, in ascending order."""
    return sorted((heard - sent) * 1000 for sent, heard in spans)


def percentile(times: list[float], share: float) -> float:
    return times[min(int(len(times) * share), len(times) - 1)] if times else float("inf")


def one_round(rule: str, listeners: int, seconds: float) -> dict[str, float]:
    """A server and a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="sb-speaking-") as directory:
        place = Workplace(Path(directory), SECRETS)
        if rule == C_LOOP:
            return bare_loop(listeners, seconds, place)
        port = free_port()
        with redis_server(place) as unix:
            trio.run(partial(open_channel, unix))
            variables = {
                **environment(place, port),
                "REDIS_ADDR": f"unix://{unix}",
                "RTK_API_URL": "http://127.0.0.1:9",
                "RTK_API_KEY": uuid.uuid4().hex,
                "SYNCBRIDGE_VOICE_WEBHOOK_SECRETS": uuid.uuid4().hex,
                "SYNCBRIDGE_ACCESS_LOG": "false",
            }
            command = [sys.executable, str(HERE / "servers/speaking.py"), rule]
            log = Path(directory) / "server.log"
            with (
                started(command, variables, log, core=SERVER_CORE, port=port) as server,
                watched() as stalls,
            ):
                return measured(server, listeners, seconds, stalls)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure who speaks, as listeners hear it.")
    parser.add_argument("--listeners", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    os.environ.update(SECRETS)
    prepare_this_process()
    samples: dict[str, list[dict[str, float]]] = {rule: [] for rule in arguments.rules}
    for number in range(arguments.rounds):
        for rule in arguments.rules:
            print(f"round {number + 1}: {rule}", file=sys.stderr, flush=True)
            samples[rule].append(one_round(rule, arguments.listeners, arguments.seconds))
    medians = {
        rule: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for rule, found in samples.items()
    }
    document = {
        "machine": describe(),
        "listeners": arguments.listeners,
        "speakers": SPEAKERS,
        "changes_per_second_each": CHANGES,
        "medians": medians,
        "samples": samples,
    }
    text = json.dumps(document, indent=2)
    print(json.dumps(medians, indent=2))
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
