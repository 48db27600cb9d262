"""Writes RESULTS.md and results.json; nobody edits either by hand."""

import json
from pathlib import Path
from typing import Any

from harness.figures import Line, Samples, Spread, measured
from harness.load import Size

HEAD = """# Results

Written by `python benchmarks/run.py`; see benchmarks/README.md for how to read it. Every value is
the median over {rounds} rounds, with the lowest and the highest behind it; a ratio is taken within
each round. The server has core 0 to itself, Redis and the load share core 1, all on loopback.
"""


QUICK_NOTE = """
**A quick run: too small for its numbers to mean anything, so no target is judged.**
"""


def write(directory: Path, results: dict[str, Any], size: Size) -> None:
    """Both files. Raises OSError."""
    text = json.dumps(results, indent=1, sort_keys=True)
    (directory / "results.json").write_text(text + "\n", "utf-8")
    (directory / "RESULTS.md").write_text(markdown(results, size), "utf-8")


def markdown(results: dict[str, Any], size: Size) -> str:
    samples: Samples = results["samples"]
    lines = measured(samples, size, judge=not results["quick"])
    parts = [
        HEAD.format(rounds=size.rounds) + (QUICK_NOTE if results["quick"] else ""),
        *_machine(results["machine"]),
        *_figures(lines),
        *_caveats(lines),
        *_document(results.get("document")),
        *_failures(results["failures"]),
        *_everything(samples),
    ]
    return "\n".join(parts) + "\n"


def _machine(machine: dict[str, str]) -> list[str]:
    rows = [f"| {name} | {value} |" for name, value in machine.items() if value]
    return ["## Machine\n", "| | |", "|---|---|", *rows, ""]


def _figures(lines: list[Line]) -> list[str]:
    head = ["## Figures\n", "| | figure | ours | beside it | ratio | target | met |"]
    return [*head, "|---|---|---|---|---|---|---|", *map(row, lines), ""]


def row(line: Line) -> str:
    """A table row of one figure."""
    figure = line.figure
    subject = text(line.subject, figure.unit)
    beside = f"{figure.baseline}: {text(line.baseline, figure.unit)}" if line.baseline else ""
    ratio = text(line.ratio, "×") if line.ratio else ""
    cells = [figure.key, figure.title, subject, beside, ratio, _target(line), _met(line.met)]
    return f"| {' | '.join(cells)} |"


def _target(line: Line) -> str:
    figure = line.figure
    if figure.target is None:
        return ""
    unit = "×" if line.ratio else f" {figure.unit}".rstrip()
    return f"{'≤' if figure.at_most else '≥'} {figure.target:,g}{unit}"


def _met(met: bool | None) -> str:
    return "" if met is None else ("yes" if met else "**no**")


def _caveats(lines: list[Line]) -> list[str]:
    figures = [line.figure for line in lines if line.figure.caveat]
    notes = [f"* {one.key}, {one.title}: {one.caveat}" for one in figures]
    return ["## What these do not show\n", *notes, ""]


def _document(document: Any) -> list[str]:
    """A row a task and document; each cell is microseconds, and times the kernel's."""
    if not document:
        return []
    runs = document["runs"]
    names = list(dict.fromkeys(name for run in runs for name in run["results"]))
    head = [
        "## l. Document kernel, µs\n",
        "From `benchmarks/bench_document.py`; in brackets how many times the kernel's time.\n",
        f"| task | document | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    return [*head, *(_document_row(run, names) for run in runs), ""]


def _document_row(run: Any, names: list[str]) -> str:
    found = (run["results"].get(name) for name in names)
    cells = [f"{x['us']:.3g} ({x['ratio']:.3g}×)" if x else "" for x in found]
    return f"| {run['task']} | {run['document']} | {' | '.join(cells)} |"


def _failures(failures: list[str]) -> list[str]:
    return ["## Not measured\n", *(f"* {one}" for one in failures), ""] if failures else []


def _everything(samples: Samples) -> list[str]:
    parts = ["## Everything that was measured\n", "| server | number | value |", "|---|---|---|"]
    for server, metrics in samples.items():
        for metric, values in metrics.items():
            low, high = min(values), max(values)
            middle = sorted(values)[len(values) // 2]
            name = metric.replace("_", " ")
            parts.append(f"| {server} | {name} | {text(Spread(middle, low, high), '')} |")
    return parts


def text(spread: Spread, unit: str) -> str:
    gap = "" if unit in ("×", "") else " "
    middle = f"{_number(spread.median)}{gap}{unit}"
    if spread.lowest == spread.highest:
        return middle
    return f"{middle} ({_number(spread.lowest)}–{_number(spread.highest)})"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
