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


def write(directory: Path, results: dict[str, Any], size: Size) -> None:
    """Both files. Raises OSError."""
    text = json.dumps(results, indent=1, sort_keys=True)
    (directory / "results.json").write_text(text + "\n", "utf-8")
    (directory / "RESULTS.md").write_text(markdown(results, size), "utf-8")


def markdown(results: dict[str, Any], size: Size) -> str:
    samples: Samples = results["samples"]
    lines = measured(samples, size)
    parts = [
        HEAD.format(rounds=size.rounds),
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
    return [*head, "|---|---|---|---|---|---|---|", *map(_row, lines), ""]


def _row(line: Line) -> str:
    figure = line.figure
    subject = _text(line.subject, figure.unit)
    beside = f"{figure.baseline}: {_text(line.baseline, figure.unit)}" if line.baseline else ""
    ratio = _text(line.ratio, "×") if line.ratio else ""
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
    notes = [f"* {x.figure.key}, {x.figure.title}: {x.figure.caveat}" for x in lines]
    notes = [note for note, line in zip(notes, lines, strict=True) if line.figure.caveat]
    return ["## What these do not show\n", *notes, ""]


def _document(document: Any) -> list[str]:
    if not document:
        return []
    text = json.dumps(document, indent=1)
    return [
        "## Document kernel\n",
        "From benchmarks/bench_document.py.\n",
        f"```json\n{text}\n```",
        "",
    ]


def _failures(failures: list[str]) -> list[str]:
    return ["## Not measured\n", *(f"* {one}" for one in failures), ""] if failures else []


def _everything(samples: Samples) -> list[str]:
    parts = ["## Everything that was measured\n", "| server | number | value |", "|---|---|---|"]
    for server, metrics in samples.items():
        for metric, values in metrics.items():
            low, high = min(values), max(values)
            middle = sorted(values)[len(values) // 2]
            name = metric.replace("_", " ")
            parts.append(f"| {server} | {name} | {_text(Spread(middle, low, high), '')} |")
    return parts


def _text(spread: Spread, unit: str) -> str:
    gap = "" if unit in ("×", "") else " "
    middle = f"{_number(spread.median)}{gap}{unit}"
    if spread.lowest == spread.highest:
        return middle
    return f"{middle} ({_number(spread.lowest)}–{_number(spread.highest)})"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
