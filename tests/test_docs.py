"""The documents keep step with the tree: links lead somewhere, commands parse, catalogues agree."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

from support.source_tree import ROOT, files, text, with_suffix
from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode
from syncbridge.messages import MessageType

PROTOCOL = Path("docs/protocol.md")
DOCUMENTS = with_suffix(".md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
IMAGE = re.compile(r"<img[^>]+src=\"([^\"]+)\"")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.M)
TARGET = re.compile(r"\bmake ([a-z][a-z-]+)")
FOLDERS = "core_ext|pysrc|server|tools|clients|tests|docs|examples|scripts|benchmarks"
SOURCE_IN_TEXT = re.compile(r"`([\w./-]+\.(?:pyx|pyi|py|lua|h|ts|mjs|proto))`")
FILE_IN_TEXT = re.compile(rf"`((?:{FOLDERS})/[\w./-]+)`")


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", text(path))


def anchors(path: Path) -> set[str]:
    """The fragment of each heading, as code hosts make them."""
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(path)))
    return {title.replace(" ", "-") for title in plain}


def links() -> Iterator[tuple[Path, str]]:
    """Each relative link or image of each document."""
    for path in DOCUMENTS:
        for target in LINK.findall(prose(path)) + IMAGE.findall(prose(path)):
            if not target.startswith(("http://", "https://", "mailto:")):
                yield path, target


def shell_blocks() -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        for language, block in FENCE.findall(text(path)):
            if language in {"sh", "bash", "shell"}:
                yield path, block


def test_relative_links_lead_to_files_of_the_project() -> None:
    """Every relative link names a tracked file or folder, and a heading that is there."""
    known = {p for path in files() for p in (path, *path.parents)}
    headings = {path: anchors(path) for path in DOCUMENTS}
    broken = []
    for source, target in links():
        name, _, anchor = target.partition("#")
        full = (ROOT / source.parent / name).resolve() if name else ROOT / source
        found = full.relative_to(ROOT) if full.is_relative_to(ROOT) else full
        if found not in known or (anchor and anchor not in headings[found]):
            broken.append(f"{source}: {target}")

    assert broken == []


def test_files_named_in_the_documents_exist() -> None:
    """A path in backticks is the path of a file or folder of the tree."""
    known = {str(p) for path in files() for p in (path, *path.parents)}
    named = {(d, name) for d in DOCUMENTS for name in FILE_IN_TEXT.findall(prose(d))}

    assert [f"{d}: {name}" for d, name in sorted(named) if name.rstrip("/") not in known] == []


def test_source_files_named_by_their_end_exist() -> None:
    """`router.py`, `redis/scripts/…/apply.lua`: some file of the tree ends so."""
    tree = [f"/{path}" for path in files()]
    named = {
        (d, name)
        for d in DOCUMENTS
        if d.parts[0] == "docs"
        for name in SOURCE_IN_TEXT.findall(prose(d))
    }
    unknown = [f"{d}: {n}" for d, n in sorted(named) if not any(t.endswith(f"/{n}") for t in tree)]

    assert unknown == [  # the reader's own
        "docs/client.md: quickstart.py",
        "docs/start/browser.md: vite.config.mjs",
        "docs/start/python.md: steps.py",
        "docs/start/react.md: vite.config.mjs",
    ]


def test_commands_named_in_the_documents_exist() -> None:
    """Each `make` target that a document or a CI script names is in the Makefile."""
    defined = set(re.findall(r"^([a-z][a-z-]+):", text(Path("Makefile")), re.M))
    sources = [*DOCUMENTS, *(p for p in files() if p.parts[0] == ".ci")]
    in_code = re.compile(r"`[^`\n]+`|^[ \t]*make .*$", re.M)
    named = {
        target
        for path in sources
        for code in [*in_code.findall(text(path)), *(b for p, b in shell_blocks() if p == path)]
        for target in TARGET.findall(code)
    }

    assert named - defined == set()


def test_pythons_that_are_promised_are_tested() -> None:
    """The classifiers of the distribution are the Pythons of `make matrix`."""
    classifiers = re.findall(r'Python :: (\d\.\d+)"', text(Path("pyproject.toml")))
    matrix = re.search(r"^MATRIX \?= (.+)$", text(Path("Makefile")), re.M)

    assert matrix is not None
    assert classifiers == matrix[1].split()


def test_make_options_are_not_passed_on() -> None:
    """What pip builds with a make of its own is not told this make's options."""
    show = "--eval=show: ; @echo $${MAKEFLAGS-none} $${MFLAGS-none}"
    command = ["make", "--jobs=2", "--silent", show, "show"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "none none" == done.stdout.strip()


def test_help_names_every_target_in_one_column() -> None:
    """`make help` describes each documented target; all descriptions begin at the same place."""
    shown = subprocess.run(
        ["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    documented = re.findall(r"^([a-z][a-z-]*):.*## ", text(Path("Makefile")), re.M)

    assert documented == [line.split()[1] for line in shown]
    assert 1 == len({line.index(line.split(maxsplit=2)[2]) for line in shown})


def test_long_parts_stand_in_the_table_of_their_last_runs() -> None:
    """Each part of .ci/long is a row of docs/testing.md, with the numbers that the Makefile has."""
    makefile = text(Path("Makefile"))
    parts = re.search(r"^PARTS=\((.+)\)$", text(Path(".ci/long")), re.M)
    defaults = {
        name: value.strip() for name, value in re.findall(r"^(\w+) \?= (.+)$", makefile, re.M)
    }
    tabled = {row[0]: row[2] for row in rows(Path("docs/testing.md")) if len(row) == 4}
    shown = {
        part: re.findall(r'([A-Z_]+)="?([^"`]+)"?', tabled[part])
        for part in [*(parts[1].split() if parts else ()), "flakes"]
    }

    assert ["bare"] == [part for part, numbers in shown.items() if not numbers]
    assert [] == [
        f"{part}: {name}={value}"
        for part, numbers in shown.items()
        for name, value in numbers
        if defaults[name] != value
    ]


def test_readme_shows_the_figures_that_were_measured(tmp_path: Path) -> None:
    """What stands between its markers is what the benchmark writes from its stored results."""
    readme = tmp_path / "README.md"
    readme.write_text(text(Path("README.md")), "utf-8")
    write = (
        "import json, pathlib, sys; from beside import report; from harness import front_door;"
        "found = json.loads(pathlib.Path('results_peers.json').read_text());"
        "front_door.update(pathlib.Path(sys.argv[1]), report.front(found), found['updates'])"
    )
    command = [sys.executable, "-c", write, str(readme)]
    subprocess.run(command, cwd=ROOT / "benchmarks", check=True)

    assert text(Path("README.md")) == readme.read_text("utf-8")


def test_readme_shows_the_two_commands() -> None:
    """The README tells how to run the server and how to run the tests."""
    pasted = "".join(block for path, block in shell_blocks() if path == Path("README.md"))

    assert "make run" in pasted
    assert "make test" in pasted


def rows(path: Path) -> list[list[str]]:
    """The cells of every table row of a document, backticks removed."""
    lines = (line for line in text(path).splitlines() if line.startswith("|"))
    cells = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines)
    return [row for row in cells if len(row) > 1]


def yes(flag: bool) -> str:
    return "yes" if flag else "no"


def test_protocol_lists_every_close_code() -> None:
    """A table row for each close code: number, name, reconnect? (and no row for another 4xxx)."""
    expected = {(str(int(c)), c.name, yes(c.should_reconnect)) for c in CloseCode}
    actual = {tuple(row[:3]) for row in rows(PROTOCOL) if re.fullmatch(r"[14]\d{3}", row[0])}

    assert actual == expected


def test_protocol_lists_every_error_code() -> None:
    """A table row for each error code: code, HTTP status, retryable?"""
    expected = {(c.wire, str(c.status), yes(c.retryable)) for c in ErrorCode}
    actual = {tuple(row[:3]) for row in rows(PROTOCOL) if re.fullmatch(r"[1-5]\d\d", row[1])}

    assert actual == expected


def test_protocol_lists_every_message_type() -> None:
    """A table row for each integer message type: number, name."""
    expected = {(str(int(kind)), kind.name) for kind in MessageType}
    actual = {tuple(row[:2]) for row in rows(PROTOCOL) if re.fullmatch(r"\d\d?", row[0])}

    assert actual == expected


def test_changelog_is_in_order() -> None:
    """What is unreleased stands first, then versions from the newest to the oldest."""
    first, *versions = re.findall(r"^## \[([^\]]*)\]", text(Path("CHANGELOG.md")), re.M)

    assert "Unreleased" == first
    assert versions == sorted(versions, key=Version, reverse=True)
