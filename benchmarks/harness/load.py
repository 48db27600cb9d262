"""The load on one server in one round, and its numbers.

The clock of a fan-out stops when the last byte has arrived at the last client, and so does the
server's CPU clock: a server cannot look fast by having queued something.
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from harness.process import LOAD_CORE, Running, busy_since, core_busy
from harness.stalls import Stalls, watched
from harness.stolen import undisturbed
from syncbridge_core.swarm import Swarm, UpdatesResult
from syncbridge_core.swarm_histogram import Histogram
from syncbridge_tools.bench import scenarios
from syncbridge_tools.bench.credentials import Device, admin_token, devices, token_mint
from syncbridge_tools.bench.usage import cpu_seconds, sample

Numbers = dict[str, float]

BROADCAST = 13
HEARTBEAT_ACK = 2
ECHO_CLIENTS = 100
TEN = 10
PIECE_SECONDS = 0.5
TRIES = 6
FAN_SECONDS = 60.0
PROBE = Path(__file__).with_name("rest_probe.py")


class Size(NamedTuple):
    """How much of everything.

    Args:
        stock: connections for the server that cannot take more.
        handoffs: and as many resolved conflicts, each time they are measured.
        sessions: of two devices, for durable updates.
        bursts: of five updates a session each.
        resumed: devices that lose their node.
    """

    connections: int
    stock: int
    rounds: int
    fans: int
    echo_seconds: float
    update_seconds: float
    rates: tuple[int, ...]
    probe_rate: int
    handoffs: int
    sessions: int
    bursts: int
    resumed: int


FULL = Size(10_000, 2_000, 5, 20, 3.0, 8.0, (2_000, 6_000, 10_000), 50, 400, 1_000, 6, 10_000)
QUICK = Size(1_000, 300, 1, 60, 1.0, 2.0, (500, 800, 1_000), 20, 20, 100, 2, 400)


class Shortfall(RuntimeError):
    """A server lost something, so its speed means nothing."""


def relay(server: Running, size: Size, connections: int, answers: bool) -> Numbers:
    """A server without sessions: fan-out of one and of ten messages; heartbeats if it answers."""
    swarm = Swarm("127.0.0.1", server.port, connections + 1)
    try:
        numbers = _connect(swarm, server, [])
        numbers |= _fan(swarm, server, size.fans, 1)
        numbers |= _fan(swarm, server, max(size.fans // 2, 1), TEN)
        if answers:
            numbers |= _echo(swarm, server, size.echo_seconds)
    finally:
        swarm.close(reset=True)
    return numbers


def authenticated(server: Running, size: Size, connections: int) -> Numbers:
    """The usual Python server: handshakes with AUTH, memory, fan-out, heartbeats."""
    swarm = Swarm("127.0.0.1", server.port, connections)
    try:
        numbers = _connect(swarm, server, _people(connections))
        numbers |= _fan(swarm, server, max(size.fans // 4, 1), 1)
        numbers |= _echo(swarm, server, size.echo_seconds)
    finally:
        swarm.close(reset=True)
    return numbers


def product(server: Running, size: Size) -> Numbers:
    """SyncBridge itself, all connections open all the while."""
    with watched() as stalls:
        return _product(server, size, stalls)


def _product(server: Running, size: Size, stalls: Stalls) -> Numbers:
    people = _people(size.connections)
    swarm = Swarm("127.0.0.1", server.port, size.connections)
    try:
        numbers = _connect(swarm, server, people)
        numbers |= _echo(swarm, server, size.echo_seconds)
        numbers |= _broadcast(swarm, server, size.fans)
        numbers |= _updates_in_pieces(swarm, server, size, stalls)
        for rate in size.rates[1:]:
            numbers |= undisturbed(
                f"updates_{rate}",
                partial(_updates, swarm, server, size.update_seconds, rate),
            )
        numbers |= undisturbed("rest", partial(_rest_meanwhile, swarm, server, size))
    finally:
        swarm.close(reset=True)
    return numbers


def _people(count: int) -> list[Device]:
    return list(devices(token_mint(), count, 2))


def _connect(swarm: Swarm, server: Running, people: list[Device]) -> Numbers:
    before = sample(server.pid)
    result = swarm.connect([one.auth_message() for one in people], seconds=120.0)
    _require(result.failed == 0, f"{result.failed} connections failed: {result.error}")
    used = sample(server.pid).since(before)
    return {
        "open": result.opened,
        "connects_per_s": result.opened / result.seconds,
        "connects_per_cpu_s": result.opened / max(used.cpu, 0.01),
        "private_bytes_per_connection": used.private / result.opened,
        "pss_bytes_per_connection": used.pss / result.opened,
    }


def _fan(swarm: Swarm, server: Running, fans: int, messages: int) -> Numbers:
    """`fans` times `messages` frames of 200 bytes to everybody but the first client."""
    expected = (swarm.opened - 1) * messages
    command = f"fan {messages}".encode()
    seconds, before = 0.0, cpu_seconds(server.pid)
    for _ in range(fans):
        result = swarm.receive(
            expected, FAN_SECONDS, wanted_type=BROADCAST, trigger=lambda: swarm.send(0, command)
        )
        _require(result.done == expected, f"{expected - result.done} frames lost")
        seconds += result.seconds
    return _per_cpu(f"fan{messages}", expected * fans, cpu_seconds(server.pid) - before, seconds)


def _broadcast(swarm: Swarm, server: Running, fans: int) -> Numbers:
    """The product's own broadcast, asked for over REST."""
    options = scenarios.Options(duration=0.001 * fans)
    load = scenarios.Load(
        swarm,
        options,
        f"http://127.0.0.1:{server.port}",
        admin_token(token_mint()),
        lambda _: None,
    )
    frames, seconds, before = 0.0, 0.0, cpu_seconds(server.pid)
    for _ in range(fans):
        outcome = scenarios.fanout(load)
        _require(outcome.complete, f"broadcast: {outcome.figures}")
        frames += outcome.figures["deliveries"]
        seconds += outcome.figures["deliveries"] / outcome.figures["deliveries_per_s"]
    return _per_cpu("fan1", frames, cpu_seconds(server.pid) - before, seconds)


def _per_cpu(name: str, frames: float, cpu: float, seconds: float) -> Numbers:
    return {
        f"{name}_frames_per_cpu_s": frames / max(cpu, 0.01),
        f"{name}_cpu_us_per_frame": cpu / frames * 1e6,
        f"{name}_frames_per_s": frames / seconds,
    }


def _echo(swarm: Swarm, server: Running, seconds: float) -> Numbers:
    """Heartbeats in a closed loop."""
    return undisturbed("echo", partial(_echo_once, swarm, server, seconds))


def _echo_once(swarm: Swarm, server: Running, seconds: float) -> Numbers:
    before = cpu_seconds(server.pid)
    result = swarm.echo(
        scenarios.heartbeat_message(), seconds, clients=ECHO_CLIENTS, reply_type=HEARTBEAT_ACK
    )
    cpu = cpu_seconds(server.pid) - before
    _require(result.done > 0, "no heartbeat was answered")
    return {
        "echo_per_s": result.done / result.seconds,
        "echo_per_cpu_s": result.done / max(cpu, 0.01),
        "echo_p99_ms": result.latency.percentile(99) / 1e6,
    }


def _updates(swarm: Swarm, server: Running, seconds: float, rate: int, name: str = "") -> Numbers:
    before, busy = cpu_seconds(server.pid), core_busy(LOAD_CORE)
    result = _sent(swarm, rate, seconds, seconds / 4)
    cpu, shared = cpu_seconds(server.pid) - before, busy_since(LOAD_CORE, busy)
    lost = result.expected - result.delivered
    refused = result.totals.errors + result.unsent
    name = name or f"updates_{rate}"
    return {
        f"{name}_p50_ms": result.latency.percentile(50) / 1e6,
        f"{name}_p99_ms": result.latency.percentile(99) / 1e6,
        f"{name}_ack_p99_ms": result.acks.percentile(99) / 1e6,
        f"{name}_generator_lag_p99_ms": result.lag.percentile(99) / 1e6,
        f"{name}_cpu_us": cpu / result.sent * 1e6,
        f"{name}_load_core_busy": shared,
        f"{name}_lost": lost,
        f"{name}_refused": refused,
    }


def _sent(swarm: Swarm, rate: int, seconds: float, warmup: float) -> UpdatesResult:
    """Updates by every second client."""
    return swarm.updates(
        scenarios.update_templates(),
        rate,
        seconds,
        senders=range(0, swarm.count, 2),
        warmup=warmup,
        drain=10.0,
    )


def _updates_in_pieces(swarm: Swarm, server: Running, size: Size, stalls: Stalls) -> Numbers:
    """Updates at the lowest rate; pieces in which no core stood still, and all of them."""
    rate, wanted = size.rates[0], size.update_seconds / PIECE_SECONDS
    quiet, all_, pieces, undisturbed_ = Histogram(), Histogram(), 0, 0
    sent, before = 0, cpu_seconds(server.pid)
    while undisturbed_ < wanted and pieces < TRIES * wanted:
        begin = perf_counter()
        result = _sent(swarm, rate, PIECE_SECONDS, PIECE_SECONDS / 5)
        lost = result.expected - result.delivered + result.totals.errors + result.unsent
        _require(lost == 0, f"{lost} updates were refused or not delivered at {rate}/s")
        all_.merge(result.latency)
        pieces += 1
        sent += result.sent
        if not stalls.seen().during(begin, perf_counter()):
            quiet.merge(result.latency)
            undisturbed_ += 1
    name = f"updates_{rate}"
    return {
        f"{name}_p50_ms": quiet.percentile(50) / 1e6,
        f"{name}_p99_ms": quiet.percentile(99) / 1e6,
        f"{name}_all_p99_ms": all_.percentile(99) / 1e6,
        f"{name}_quiet_share": undisturbed_ / pieces,
        f"{name}_cpu_us": (cpu_seconds(server.pid) - before) / sent * 1e6,
    }


def _rest_meanwhile(swarm: Swarm, server: Running, size: Size) -> Numbers:
    """Snapshots over REST from another process, while updates go on at the lower rate."""
    tokens = token_mint()
    seconds = size.update_seconds
    command = [sys.executable, str(PROBE), str(server.port), str(size.probe_rate), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        assert probe.stdin is not None
        probe.stdin.write(admin_token(tokens).encode() + b"\n")
        probe.stdin.flush()
        updates = _updates(swarm, server, seconds, size.rates[0], "updates_with_rest")
        output, _ = probe.communicate(timeout=FAN_SECONDS)
    _require(probe.returncode == 0, "the REST probe failed")
    rest: Numbers = json.loads(output)
    return {**updates, **rest}


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise Shortfall(text)
