"""Which keys of two states differ: the document kernel beside a parser and dicts (l).

The tasks are those of bench_document.py, where the other sizes and libraries are. The kernel holds
our state and is given the other as bytes, which it also checks; the parser reads both.
"""

import orjson

import bench_document
from _data import case
from harness.load import Numbers, Size
from harness.servers import Workplace
from syncbridge_core import document

KERNEL = "Document kernel"
PARSER = "orjson and dict"
KEYS = 200
SECONDS = 0.5
QUICK_SECONDS = 0.1


def measure(place: Workplace, size: Size) -> dict[str, Numbers]:
    """The median of the interleaved rounds that bench_document makes."""
    sample = case(KEYS)
    calls = {
        "kernel": bench_document.diffs(document, sample),
        "orjson": bench_document.parsed_diffs(orjson.loads, sample),
    }
    seconds = QUICK_SECONDS if size.rounds == 1 else SECONDS
    found = bench_document.summary(bench_document.measure(calls, seconds))
    return {
        KERNEL: {"diffs_per_s": 1e6 / found["kernel"]["us"]},
        PARSER: {"diffs_per_s": 1e6 / found["orjson"]["us"]},
    }
