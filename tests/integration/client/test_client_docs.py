"""What the client's pages tell a newcomer to paste, run as they would run it."""

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
