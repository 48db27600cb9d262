"""Each block of code in the documents is checked by a test, by its kind; a new kind fails.

sh      parsed here, with the commands of ours and their options. What is pasted is also run:
        README.md, docs/start and each `curl` by test_examples.py, docs/voice.md by
        test_voice_try.py, the settings of docs/authentication.md by test_vendor_tokens.py
python  typed by `make lint` (scripts/docs_programs.py); whole programs are run by
        test_client_docs.py and test_examples.py. Sketches in docs/decisions are only parsed
js, jsx, ts   typed against the package by clients/js/test/server/package.test.ts; lines of other
        libraries, beside which ours stand, are parsed there
html    a whole page, the same as a file of examples/, which runs in Chromium; or a page that only
        loads a program of the document
json, toml, yaml   parsed here
text, mermaid      shown only: what a program prints, a tree, a file of another program; a diagram
"""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from support.source_tree import ROOT, text, with_suffix
from syncbridge_server.cli import ELSEWHERE, app

FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)\n(.*?)^\1\2$", re.M | re.S)
OURS = re.compile(r"(?:^|/|\s|\(|\")syncbridge (?=[a-z])(.*)$", re.M)
OPTION = re.compile(r"--[a-z][a-z-]*")
DIAGRAMS = {"stateDiagram-v2", "flowchart", "sequenceDiagram"}
DESIGNS = Path("docs/decisions")


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Kind and content of each block of a document."""
    for indent, _, kind, content in FENCE.findall(text(path)):
        yield kind.strip(), re.sub(rf"^{indent}", "", content, flags=re.M)


BLOCKS = [
    (path, kind, content)
    for path in with_suffix(".md")
    if path.parts[0] != "tests"
    for kind, content in blocks(path)
]


def of(*kinds: str) -> list[tuple[Path, str]]:
    """The blocks of some kinds, each with its document."""
    return [(path, content) for path, kind, content in BLOCKS if kind in kinds]


def several_json(content: str) -> None:
    """One or more JSON values, one behind the other."""
    rest = content.strip()
    while rest:
        _, end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:].lstrip()


def diagram(content: str) -> None:
    """A diagram of a kind that code hosts draw."""
    assert content.split()[0] in DIAGRAMS


def shell(content: str) -> None:
    """Valid shell; each command of ours is there, with the options that are given to it."""
    done = subprocess.run(["bash", "-n"], input=content, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = content.replace("\\\n", " ")
    for rest in OURS.findall(lines):
        words = shlex.split(re.split(r"[)|;&#]", rest)[0].replace('"', ""))
        assert set(OPTION.findall(" ".join(words))) <= options(words), rest


def options(words: list[str]) -> set[str]:
    """The options of a command of ours. Raises KeyError when there is no such command."""
    name, *rest = words
    own = typer.main.get_command(app)
    if name in ELSEWHERE:
        module = __import__(ELSEWHERE[name][0], fromlist=["x"])
        own = typer.main.get_command(module.app)
    else:
        own = own.commands[name]  # type: ignore[attr-defined]
    commands = getattr(own, "commands", {})
    chosen = commands[rest[0]] if rest and rest[0] in commands else own
    return {name for parameter in chosen.params for name in parameter.opts}


def checked_elsewhere(test: str, *patterns: str) -> Callable[[str], None]:
    """What another test reads from the documents: it still does."""

    def check(content: str) -> None:
        assert content.strip()
        assert [] == [one for one in patterns if one not in text(Path(test))], test

    return check


def whole_page(content: str) -> None:
    """A page of an example, which a browser test opens; or one that only loads a program."""
    examples = {text(path) for path in with_suffix(".html", under="examples/")}
    assert content in examples or '<script type="module" src=' in content


PROGRAMS = checked_elsewhere(
    "clients/js/test/server/package.test.ts", '"docs/', '"README.md"', "(js|jsx|ts)"
)
HANDLED: dict[str, Callable[[str], object]] = {
    "sh": shell,
    "python": checked_elsewhere("Makefile", "scripts/docs_programs.py"),
    "js": PROGRAMS,
    "jsx": PROGRAMS,
    "ts": PROGRAMS,
    "html": whole_page,
    "json": several_json,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "text": str.strip,
    "mermaid": diagram,
}


def test_every_kind_of_block_is_handled() -> None:
    """A block without a kind, or of another one, needs a row in the table above."""
    unknown = {f"{path}: {kind or 'no kind'}" for path, kind, _ in BLOCKS if kind not in HANDLED}

    assert set(HANDLED) == {kind for _, kind, _ in BLOCKS}
    assert unknown == set()


def test_no_block_is_left_open() -> None:
    """Each line that opens a block has one that closes it, so that none is overlooked."""
    odd = []
    for path in with_suffix(".md"):
        rest = FENCE.sub("", text(path))
        if re.search(r"^ *(```|~~~)", rest, re.M):
            odd.append(str(path))

    assert odd == []


@pytest.mark.parametrize("kind", HANDLED)
def test_blocks_are_what_they_say(kind: str) -> None:
    """Each block of a kind passes that kind's check."""
    wrong = []
    for path, content in of(kind):
        try:
            HANDLED[kind](content)
        except Exception as error:
            wrong.append(f"{path}: {error!r}: {content[:200]}")

    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("sh", "if true"),
        ("sh", ".venv/bin/syncbridge serve --nonsense"),
        ("sh", "x=$(syncbridge nonsense --user a)"),
        ("json", '{"a": 1'),
        ("toml", "a ="),
        ("yaml", "{"),
        ("html", "<p>another page"),
        ("mermaid", "pie"),
    ],
)
def test_a_wrong_block_is_found(kind: str, content: str) -> None:
    """Each check can fail."""
    with pytest.raises(Exception):  # noqa: PT011
        HANDLED[kind](content)


def test_readme_is_among_them() -> None:
    """The search finds blocks of the README and of each folder of documents."""
    found = {str(path.parent) for path, _, _ in BLOCKS}

    assert {".", "docs", "docs/start", "docs/guides", str(DESIGNS)} <= found
    assert (ROOT / "README.md").exists()
