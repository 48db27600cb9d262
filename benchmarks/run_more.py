"""Run the benchmarks of REST and of voice, and write benchmarks/RESULTS_MORE.md and .json.

    python benchmarks/run_more.py                 everything, about fifteen minutes
    python benchmarks/run_more.py --only http     one of them; the others keep what was written

Each of them can be run alone, and says in its own text what it does and what it does not show.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
STORED = HERE / "results_more.json"
SHOWN = HERE / "RESULTS_MORE.md"
LONGEST_SECONDS = 1200
FIRST_TARGET_MS = 50.0
TWIN_TARGET = 10.0


class Job(NamedTuple):
    """One benchmark: its arguments, what its table is called, its script if it has another name."""

    name: str
    title: str
    arguments: tuple[str, ...] = ()
    note: str = ""
    out: str = "--out"
    script: str = ""

    @property
    def file(self) -> str:
        """The script, in this folder."""
        return f"bench_{self.script or self.name}.py"


JOBS = (
    Job(
        "http",
        "REST: answers for each second of the server's CPU",
        note="32 connections. Ratios are taken within a round. SyncBridge runs as shipped: with"
        " request ids, metrics, limits and compression, which the peers do not have. What bounds us"
        " beside Go is the interpreter: a session read is a hundred Python calls and two turns"
        " of the event loop, with a flat profile; Redis waits for us.",
    ),
    Job("fairness", "Heartbeats on 10,000 WebSockets beside REST, and beside broadcasts"),
    Job("webhooks", "Webhooks, until they are durable and until they take effect"),
    Job("voice_tokens", "Voice tokens, beside the provider's own time"),
    Job(
        "speaking",
        "Who speaks: 50 speakers, 20 changes a second each, 10,000 listeners",
        ("--rounds", "3", "--seconds", "15"),
        "`kernel` is the server as it is; `drop_only` the throttle of the specification's sketch,"
        " which may leave a wrong last state; `naive` sends every change. `first_quiet_p99_ms` is"
        " of those changes during which neither core stood still. One message to all is one write"
        " for each listener, so the last of 10,000 hears it later than 50 ms on one core of this"
        " machine, whoever writes: `c_loop` is a loop of send() in C that does nothing else, in the"
        " same run. More listeners than a core reaches in time are a matter of `--workers`.",
    ),
    Job(
        "speaking_5000",
        "The same with 5,000 listeners",
        (
            *("--rounds", "3", "--seconds", "20", "--listeners", "5000"),
            *("--rules", "kernel", "c_loop"),
        ),
        script="speaking",
    ),
    Job("throttle", "The throttle kernel beside its pure-Python twin", out="--json"),
    Job(
        "voice_sync",
        "Comparing 10,000 live calls with the provider",
        ("--rounds", "2"),
        "`agree`: nothing differs, the usual pass. `heal`: 1 % differ. `each`: one request a call,"
        " as the specification's sketch has it.",
    ),
    Job(
        "durability",
        "The price of durability: 500 sessions of two devices",
        ("--rounds", "3", "--seconds", "2"),
        "`p50_ms`, `p99_ms`: from when an update is due to its acknowledgement, at 1,000 a second;"
        " `per_s`, `cpu_us`: bursts of five updates a session. Redis and its replica share the"
        " load's core; `fsync` is what the disk of this machine takes.",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[job.name for job in JOBS])
    chosen = parser.parse_args().only
    results: dict[str, Any] = json.loads(STORED.read_text()) if STORED.exists() else {}
    failed = 0
    for job in JOBS:
        if not chosen or job.name in chosen:
            print(f"== {job.name}", flush=True)
            found = run(job)
            failed += found is None
            results[job.name] = found or results.get(job.name)
    STORED.write_text(json.dumps(results, indent=1) + "\n")
    SHOWN.write_text(markdown(results))
    return 1 if failed else 0


def run(job: Job) -> dict[str, Any] | None:
    """What a benchmark wrote; None when it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, str(HERE / job.file), *job.arguments]
        done = subprocess.run([*command, job.out, str(out)], timeout=LONGEST_SECONDS)
        if done.returncode or not out.exists():
            return None
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    machine: dict[str, Any] = next((found["machine"] for found in results.values() if found), {})
    lines = [
        "# Results of REST and voice",
        "",
        "Written by `python benchmarks/run_more.py`. Medians, with the lowest and the highest of",
        "the rounds behind them. The server has core 0 to itself; Redis, the load and the stand-in",
        "provider share core 1, all on loopback.",
        "",
        *(f"* {name}: {value}" for name, value in machine.items() if name != "commit"),
        "",
    ]
    for job in JOBS:
        if results.get(job.name):
            lines += [
                f"## {job.title}",
                "",
                f"`benchmarks/{job.file}`. {job.note}".strip(),
                f"Measured at {results[job.name]['machine']['commit']}.",
            ]
            lines += ["", "| figure | value | range | target | met |", "|---|---|---|---|---|"]
            lines += [row(line) for line in figures(results[job.name])]
            lines.append("")
    return "\n".join(lines)


def figures(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of a benchmark, in one shape."""
    if "kernel_over_twin" in found:
        times = found["kernel_over_twin"]
        line = {"figure": "reports per second: kernel / twin", "ratio": times}
        line["range"] = tuple(found.get("range", ("", "")))
        yield {**line, "target": TWIN_TARGET, "met": times >= TWIN_TARGET}
    yield from found.get("ratios", []) or found.get("figures", [])
    for rule, numbers in found.get("medians", {}).items():
        for name, value in numbers.items():
            line = {"figure": f"{rule}: {name}", "value": round(value, 2)}
            rounds = [one[name] for one in found["samples"][rule]]
            if len(rounds) > 1:
                line["range"] = (round(min(rounds), 2), round(max(rounds), 2))
            if rule == "kernel" and name in ("first_p99_ms", "first_quiet_p99_ms"):
                line |= {"target": FIRST_TARGET_MS, "met": value < FIRST_TARGET_MS}
            yield line


def row(line: dict[str, Any]) -> str:
    """A line of a table."""
    if "ratio" in line:
        value, bound = f"{line['ratio']}×", "≥ {}×"
    else:
        value, bound = str(line.get("median", line.get("value"))), "< {}"
    low, high = line.get("range", ("", ""))
    shown = f"{low} to {high}" if low != "" else ""
    target = line.get("target")
    met = "" if target is None else "yes" if line["met"] else "**no**"
    wanted = "" if target is None else bound.format(target)
    return f"| {line['figure']} | {value} | {shown} | {wanted} | {met} |"


if __name__ == "__main__":
    sys.exit(main())
