"""A real LiveKit server of a test's own, on loopback: started, killed, stopped for a while.

    with LiveKitServer(webhooks=url) as server:
        ...

The binary is built from the Go module proxy once and kept (`scripts/livekit_server.sh`), or named
by SYNCBRIDGE_LIVEKIT_SERVER. Without one, and without Go, the tests that need it are skipped.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from support.redis_servers import free_port

KEY = "devkey"
SECRET = "a-secret-of-livekit-of-32-bytes-or-more"
SCRIPT = Path(__file__).parents[3] / "scripts" / "livekit_server.sh"
START_S = 60.0
BUILD_S = 1800.0
PORTS = 3
"""Of the API, and of the media over TCP and UDP, in a row."""


@cache
def binary(what: str = "server") -> str:
    """Where the server, or the `recorder`, is. Skips the test where it cannot be had."""
    named = os.environ.get("SYNCBRIDGE_LIVEKIT_SERVER") if what == "server" else ""
    if named:
        return named
    command = ["bash", str(SCRIPT), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S)
    if done.returncode == 3 and shutil.which("go") is None:
        pytest.skip(f"NOT RUN: LiveKit's {what} is not here, and there is no Go to build it with")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class LiveKitServer:
    """One server process; the same address after a restart.

    Args:
        webhooks: where it reports to; empty: nowhere.
        auto_create: whether a token makes its room. live: whether lists are asked of the nodes.
        redis: address of a Redis, host:port; empty: none.
    """

    def __init__(
        self, webhooks: str = "", *, auto_create: bool = True, live: bool = False, redis: str = ""
    ) -> None:
        self.port = free_port(PORTS)
        self._config = _config(self.port, webhooks, auto_create, live, redis)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkdtemp(prefix="livekit-")) / "log"

    @property
    def url(self) -> str:
        """Of the API; clients take it, too."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._log.parent)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), "--config-body", json.dumps(self._config)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, "livekit-server does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: nobody is told anything."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Stop its clock."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """And let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, timeout=1.0).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def recorder(redis: str) -> Iterator[None]:
    """A stand-in for the Egress worker, at work. `redis`: address of LiveKit's Redis."""
    process = subprocess.Popen([binary("recorder"), redis], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"ready" in process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _config(port: int, webhooks: str, auto_create: bool, live: bool, redis: str) -> dict[str, Any]:
    more: dict[str, Any] = {"redis": {"address": redis}} if redis else {}
    if webhooks:
        more["webhook"] = {"api_key": KEY, "urls": [webhooks]}
    return {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "rtc": {
            "tcp_port": port + 1,
            "udp_port": port + 2,
            "use_external_ip": False,
            "node_ip": "127.0.0.1",
            "enable_loopback_candidate": True,
        },
        "keys": {KEY: SECRET},
        "logging": {"level": "warn"},
        "room": {"auto_create": auto_create},
        "api": {"enable_psrpc_for_get_list_participants": live},
        **more,
    }
