"""Measure SyncBridge beside its peers and write benchmarks/RESULTS.md and results.json.

    python benchmarks/run.py            everything, about twenty minutes
    python benchmarks/run.py --quick    small, a minute and a half; proves that the harness works

Each round starts every server in turn, loads it and stops it, so that a machine which becomes
slower during the run is slower for all of them. benchmarks/README.md says what the numbers mean.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from harness import load, machine, report
from harness.figures import Samples
from harness.process import Running, StartError, prepare_this_process
from harness.rest_client import RequestFailed
from harness.scenes import SCENES, Scene
from harness.servers import (
    C_GATHER,
    C_SEND,
    GO_CHANNEL,
    GO_DIRECT,
    HUB,
    STOCK,
    SYNCBRIDGE,
    Spec,
    Workplace,
    build_peers,
    catalogue,
    serving,
)

HERE = Path(__file__).resolve().parent
ORDER = (C_SEND, HUB, GO_CHANNEL, C_GATHER, GO_DIRECT, STOCK, SYNCBRIDGE)
MUTE = (C_SEND, C_GATHER)
FAILURES = (
    StartError,
    load.Shortfall,
    RequestFailed,
    OSError,
    HTTPException,
    RedisError,
    subprocess.SubprocessError,
)
DOCUMENT = HERE / "bench_document.py"
DOCUMENT_SECONDS = 120


def main() -> int:
    arguments = parse()
    size = load.QUICK if arguments.quick else load.FULL
    if arguments.rounds:
        size = size._replace(rounds=arguments.rounds)
    keys = {"JWT_SECRET": secrets.token_hex(32), "JWT_REFRESH_SECRET": secrets.token_hex(32)}
    os.environ.update(keys)
    with tempfile.TemporaryDirectory(prefix="syncbridge-bench-") as directory:
        place = Workplace(Path(directory), keys)
        described = machine.describe()
        missing = build_peers(place)
        failures = list(missing)
        prepare_this_process()
        specs = [
            s
            for name, s in catalogue(place).items()
            if not arguments.only or name in arguments.only
        ]
        scenes = [s for s in SCENES if not arguments.only or s.name in arguments.only]
        work: list[Spec | Scene] = [*sorted(specs, key=lambda s: ORDER.index(s.name)), *scenes]
        samples = measure(work, place, size, failures)
        results = {
            "machine": described,
            "quick": arguments.quick,
            "size": size._asdict(),
            "samples": samples,
            "failures": failures,
            "document": document(place) if not (arguments.quick or arguments.only) else None,
        }
    arguments.output.mkdir(parents=True, exist_ok=True)
    report.write(arguments.output, results, size)
    print(report.markdown(results, size))
    return 1 if failures and not (arguments.quick and failures == missing) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=0)
    names = [*ORDER, *(scene.name for scene in SCENES)]
    parser.add_argument("--only", action="append", choices=names, help="may be given several times")
    parser.add_argument("--output", type=Path, help="directory; default: here, or build/ if quick")
    arguments = parser.parse_args()
    arguments.output = arguments.output or (HERE.parent / "build" if arguments.quick else HERE)
    return arguments


def measure(
    work: list[Spec | Scene], place: Workplace, size: load.Size, failures: list[str]
) -> Samples:
    """Every server and every scene in every round; one that fails is left out from then on."""
    samples: Samples = {}
    broken: set[str] = set()
    for number, one in turns(work, size.rounds):
        if one.name in broken:
            continue
        print(f"round {number + 1}: {one.name}", file=sys.stderr, flush=True)
        try:
            found = take_turn(one, place, size)
        except FAILURES as error:
            broken.add(one.name)
            failures.append(f"{one.name}: {error}")
            continue
        for server, numbers in found.items():
            for metric, value in numbers.items():
                samples.setdefault(server, {}).setdefault(metric, []).append(value)
    return samples


def turns(work: list[Spec | Scene], rounds: int) -> Iterator[tuple[int, Spec | Scene]]:
    for number in range(rounds):
        yield from ((number, one) for one in work)


def take_turn(one: Spec | Scene, place: Workplace, size: load.Size) -> dict[str, load.Numbers]:
    """Numbers by server."""
    if isinstance(one, Scene):
        return one.measure(place, size)
    with serving(one, place) as server:
        return {one.name: exercise(one, server, size)}


def exercise(spec: Spec, server: Running, size: load.Size) -> load.Numbers:
    if spec.name == SYNCBRIDGE:
        return load.product(server, size)
    if spec.name == STOCK:
        return load.authenticated(server, size, size.stock)
    return load.relay(server, size, size.connections, spec.name not in MUTE)


def document(place: Workplace) -> Any:
    """What benchmarks/bench_document.py writes, or None."""
    if not DOCUMENT.exists():
        return None
    output = place.directory / "document.json"
    command = [sys.executable, str(DOCUMENT), "--json", str(output)]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=DOCUMENT_SECONDS, check=False)
    return json.loads(output.read_text()) if output.exists() else None


if __name__ == "__main__":
    sys.exit(main())
