"""What the documents name is there: settings and their defaults, and the routes of the server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from support.source_tree import ROOT, files, text, with_suffix
from syncbridge_server.configuration.docs import rows
from syncbridge_server.durations import parse_duration

DOCUMENTS = [path for path in with_suffix(".md") if path.name != "CHANGELOG.md"]
VARIABLE = re.compile(r"\b(?:SYNCBRIDGE|JWT|REDIS|RTK|SERVER|ANALYTICS)_[A-Z0-9_]*[A-Z0-9]\b")
DEFAULT = re.compile(rf"`({VARIABLE.pattern})`\s+\(([\d,]+(?:\s\w+)?)\)")
ROUTE = re.compile(r"\b(GET|POST|PUT|DELETE) (/[\w{}/-]+(?:\.json)?)(?!…|[\w{}/-])")
OF_THE_STAND_IN = "/sim/"
UNITS = {"minutes": "m", "min": "m", "hours": "h", "seconds": "s"}
SIZES = {"KiB": 1024, "MiB": 1024**2}


def amount(shown: str) -> float:
    """A number as documents and settings write it: seconds, bytes, or how many."""
    number, _, unit = shown.replace(",", "").partition(" ")
    if unit in SIZES:
        return float(number) * SIZES[unit]
    return float(parse_duration(number + UNITS.get(unit, unit)))


def shapes(routes: Iterator[tuple[str, str]]) -> set[tuple[str, str]]:
    """Routes whatever their parameters are called."""
    return {(method, re.sub(r"{\w+}", "{}", path).rstrip("/")) for method, path in routes}


def test_settings_named_in_the_documents_exist() -> None:
    """A variable of a document is a setting, or something else in the tree reads it."""
    settings = {row.name for row in rows()}
    sources = [p for p in files() if p.suffix in {".py", ".sh", ".mjs"} or p.name == "Makefile"]
    read = set().union(*(VARIABLE.findall(text(p)) for p in sources if "test_docs" not in p.name))
    named = {(path, name) for path in DOCUMENTS for name in VARIABLE.findall(text(path))}

    assert [f"{path}: {name}" for path, name in named if name not in settings | read] == []


def test_defaults_shown_in_the_documents_are_those_of_the_settings() -> None:
    """`SYNCBRIDGE_DRAIN` (30 s): what stands in parentheses behind a setting is its default."""
    defaults = {row.name: row.default for row in rows()}
    shown = [(path, *found) for path in DOCUMENTS for found in DEFAULT.findall(text(path))]
    wrong = [
        f"{path}: {name} ({value}), not {defaults[name]}"
        for path, name, value in shown
        if amount(value) != amount(defaults[name])
    ]

    assert len(shown) > 5
    assert wrong == []


def test_routes_named_in_the_documents_exist() -> None:
    """A method and a path in a document are a call of the server's description."""
    described = json.loads((ROOT / "clients/js/openapi.json").read_text("utf-8"))["paths"]
    known = shapes((m.upper(), path) for path, calls in described.items() for m in calls)
    named = [(d, found) for d in DOCUMENTS for found in ROUTE.findall(text(d))]
    wrong = [
        f"{document}: {method} {path}"
        for document, (method, path) in named
        if shapes(iter([(method, path)])) - known and OF_THE_STAND_IN not in path
    ]

    assert Path("docs/protocol.md") in {document for document, _ in named}
    assert wrong == []


def test_environments_made_in_a_clone_are_ignored() -> None:
    """`python3 -m venv NAME` of a document makes no folder that git, and tests of the tree, see."""
    made = {name for d in DOCUMENTS for name in re.findall(r"-m venv (\S+)", text(d))}
    ignored = {line.strip("/") for line in text(Path(".gitignore")).splitlines()}

    assert {"app", "prod"} <= made
    assert made - ignored == set()
