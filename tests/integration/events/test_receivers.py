"""The receivers in `examples/receivers`: they take what is signed, once, and refuse the rest."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.redis_servers import free_port
from support.server_kit import bare_environment
from support.source_tree import ROOT
from syncbridge.events.endpoints import Endpoint, headers_of
from syncbridge_server.http.endpoints import new_secret

FOLDER = ROOT / "examples/receivers"
SECONDS = 60.0
BODY = b'{"id":"t-1-0","type":"session.created","session_id":"S","data":{}}'


def command_of(name: str, tmp_path: Path) -> list[str]:
    """How a receiver is run; skips where its language is not installed."""
    if name.endswith(".py"):
        return [sys.executable, str(FOLDER / name)]
    tool = shutil.which("node" if name.endswith(".mjs") else "go", path=_path())
    if tool is None:
        pytest.skip(f"nothing here runs {name}")
    if name.endswith(".mjs"):
        return [tool, str(FOLDER / name)]
    built = tmp_path / "receiver"
    subprocess.run([tool, "build", "-o", built, FOLDER / name], check=True)
    return [str(built)]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/go/bin"])


@contextmanager
def running(command: list[str], secret: str, log: Path) -> Iterator[str]:
    """A receiver, and its URL."""
    port = free_port()
    environment = {**bare_environment(), "WEBHOOK_SECRET": secret}
    with log.open("wb") as output:
        popen = subprocess.Popen([*command, str(port)], env=environment, stdout=output)
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"
    finally:
        popen.terminate()
        popen.wait()


@pytest.mark.parametrize("name", ["receiver.py", "receiver.mjs", "receiver.go"])
def test_a_receiver_checks_signatures(name: str, tmp_path: Path) -> None:
    """By either of two secrets, and within five minutes; what comes twice is handled once."""
    ours, other = new_secret(), new_secret()
    log = tmp_path / "log"
    now = time.time()

    def signed(at: float, *secrets: str) -> dict[str, str]:
        return headers_of(Endpoint("e", "", list(secrets)), "t-1-0", BODY, at)

    def post(url: str, headers: dict[str, str], body: bytes = BODY) -> int:
        return httpx.post(url, content=body, headers=headers, trust_env=False).status_code

    with running(command_of(name, tmp_path), ours, log) as url:
        good = [post(url, signed(now, ours)), post(url, signed(now, other, ours))]
        bad = [
            post(url, signed(now, other)),
            post(url, signed(now - 400, ours)),
            post(url, signed(now, ours), BODY + b" "),
            post(url, {}),
        ]

    assert ([204, 204], [401] * 4) == (good, bad)
    assert ["session.created S"] == log.read_text().splitlines()
