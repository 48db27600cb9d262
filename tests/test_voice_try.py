"""The voice call to try in docs/voice.md, line by line: three terminals and `curl`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.redis_servers import free_port
from support.source_tree import ROOT

SECTION = re.compile(r"^## Try it\n(.*?)^## ", re.M | re.S)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
SECONDS = 40
PLAIN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("SYNCBRIDGE_", "JWT_", "REDIS_", "SERVER_", "RTK_", "WORKER_"))
}


def terminals(folder: Path) -> list[str]:
    """What is pasted into each terminal, with this Python and with ports that are free."""
    found = SECTION.search((ROOT / "docs" / "voice.md").read_text("utf-8"))
    assert found is not None
    ours, theirs = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = folder / "syncbridge"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m syncbridge_server "$@"\n')
    command.chmod(0o755)
    there = {
        "127.0.0.1:8080": ours,
        "127.0.0.1:8090": theirs,
        ".venv/bin/syncbridge rtk-sim": f"{command} rtk-sim --bind {theirs}",
        ".venv/bin/syncbridge dev": f"{command} dev --addr {ours}",
    }
    blocks = BLOCK.findall(found[1])
    for printed, replaced in there.items():
        assert any(printed in block for block in blocks), printed
        blocks = [block.replace(printed, replaced) for block in blocks]
    return blocks


@contextmanager
def terminal(pasted: str, folder: Path, says: str) -> Iterator[None]:
    """A shell in which a server runs that has said something; interrupted in the end."""
    log = folder / f"{says.split()[0].strip('=')}.log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", pasted],
            cwd=folder,
            env=PLAIN,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while says not in log.read_text():
            assert shell.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        os.killpg(shell.pid, signal.SIGINT)
        try:
            shell.wait(SECONDS)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)


def paste(pasted: str, folder: Path) -> str:
    """What a terminal shows."""
    done = subprocess.run(
        ["bash", "-eu", "-c", pasted],
        cwd=folder,
        env=PLAIN,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(look: Callable[[], str], wanted: str, shown: str = "") -> str:
    """What is shown, as soon as something stands in it."""
    deadline = time.monotonic() + SECONDS
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        shown = look()
    return shown


@pytest.mark.slow
def test_the_voice_call_to_try(tmp_path: Path) -> None:
    """She is there when she has joined, and not any more when she has left."""
    provider, server, user = terminals(tmp_path)
    show = user.strip().splitlines()[-1]
    leave = user.replace('\\"join\\"', '\\"leave\\"')
    with terminal(provider, tmp_path, "RTK_SECRET_KEY="):
        with terminal(server, tmp_path, "listening on http://"):
            shown = paste(user, tmp_path)
            shown = until(lambda: paste(show, tmp_path), '"userId":"ann"', shown)
            paste(leave, tmp_path)
            gone = until(lambda: paste(show, tmp_path), '"participants":[]')

    assert '"channelId":"lobby"' in shown
    assert '"state":"empty"' in gone
