"""The load on one server in one round, by case; `--only` selects cases."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import redis

from beside.contestants import HISTORY, MAP, OURS, PRESENCE, Contestant
from beside.live_load import Load, load, phase, steady
from harness.load import Numbers, Shortfall
from harness.process import SERVER_CORE, Running, free_port, started
from harness.servers import Workplace, redis_server
from syncbridge_tools.bench.usage import sample

PAIR = 2
REDIS = ("--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "256")
REDIS += ("--zset-max-listpack-entries", "512")
"""As docs/operations.md has it."""
OUTSTANDING = 4
JOINING = 200
JOINING_ONE_SESSION = 50
SETTLE_SECONDS = 1.5


class Size(NamedTuple):
    """How much of everything.

    Args:
        pairs: devices, two a session, for updates at `rates` and as fast as it goes.
        many: the same with many connections open, at `many_rates`.
        crowd: devices of one session. fans: connections that a broadcast goes to.
        returning: devices whose server is killed.
        seconds: of each measured phase, after `warm`.
    """

    pairs: int
    rates: tuple[int, ...]
    many: int
    many_rates: tuple[int, ...]
    crowd: int
    fans: tuple[int, ...]
    returning: int
    seconds: float
    warm: float


FULL = Size(1_000, (1_000, 5_000), 10_000, (2_000, 10_000), 1_000, (1_000, 5_000), 5_000, 4.0, 1.0)
QUICK = Size(40, (1_000, 5_000), 400, (2_000, 10_000), 50, (50, 100), 100, 0.3, 0.1)
"""The names in the results are the same, and the rates; connections and times are not."""


class Site(NamedTuple):
    """A server with a Redis, both new; `command` and `env` start it again."""

    server: Running
    redis_pid: int
    command: list[str]
    env: dict[str, str]


@contextlib.contextmanager
def site(place: Workplace, one: Contestant) -> Iterator[Site]:
    """While the block runs. Both are reached over TCP, as Centrifugo can, and usual."""
    port, redis_port = free_port(), free_port()
    listen = ("--port", str(redis_port), "--bind", "127.0.0.1")
    with redis_server(place, *listen, *REDIS) as unix:
        with redis.Redis(unix_socket_path=str(unix)) as store:
            redis_pid = int(store.info("server")["process_id"])
        env, command = one.env(place, port, redis_port), one.command(port)
        with serving(place, one, command, env, port) as server:
            yield Site(server, redis_pid, command, env)


@contextlib.contextmanager
def serving(
    place: Workplace, one: Contestant, command: list[str], env: dict[str, str], port: int
) -> Iterator[Running]:
    """The server alone."""
    log = place.directory / f"{one.name.replace(' ', '_')}.log"
    with started(command, env, log, core=SERVER_CORE, port=port) as server:
        yield server


def loaded(
    stack: contextlib.ExitStack,
    place: Workplace,
    one: Contestant,
    count: int,
    group: int,
    crowd: bool = False,
) -> tuple[Site, Load]:
    """A new server and its devices, not yet connected, until the stack is left."""
    where = stack.enter_context(site(place, one))
    texts = one.texts(place, count, group, crowd)
    program = load(place, one, where.server, where.redis_pid, texts, group)
    return where, stack.enter_context(program)


def updates(one: Contestant, place: Workplace, size: Size) -> Numbers:
    """Sessions of two: updates at each rate, then as many as it can."""
    numbers: Numbers = {}
    with contextlib.ExitStack() as stack:
        _, devices = loaded(stack, place, one, size.pairs, PAIR)
        devices.tell("connect", JOINING)
        for rate in size.rates:
            told = devices.tell("steady", rate, size.seconds, size.warm)
            numbers |= steady(f"updates_{rate}", told)
        told = devices.tell("ceiling", OUTSTANDING, size.seconds, size.warm)
        return numbers | phase("ceiling", told)


def many(one: Contestant, place: Workplace, size: Size) -> Numbers:
    """Many connections, two a session: joining, memory, updates."""
    with contextlib.ExitStack() as stack:
        where, devices = loaded(stack, place, one, size.many, PAIR)
        before = sample(where.server.pid).private
        joined = devices.tell("connect", JOINING)
        devices.tell("wait", SETTLE_SECONDS)
        held = sample(where.server.pid).private - before
        numbers = {
            "memory": held / size.many,
            "connects_per_s": size.many / joined["seconds"],
            "connect_cpu_us": joined["server_cpu"] / size.many * 1e6,
            "connect_redis_us": joined["redis_cpu"] / size.many * 1e6,
        }
        for rate in size.many_rates if one.name != PRESENCE else ():
            told = devices.tell("steady", rate, size.seconds, size.warm)
            numbers |= steady(f"many_{rate}", told)
        return numbers


def crowd(one: Contestant, place: Workplace, size: Size) -> Numbers:
    """One session of many devices: joining, and updates to all of them."""
    with contextlib.ExitStack() as stack:
        _, devices = loaded(stack, place, one, size.crowd, size.crowd)
        joined = devices.tell("connect", JOINING_ONE_SESSION)
        told = devices.tell("crowd", size.seconds, size.warm)
        return {"joins_per_s": size.crowd / joined["seconds"], **phase("crowd", told)}


def broadcast(one: Contestant, place: Workplace, size: Size) -> Numbers:
    """An operator's message to all connections, asked for over HTTP; nothing is kept."""
    numbers: Numbers = {}
    for named, count in zip(FULL.fans, size.fans, strict=True):
        with contextlib.ExitStack() as stack:
            _, devices = loaded(stack, place, one, count, PAIR, crowd=True)
            devices.tell("connect", JOINING)
            told = devices.tell("post", size.seconds, size.warm)
            numbers |= phase(f"broadcast_{named}", told)
    return numbers


def recovery(one: Contestant, place: Workplace, size: Size) -> Numbers:
    """kill -9, start again; each device resumes and must be given the update that it missed."""
    with contextlib.ExitStack() as stack:
        where, devices = loaded(stack, place, one, size.returning, PAIR)
        devices.tell("connect", JOINING)
        devices.tell("recover", JOINING)
        begun = time.monotonic()
        os.kill(where.server.pid, signal.SIGKILL)
        again = serving(place, one, where.command, where.env, where.server.port)
        stack.enter_context(again)
        told = devices.answer()
        if told["whole"] < size.returning or told["resumed"] < size.returning:
            raise Shortfall(f"only {told['whole']} of {size.returning} have all: {told}")
        return {"recovery_s": told["until"] - begun}


def start(one: Contestant, place: Workplace, size: Size) -> Numbers:
    """From the start of the process until it accepts a connection, with an empty Redis."""
    with site(place, one) as where:
        return {"start_s": where.server.seconds}


class Case(NamedTuple):
    """`run` gives the numbers of one round."""

    name: str
    run: Callable[[Contestant, Workplace, Size], Numbers]
    servers: tuple[str, ...]


CASES = (
    Case("updates", updates, (OURS, HISTORY, MAP)),
    Case("many", many, (OURS, HISTORY, PRESENCE)),
    Case("crowd", crowd, (OURS, HISTORY, PRESENCE)),
    Case("broadcast", broadcast, (OURS, HISTORY)),
    Case("recovery", recovery, (OURS, HISTORY)),
    Case("start", start, (OURS, HISTORY)),
)
