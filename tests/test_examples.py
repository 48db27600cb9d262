"""What the README tells a newcomer to paste, done as they would do it: as processes, in order."""

import os
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """`syncbridge dev` on a free port; its address."""
    address = f"127.0.0.1:{free_port()}"
    command = [*SYNCBRIDGE, "dev", "--addr", address]
    with subprocess.Popen(command, cwd=tmp_path, env=surroundings(tmp_path)) as process:
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


def test_two_devices_see_the_same(server: str, tmp_path: Path) -> None:
    """The example prints what the README shows, and goes on from there when it is repeated."""
    [token] = paste(*SYNCBRIDGE, "token", "--user", "demo", address=server, data_dir=tmp_path)
    example = [sys.executable, str(ROOT / "examples" / "two_devices.py"), token]
    first = paste(*example, address=server, data_dir=tmp_path)
    second = paste(*example, address=server, data_dir=tmp_path)

    shown = "\n".join(first).replace(server, "127.0.0.1:8080")

    assert f"```text\n{shown}\n```" in (ROOT / "README.md").read_text("utf-8")
    assert second[:4] == [
        "phone: joined at version 1, state {'progress': 10}",
        "laptop: joined at version 1, state {'progress': 10}",
        "phone: version 2: {'progress': 20}",
        "laptop: version 2: {'progress': 20}",
    ]
