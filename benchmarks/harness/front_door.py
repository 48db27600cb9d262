"""Puts the figures beside the strongest peer into the README, between its two markers."""

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TEXT = """
`make bench-peers` ([`benchmarks/bench_peers.py`](benchmarks/bench_peers.py)) measured this beside
Centrifugo with history and positioning, the strongest peer that we know: medians of {rounds}
rounds, with the lowest and the highest in parentheses, on {processor}, {scheduling} scheduling;
the server has one core, the load and Redis share the other. The ratio is SyncBridge to
Centrifugo: for times and memory, lower is better; for rates, higher. [All
figures](benchmarks/RESULTS_PEERS.md), including those where the peer is ahead; [other
peers](benchmarks/RESULTS.md); [how it is measured](benchmarks/README.md), and what that does not
show.
"""


def update(readme: Path, table: str, measured: dict[str, Any]) -> None:
    """Replace what stands between the markers. Raises ValueError when one is missing.

    Args:
        measured: the results of a case: its machine and its rounds.
    """
    text = readme.read_text("utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    where = measured["machine"]
    note = TEXT.format(
        rounds=measured["rounds"], processor=where["processor"], scheduling=where["scheduling"]
    )
    readme.write_text(f"{text[:before]}\n{note.strip()}\n\n{table}\n{text[after:]}", "utf-8")
