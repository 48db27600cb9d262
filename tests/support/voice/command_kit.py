"""Commands for operators, run as processes against a server of a test."""

import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import trio

from support.server_kit import ACCESS_SECRET, REFRESH_SECRET
from support.voice.webhook_kit import Site

SECONDS = 30.0


class Result(NamedTuple):
    """What a command did."""

    exit_code: int
    output: str
    error: str


def use_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands sign their own token, with the secrets of the tests' servers."""
    monkeypatch.setenv("JWT_SECRET", ACCESS_SECRET)
    monkeypatch.setenv("JWT_REFRESH_SECRET", REFRESH_SECRET)
    monkeypatch.delenv("SYNCBRIDGE_TOKEN", raising=False)


async def run_command(one: Site, name: str, *arguments: str) -> Result:
    """`syncbridge NAME` in a process of its own, at the first node. Raises TooSlowError."""
    command = [sys.executable, "-m", "syncbridge_server", name, *arguments]
    with trio.fail_after(SECONDS):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            [*command, "--url", one.nodes[0].url],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=dict(os.environ),
        )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())
