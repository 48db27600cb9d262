"""What the client's pages tell a newcomer to paste, run as they would run it."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.server_kit import mint, new_session, server_process
from support.source_tree import ROOT

PAGES = ("docs/client.md", "clients/python/README.md")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", PAGES)
def test_quick_start_prints_what_the_page_shows(
    redis_url: str, tmp_path: Path, backend: str, name: str
) -> None:
    """The first program of the page, on both backends, with the output below it."""
    page = (ROOT / name).read_text("utf-8")
    [program, *_] = re.findall(r"```python\n(.*?)```", page, re.S)
    [shown, *_] = re.findall(r"```text\n(.*?)```", page, re.S)
    if backend == "trio":
        program = program.replace("asyncio.run(main())", "trio.run(main)")
        program = program.replace("import asyncio", "import trio")
    with server_process(tmp_path, redis_url) as server:
        environment = os.environ | {
            "SYNCBRIDGE_URL": f"http://127.0.0.1:{server.port}",
            "SYNCBRIDGE_TOKEN": mint(new_session()),
        }
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert ("", 0) == (done.stderr, done.returncode)
    assert shown == done.stdout


SHOWN = sorted(
    (str(path.relative_to(ROOT)), number, program)
    for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), ROOT / "clients/python/README.md"]
    for number, program in enumerate(
        re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.S)
    )
)
"""Each program of a page, with its number there."""


@pytest.mark.parametrize(
    "program", [program for *_, program in SHOWN], ids=[f"{page}-{n}" for page, n, _ in SHOWN]
)
def test_programs_of_pages_import_what_there_is(program: str) -> None:
    """Every program parses, some of them inside a coroutine, and finds the names it imports."""
    tree = compile(program, "page", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [(node.module or "", alias.name) for node in imported for alias in node.names]

    assert [
        f"{module}.{name}"
        for module, name in names
        if module.startswith("syncbridge") and not hasattr(importlib.import_module(module), name)
    ] == []


def test_there_are_programs_in_the_pages() -> None:
    """The search above finds those of the client's pages."""
    assert {page for page, *_ in SHOWN} >= {"docs/client.md", "docs/calls.md"}
