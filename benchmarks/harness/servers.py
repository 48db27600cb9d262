"""The servers that are measured, and how each is built and started. One place for all commands."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness.process import LOAD_CORE, SERVER_CORE, Running, free_port, started

BENCHMARKS = Path(__file__).resolve().parent.parent
PEERS = BENCHMARKS / "peers"
BUILD_SECONDS = 600
GO_PEERS = ("go_gorilla", "go_redis")

SYNCBRIDGE = "SyncBridge"
HUB = "SyncBridge hub alone"
C_SEND = "C send() loop"
C_GATHER = "C send() loop, gathered"
GO_CHANNEL = "Go gorilla, channels"
GO_DIRECT = "Go gorilla, direct"
GO_REDIS = "Go gorilla, go-redis"
STOCK = "Starlette on Hypercorn/Trio"


class Spec(NamedTuple):
    """One server. `command(port)` starts it; `redis` gives it a Redis of its own."""

    name: str
    command: Callable[[int], list[str]]
    redis: bool = False


class Workplace(NamedTuple):
    """Where binaries, sockets and logs go, and the secrets all servers and clients share."""

    directory: Path
    secrets: dict[str, str]

    def binary(self, name: str) -> Path:
        return self.directory / name


def catalogue(place: Workplace) -> dict[str, Spec]:
    """Every server by name; those whose compiler is missing are left out."""
    python = sys.executable
    specs = [
        Spec(SYNCBRIDGE, lambda _: [python, "-m", "syncbridge_server", "serve"], redis=True),
        Spec(HUB, lambda port: [python, str(BENCHMARKS / "servers/hub_fanout.py"), str(port)]),
        Spec(STOCK, lambda port: [python, str(PEERS / "stock/stock.py"), str(port)]),
    ]
    c_send, go = place.binary("c_send"), place.binary("go_gorilla")
    if c_send.exists():
        specs.append(Spec(C_SEND, lambda port: [str(c_send), str(port)]))
        specs.append(Spec(C_GATHER, lambda port: [str(c_send), str(port), "--gather"]))
    if go.exists():
        listen = ["-listen", "127.0.0.1:{}"]
        specs.append(Spec(GO_CHANNEL, lambda port: [str(go), *_at(listen, port)]))
        specs.append(Spec(GO_DIRECT, lambda port: [str(go), *_at(listen, port), "-mode", "direct"]))
    return {spec.name: spec for spec in specs}


def build_peers(place: Workplace) -> list[str]:
    """Compile the C and Go peers; returns a line about each one that is missing."""
    missing = []
    if not build_c(place):
        missing.append("no C compiler: the send() loop was not measured")
    go = shutil.which("go")
    if not go:
        missing.append("no Go: the peers in Go were not measured")
        return missing
    for name in GO_PEERS:
        if not _try([go, "build", "-o", str(place.binary(name)), "."], PEERS / name):
            missing.append(f"{name} did not build (no module proxy?) and was not measured")
    return missing


def build_c(place: Workplace) -> bool:
    """Compile the send() loop; False without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        source = PEERS / "c_send/c_send.c"
        _build([compiler, "-O2", "-o", str(place.binary("c_send")), str(source)], PEERS)
    return compiler is not None


@contextlib.contextmanager
def serving(spec: Spec, place: Workplace) -> Iterator[Running]:
    """Start a server on SERVER_CORE, with its Redis on LOAD_CORE when it needs one."""
    port = free_port()
    log = place.directory / f"{spec.name.replace(' ', '_').replace('/', '_')}.log"
    with contextlib.ExitStack() as stack:
        env = environment(place, port)
        if spec.redis:
            env["REDIS_ADDR"] = f"unix://{stack.enter_context(redis_server(place))}"
        yield stack.enter_context(
            started(spec.command(port), env, log, core=SERVER_CORE, port=port)
        )


@contextlib.contextmanager
def sharing(spec: Spec, place: Workplace, unix: Path, **settings: str) -> Iterator[Running]:
    """As `serving`, on a Redis that is there already, so that several can use the same."""
    port = free_port()
    env = {**environment(place, port), "REDIS_ADDR": f"unix://{unix}", **settings}
    log = place.directory / f"{spec.name.replace(' ', '_')}-{port}.log"
    with started(spec.command(port), env, log, core=SERVER_CORE, port=port) as server:
        yield server


def environment(place: Workplace, port: int) -> dict[str, str]:
    """What every server is started with; each takes what it knows."""
    return {
        **place.secrets,
        "SERVER_ADDR": f"127.0.0.1:{port}",
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
        "SYNCBRIDGE_DATA_DIR": str(place.directory / "data"),
        "GOMAXPROCS": "1",
    }


@contextlib.contextmanager
def redis_server(place: Workplace, *more: str) -> Iterator[Path]:
    """The socket of a Redis as durable as the embedded one: append-only file, fsync a second.

    `more`: further options, which win.
    """
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if not binary:
        raise FileNotFoundError("redis-server is not on the PATH")
    directory = place.directory / f"redis-{free_port()}"
    directory.mkdir()
    unix = directory / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(unix), "--dir", str(directory), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "everysec"]
    # A rewrite of that file is a second process, here on the load's core; it has no place in a run.
    options += ["--auto-aof-rewrite-min-size", "4gb", *more]
    log = place.directory / "redis.log"
    with started([binary, *options], {}, log, core=LOAD_CORE, unix=unix):
        yield unix


def _at(arguments: list[str], port: int) -> list[str]:
    return [argument.format(port) for argument in arguments]


def _build(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, timeout=BUILD_SECONDS)


def _try(command: list[str], directory: Path) -> bool:
    try:
        _build(command, directory)
    except (subprocess.SubprocessError, OSError):
        return False
    return True
