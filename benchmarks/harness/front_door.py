"""Puts the judged figures of a full run into the README, between its two markers."""

from pathlib import Path
from typing import Any

from harness import report
from harness.figures import measured
from harness.load import Size

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TEXT = """
Measured by `make bench` on {machine}; every value is the median over {rounds} rounds, with the
lowest and the highest behind it. The server has one core, the load and Redis share the other.
[All results and what they do not show](benchmarks/RESULTS.md), and
[how they are measured](benchmarks/README.md).

"""


def update(readme: Path, results: dict[str, Any], size: Size) -> None:
    """Replace what stands between the markers. Raises ValueError when one is missing."""
    text = readme.read_text("utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    readme.write_text(f"{text[:before]}\n{section(results, size)}\n{text[after:]}", "utf-8")


def section(results: dict[str, Any], size: Size) -> str:
    """The table of figures that have a target."""
    lines = [x for x in measured(results["samples"], size, judge=True) if x.met is not None]
    machine = f"{results['machine']['processor']}, two cores"
    head = ["| figure | ours | beside it | ratio | target | met |", "|---|---|---|---|---|---|"]
    rows = ["|" + report.row(line).split("|", 2)[2] for line in lines]
    return (
        TEXT.format(machine=machine, rounds=size.rounds).strip() + "\n\n" + "\n".join(head + rows)
    )
