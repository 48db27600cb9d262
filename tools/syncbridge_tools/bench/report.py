"""Reports of a run: a table on the terminal, a JSON file, a plot of the latencies."""

import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from syncbridge import __version__
from syncbridge_core.swarm_histogram import Histogram
from syncbridge_tools.bench.scenarios import Options, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
MILLISECOND = 1e6


class PlotError(RuntimeError):
    """matplotlib is not installed."""


def as_dict(outcomes: list[Outcome], options: Options, url: str) -> dict[str, Any]:
    """The whole run for a machine to read. Latencies in milliseconds, buckets as pairs."""
    return {
        "syncbridge": __version__,
        "time": int(time.time()),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "url": url,
        "options": options._asdict(),
        "scenarios": [
            {
                "scenario": outcome.scenario,
                "complete": outcome.complete,
                "error": outcome.error,
                "figures": outcome.figures,
                "latency_ms": {name: _latency(h) for name, h in outcome.latencies.items()},
            }
            for outcome in outcomes
        ],
    }


def write_json(path: Path, outcomes: list[Outcome], options: Options, url: str) -> None:
    """Write `as_dict`. Raises OSError."""
    path.write_text(json.dumps(as_dict(outcomes, options, url), indent=1) + "\n", "utf-8")


def show(console: Console, outcomes: list[Outcome]) -> None:
    """One table a scenario."""
    for outcome in outcomes:
        reason = f": {outcome.error}" if outcome.error else ""
        title = outcome.scenario + ("" if outcome.complete else f" (incomplete{reason})")
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in outcome.figures.items():
            table.add_row(name.replace("_", " "), _number(value))
        for name, histogram in outcome.latencies.items():
            table.add_row(f"{name}, ms", _percentile_text(histogram))
        console.print(table)


def plot(path: Path, outcomes: list[Outcome]) -> None:
    """Latency against percentile, one curve a measurement; the suffix chooses PNG or SVG.

    The horizontal axis is as long from 99 % to 99.9 % as from 0 to 90 %, because a server's bad
    moments are there. Without measurements it draws nothing. Raises PlotError and OSError.
    """
    if not any(len(histogram) for one in outcomes for histogram in one.latencies.values()):
        return
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise PlotError("--plot needs matplotlib: pip install matplotlib") from None
    figure, axes = pyplot.subplots(figsize=(10, 6.5))
    for outcome in outcomes:
        for name, histogram in outcome.latencies.items():
            if len(histogram):
                points = curve(histogram)
                label = f"{outcome.scenario}: {name}, ms: {_percentile_text(histogram)}"
                axes.plot([p for p, _ in points], [ms for _, ms in points], label=label)
    _decorate(axes)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def curve(histogram: Histogram) -> list[tuple[float, float]]:
    """`(1 / share of values above, latency in ms)`: a percentile axis for a log scale.

    The last value, with nothing above it, stands at the share of one value.
    """
    total, reached = len(histogram), 0
    points = []
    for value, count in histogram.buckets():
        reached += count
        above = max(total - reached, 1) / total
        points.append((1 / above, value / MILLISECOND))
    return points


def _decorate(axes: "Axes") -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks([2, 10, 100, 1000, 10000], ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    axes.minorticks_off()
    axes.set_xlabel("share of values at or below")
    axes.set_ylabel("milliseconds")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), fontsize="small", frameon=False)


def _latency(histogram: Histogram) -> dict[str, Any]:
    summary = histogram.summary()
    figures: dict[str, Any] = {
        name: value / MILLISECOND for name, value in summary._asdict().items() if name != "samples"
    }
    figures["samples"] = summary.samples
    figures["buckets"] = [[value / MILLISECOND, count] for value, count in histogram.buckets()]
    return figures


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"


def _percentile_text(histogram: Histogram) -> str:
    parts = [f"p{p:g} {histogram.percentile(p) / MILLISECOND:.3f}" for p in PERCENTILES]
    return ", ".join([*parts, f"max {histogram.summary().maximum / MILLISECOND:.3f}"])
