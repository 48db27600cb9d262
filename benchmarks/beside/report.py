"""Writes RESULTS_PEERS.md, results_peers.json and the README's table; nobody edits them by hand."""

from typing import Any

from beside.contestants import HISTORY, OURS
from beside.figures import ENTRIES, FRONT, Entry
from harness.figures import Line, Samples, lines_of, spread
from harness.report import row, text

Results = dict[str, Any]
"""By case: the machine, `rounds`, `samples`, `failures`."""

MACHINE = ("processor", "cores", "kernel", "Python", "trio", "Redis")
STOLEN = "stolen"
"""The number that every case has: the share of a core's time that other machines took."""
LATE = 0.25
"""A share of a 99th percentile from which the load's own lateness is told."""
FULL_CORE = 0.9
"""A share of its time from which a core is what bounds."""
HEAD = """# Beside Centrifugo

Written by `python benchmarks/bench_peers.py`; [peers/centrifugo](peers/centrifugo/README.md) has
the configurations, [README.md](README.md#beside-centrifugo) the cases. Every value is the median
over the rounds, with the lowest and the highest behind it; a ratio is ours/theirs, taken within
each round. `syncbridge serve` has everything on but rate limits and access log; Centrifugo 6.9.1
has neither and logs errors alone. The server has core 0 to itself; Redis (append-only file, fsync
every second, over TCP) and the load (`peers/live_load`, in C) share core 1. An update has 116
characters. Latency is an open loop, from when an update was due. CPU is the kernel's clock of the
process. `bound`: whose core was busy for 90 % of the time or more, or that the load itself was late
by a quarter of the 99th percentile; ours before theirs.
"""


def markdown(results: Results, quick: bool) -> str:
    """All tables."""
    parts = [HEAD]
    if quick:
        parts.append("**A quick run: too small for its numbers to mean anything.**\n")
    for one in list(results.values())[:1]:
        parts += [f"* {name}: {one['machine'][name]}" for name in MACHINE if one["machine"][name]]
    parts += [
        "",
        "| case | rounds | commit | day | scheduling | load average before | stolen, at most |",
    ]
    parts += ["|---|---|---|---|---|---|---|"]
    parts += [f"| {name} | {conditions(one)} |" for name, one in results.items()]
    parts += ["", "| case | figure | ours | beside it | ratio | target | met | bound |"]
    parts += ["|---|---|---|---|---|---|---|---|"]
    parts += [row(line) + f" {bound(entry, results)} |" for entry, line in measured(results, quick)]
    failures = [text_ for one in results.values() for text_ in one["failures"]]
    if failures:
        parts += ["", "## Not measured\n", *(f"* {one}" for one in dict.fromkeys(failures))]
    return "\n".join([*parts, "", *everything(results)]) + "\n"


def conditions(one: dict[str, Any]) -> str:
    """When a case was measured, and beside what."""
    where = one["machine"]
    told = ("commit", "day", "scheduling", "load average at the start")
    stolen = max((max(numbers[STOLEN]) for numbers in one["samples"].values()), default=0)
    return " | ".join([str(one["rounds"]), *(where[name] for name in told), f"{stolen:.1%}"])


def measured(results: Results, quick: bool) -> list[tuple[Entry, Line]]:
    """Entries with their lines, as far as there are samples."""
    found = []
    for entry in ENTRIES:
        figure = entry.figure._replace(target=None) if quick else entry.figure
        lines = lines_of([figure], samples_of(results, entry.case))
        found += [(entry, line) for line in lines]
    return found


def samples_of(results: Results, case: str) -> Samples:
    samples: Samples = results.get(case, {}).get("samples", {})
    return samples


def bound(entry: Entry, results: Results) -> str:
    """Which core had no time left, on our side and on the other."""
    samples = samples_of(results, entry.case)
    names = [OURS, entry.figure.baseline] if entry.figure.baseline else [OURS]
    told = [busy(samples.get(name, {}), entry.phase) for name in names] if entry.phase else []
    return " / ".join(one or "none" for one in told) if any(told) else ""


def busy(numbers: dict[str, list[float]], phase: str) -> str:
    """The core that was full in a phase, or a load that was late itself, or nothing."""
    median = {name: spread(values).median for name, values in numbers.items()}
    if f"{phase}_server_share" not in median:
        return ""
    server, store, load = (median[f"{phase}_{who}_share"] for who in ("server", "redis", "load"))
    late = median.get(f"{phase}_sent_late_p99_us", 0)
    if store + load >= FULL_CORE:
        return f"core 1: Redis {store:.0%}, load {load:.0%}"
    if server >= FULL_CORE:
        return f"server {server:.0%}"
    return f"load {late:.0f} µs late" if late >= LATE * median[f"{phase}_p99_us"] else ""


def everything(results: Results) -> list[str]:
    """Every number, for whoever wants more."""
    parts = ["## Everything that was measured\n", "| case | server | number | value |"]
    parts += ["|---|---|---|---|"]
    for case, one in results.items():
        for server, numbers in one["samples"].items():
            for name, values in numbers.items():
                value = text(spread(values), "")
                parts.append(f"| {case} | {server} | {name.replace('_', ' ')} | {value} |")
    return parts


def front(results: Results) -> str:
    """The README's table; empty unless each of its figures is there."""
    beside = {
        entry.figure.metric: line
        for entry, line in measured(results, quick=False)
        if entry.figure.baseline == HISTORY
    }
    if not all(metric in beside for _, metric in FRONT):
        return ""
    lines = ["| | SyncBridge | Centrifugo 6.9.1 | ratio |", "|---|---|---|---|"]
    for title, metric in FRONT:
        line = beside[metric]
        assert line.baseline is not None
        assert line.ratio is not None
        unit = line.figure.unit
        cells = [text(line.subject, unit), text(line.baseline, unit), f"{line.ratio.median:.3g}×"]
        lines.append(f"| {' | '.join([title, *cells])} |")
    return "\n".join(lines)
