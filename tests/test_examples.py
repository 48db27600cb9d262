"""What README.md and docs/ tell a newcomer to paste, done as they do it: as processes, in order.

One development server answers all of it.
"""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redis_servers import free_port
from support.source_tree import ROOT

pytestmark = pytest.mark.slow

SYNCBRIDGE = (sys.executable, "-m", "syncbridge_server")
START_SECONDS = 90
STOP_SECONDS = 40


def surroundings(data_dir: Path) -> dict[str, str]:
    """The caller's environment without any setting of ours but the data directory."""
    ours = ("SYNCBRIDGE_", "JWT_", "REDIS_", "SERVER_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return environment | {"SYNCBRIDGE_DATA_DIR": str(data_dir)}


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/health/ready", timeout=2):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its data and its secrets."""
    return tmp_path_factory.mktemp("installation")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """`syncbridge dev` on a free port; its address."""
    address = f"127.0.0.1:{free_port()}"
    command = [*SYNCBRIDGE, "dev", "--addr", address]
    with subprocess.Popen(command, cwd=folder, env=surroundings(folder)) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(address):
                assert process.poll() is None, "the server ended at once"
                assert time.monotonic() < deadline, "the server did not answer in time"
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            try:
                code = process.wait(STOP_SECONDS)
            finally:
                process.kill()
    assert code == 0


def paste(*command: str, address: str, data_dir: Path) -> list[str]:
    """The lines that a command prints."""
    environment = surroundings(data_dir) | {"SYNCBRIDGE_URL": f"http://{address}"}
    done = subprocess.run(
        command, cwd=data_dir, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_two_devices_see_the_same(server: str, folder: Path) -> None:
    """The example prints what the README shows, and goes on from there when it is repeated."""
    [token] = paste(*SYNCBRIDGE, "token", "--user", "demo", address=server, data_dir=folder)
    example = [sys.executable, str(ROOT / "examples" / "two_devices.py"), token]
    first = paste(*example, address=server, data_dir=folder)
    second = paste(*example, address=server, data_dir=folder)

    shown = "\n".join(first).replace(server, "127.0.0.1:8080")

    assert f"```text\n{shown}\n```" in (ROOT / "README.md").read_text("utf-8")
    assert second[:4] == [
        "phone: joined at version 1, state {'progress': 10}",
        "laptop: joined at version 1, state {'progress': 10}",
        "phone: version 2: {'progress': 20}",
        "laptop: version 2: {'progress': 20}",
    ]


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(name: str, kind: str) -> list[str]:
    """The blocks of one kind in a document."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", read(name), re.M | re.S)


def test_the_program_to_start_with_prints_what_the_page_shows(server: str, folder: Path) -> None:
    """docs/start/python.md: the second run begins where the first one ended."""
    [program], [shown] = (blocks("docs/start/python.md", kind) for kind in ("python", "text"))
    [token] = paste(*SYNCBRIDGE, "token", "--user", "ann", address=server, data_dir=folder)
    run = ["env", f"SYNCBRIDGE_TOKEN={token}", sys.executable, "-c", program]

    assert shown.splitlines() == paste(*run, address=server, data_dir=folder)
    assert ["1000 steps before, 2000 now"] == paste(*run, address=server, data_dir=folder)


CURLS = [
    (name, block)
    for name in ("docs/calls.md", "docs/events.md", "docs/tokens.md")
    for block in blocks(name, "sh")
    if "curl" in block
]


@pytest.mark.parametrize(
    ("name", "block"), CURLS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CURLS)]
)
def test_requests_of_the_pages_are_answered(
    name: str, block: str, server: str, folder: Path
) -> None:
    """Each `curl` of a page, in the order of the page, gets an answer that is no error."""
    ours = re.sub(r"(127\.0\.0\.1|localhost):8080", server, block)
    ours = ours.replace(".venv/bin/syncbridge", " ".join(SYNCBRIDGE))
    ours = ours.replace("curl ", "curl --fail-with-body ").replace("wait=30", "wait=0")
    shown = paste("bash", "-eu", "-o", "pipefail", "-c", ours, address=server, data_dir=folder)

    assert name != "docs/tokens.md" or "access_token" in "".join(shown)
    assert name != "docs/calls.md" or "call-12345" in "".join(shown) or "export" in block


def test_every_request_of_the_documents_is_run() -> None:
    """A page with another `curl` is added above, or has a test of its own."""
    own = {
        "docs/voice.md",  # test_voice_try.py
        "docs/operations.md",  # of production: an admin's token, test_export.py reads the same path
    }
    pages = [
        str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    ]
    with_curl = {page for page in pages if any("curl" in block for block in blocks(page, "sh"))}

    assert with_curl == {name for name, _ in CURLS} | own
