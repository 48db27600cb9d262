"""The table of bounds in docs/operations.md against the source: nothing is missing or different."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("server/syncbridge_server", "pysrc/syncbridge")
LEAST = 1_000
"""Smaller bounds are of one message, record or connection, but for those that the table names."""

NOT_OF_AN_INSTALLATION = {
    "ANSWER_MOST": "bytes",
    "BODY": "bytes",
    "CHUNKS": "of one request",
    "DETAIL_KEYS": "of one call, refused in its limits",
    "ENVELOPE": "bytes",
    "IMPRINT_LONG": "bytes",
    "LEAST": "bytes",
    "MAX_ANSWER": "bytes",
    "MAX_BODY": "bytes",
    "MAX_LIST": "bytes",
    "MAX_OWED": "acknowledgements of one device that is slow",
    "MAX_SIGNATURE": "bytes",
    "MAX_TEXT": "bytes",
    "MAX_TOKEN": "bytes",
    "MAX_URL": "bytes",
    "MOST_RULES": "of the state policy, refused at the start",
    "MOST_UNANSWERED": "others wait within SYNCBRIDGE_STORE_QUEUE",
    "REPLAY_MOST": "of one request",
    "SCANNED_MOST": "of one reading, which goes on behind them",
    "SCAN_COUNT": "of one step, named with MAX_SCANS",
    "SHOWN": "bytes",
    "SHOWN_MOST": "bytes",
    "SLOTS": "of Redis Cluster",
    "STATE_BODY": "bytes",
    "UNBOUNDED": "descriptors where the system has no limit",
    "UNFOLDED_BEFORE_AUTH": "bytes",
    "UNPACKED_SPARE": "bytes",
    "_VERSIONS": "above every version that a session is asked for",
}
"""Whole numbers of `LEAST` or more that are no bound which grows with devices, users or nodes."""
OTHER_QUANTITY = re.compile(
    r"_(MS|SECONDS|BYTES|BITS|RATE|FROM|VALUE|PAGE|PLACE|PORT)$"
    r"|^(DAY|DAY_MS|MAX_AGE|MAX_BITRATE|MAX_BYTES|NANO|NEVER|CHUNK|RATE|SIZE|TIME_MOST)$"
)


def constants() -> dict[str, set[int]]:
    """Whole numbers that modules name, at their top, with the values that each name has."""
    found: dict[str, set[int]] = defaultdict(set)
    for root in SOURCES:
        for path in (ROOT / root).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    value = _number(node.value)
                    if value is not None:
                        found[node.targets[0].id].add(value)
    return found


def _number(node: ast.expr) -> int | None:
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def table() -> str:
    """The rows of the section."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("### Bounds that a growing installation meets")[2]
    return "\n".join(line for line in section.partition("\n## ")[0].splitlines() if line[:1] == "|")


def test_bounds_of_the_table_are_those_of_the_source() -> None:
    """Each name in capitals is a constant, and the number before it one of its values."""
    known, rows = constants(), table()
    named = re.findall(r"([\d,]+)?[^`|\d]*`([A-Z][A-Z_]+)`", rows)
    own = [(number, name) for number, name in named if not name.startswith("SYNCBRIDGE_")]
    wrong = [
        (name, number)
        for number, name in own
        if name in known and number and int(number.replace(",", "")) not in known[name]
    ]
    assert len(own) > 30
    assert wrong == []
    assert {name for _, name in own} - known.keys() == {"COMMON_TAGS"}  # a tuple


def test_no_large_bound_is_missing_in_the_table() -> None:
    """Who adds one writes down what happens at it, or says above why no installation meets it."""
    rows = set(re.findall(r"`([A-Z][A-Z_]+)`", table()))
    large = {name for name, values in constants().items() if max(values) >= LEAST}
    unlisted = {name for name in large - rows if not OTHER_QUANTITY.search(name)}
    assert sorted(unlisted - NOT_OF_AN_INSTALLATION.keys()) == []
    assert sorted(NOT_OF_AN_INSTALLATION.keys() - unlisted) == []
