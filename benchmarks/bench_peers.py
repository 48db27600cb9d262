"""SyncBridge beside its strongest peer, Centrifugo, under one load; writes RESULTS_PEERS.md.

    python benchmarks/bench_peers.py                   every case, 3 rounds, about eight minutes
    python benchmarks/bench_peers.py --only updates    one case (may be repeated); keeps the others
    python benchmarks/bench_peers.py --quick           small, seconds, into build/

Both servers have a turn in every round. `peers/centrifugo/README.md` says how the peer is set up
and obtained; without it SyncBridge is measured alone, which is said. On a machine that does other
work, `chrt -f 20 python benchmarks/bench_peers.py` gives server, load and Redis real-time priority,
which they inherit; the results say so.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from beside import live_load, report
from beside.cases import CASES, FULL, QUICK, Case, Size
from beside.centrifugo import obtain
from beside.contestants import ADMIN_KEY, Contestant, contestants
from beside.report import STOLEN
from harness import front_door, machine
from harness.figures import Samples
from harness.load import Shortfall
from harness.process import StartError, prepare_this_process
from harness.servers import Workplace
from harness.stolen import stolen_since, ticks

HERE = Path(__file__).resolve().parent
STORED = "results_peers.json"
SHOWN = "RESULTS_PEERS.md"
FAILURES = (StartError, Shortfall, OSError, RedisError, subprocess.SubprocessError)


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    keys = {"JWT_SECRET": secrets.token_hex(32), ADMIN_KEY: secrets.token_hex(32)}
    os.environ.update(keys)
    centrifugo, missing = obtain(build=not arguments.quick)
    if missing:
        print(missing, file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="syncbridge-peers-") as directory:
        place = Workplace(Path(directory), keys)
        live_load.build(place)
        prepare_this_process()
        failures = measure_all(arguments, contestants(centrifugo), place, missing)
    failed = [one for one in failures if one != missing]
    return 1 if failed or (missing and not arguments.quick) else 0


def measure_all(
    arguments: argparse.Namespace, everybody: list[Contestant], place: Workplace, missing: str
) -> list[str]:
    """The chosen cases, each written when it is measured; returns what was not measured."""
    quick = arguments.quick
    folder = HERE.parent / "build" if quick else HERE
    stored = folder / STORED
    results = json.loads(stored.read_text()) if stored.exists() and not quick else {}
    size, rounds = (QUICK, 1) if quick else (FULL, arguments.rounds)
    failures: list[str] = []
    for case in CASES:
        if not arguments.only or case.name in arguments.only:
            results[case.name] = measure(case, everybody, place, size, rounds, missing)
            failures += results[case.name]["failures"]
            results = {one.name: results[one.name] for one in CASES if one.name in results}
            write(folder, results, quick)
    print(report.markdown(results, quick).partition("\n## Everything")[0])
    return failures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES])
    return parser.parse_args()


def measure(
    case: Case,
    everybody: list[Contestant],
    place: Workplace,
    size: Size,
    rounds: int,
    missing: str,
) -> dict[str, Any]:
    """A case in all its rounds; a server that fails is left out from then on."""
    where = {**machine.describe(), "day": time.strftime("%Y-%m-%d"), "scheduling": scheduling()}
    samples: Samples = {}
    failures = [missing] if missing else []
    chosen = [one for one in everybody if one.name in case.servers]
    for number in range(rounds):
        for one in list(chosen):
            print(f"{case.name}, round {number + 1}: {one.name}", file=sys.stderr, flush=True)
            before = ticks()
            try:
                found = {**case.run(one, place, size), STOLEN: stolen_since(before)}
            except FAILURES as error:
                chosen.remove(one)
                failures.append(f"{case.name}, {one.name}: {error}")
                print(failures[-1], file=sys.stderr)
                continue
            for name, value in found.items():
                samples.setdefault(one.name, {}).setdefault(name, []).append(value)
    return {"machine": where, "rounds": rounds, "samples": samples, "failures": failures}


def scheduling() -> str:
    """Under which policy server, load and Redis run."""
    return "real-time" if os.sched_getscheduler(0) == os.SCHED_FIFO else "usual"


def write(folder: Path, results: report.Results, quick: bool) -> None:
    """The files, and the README's table when all of its figures are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STORED).write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (folder / SHOWN).write_text(report.markdown(results, quick), "utf-8")
    table = report.front(results)
    if table and not quick:
        front_door.update(HERE.parent / "README.md", table, results["updates"])


if __name__ == "__main__":
    sys.exit(main())
