"""Whole servers for tests: in this process for speed, or in a process of their own to be killed."""

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from syncbridge.identity import Role
from syncbridge_server.app import Server
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.tokens import Tokens
from syncbridge_server.settings import Settings

ACCESS_SECRET = "an-access-secret-for-tests-of-32-bytes"
REFRESH_SECRET = "a-refresh-secret-for-tests-of-32-bytes"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


def settings(redis_url: str, **values: Any) -> Settings:
    """Settings of a production server on a free port of this machine."""
    defaults: dict[str, Any] = {
        "server_addr": "127.0.0.1:0",
        "redis_addr": redis_url,
        "jwt_secret": ACCESS_SECRET,
        "jwt_refresh_secret": REFRESH_SECRET,
        "access_log": False,
        "drain": 5.0,
        "store_deadline": 8.0,  # a machine that stands still is not what most tests are about
    }
    return Settings(**(defaults | values))


def mint(
    user: str, role: Role = Role.USER, *, session: str = "", device: str = "", ttl: float = 900.0
) -> str:
    """An access token that the servers of this file accept."""
    grant = Grant(user, role, session, device)
    return _tokens().mint_access(grant, time.time(), ttl)[0]


@functools.cache
def _tokens() -> Tokens:
    return build_tokens(settings("unix:///nowhere"))[0]


def new_session() -> str:
    """A session id of its own for each test."""
    return str(uuid.uuid4())


def bearer(token: str) -> dict[str, str]:
    """The header that goes with an HTTP request."""
    return {"Authorization": f"Bearer {token}"}


async def create_session(http: httpx.AsyncClient, user: str = "ann", **state: Any) -> str:
    """Create a session by REST; its id."""
    sid = new_session()
    body = {"session_id": sid, "user_id": user, "device_id": "phone", "state_data": state}
    answer = await http.post("/session/snapshot", json=body)
    assert 201 == answer.status_code, answer.text
    return sid


@dataclass
class Node:
    """A server in this process. `stop` begins a graceful stop; `protobuf`: what devices speak."""

    server: Server
    port: int
    stop: trio.Event
    protobuf: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=10.0)


@asynccontextmanager
async def running_node(redis_url: str, **values: Any) -> AsyncIterator[Node]:
    """A whole server on a real socket, in this test's event loop."""
    clock = values.pop("voice_clock", time.time)
    config = settings(redis_url, **values)
    async with (
        Server.open(config, redis_url, voice_clock=clock) as server,
        trio.open_nursery() as nursery,
    ):
        stop = trio.Event()
        urls: list[str] = await nursery.start(run_server, server, stop)
        yield Node(server, int(urls[0].rpartition(":")[2]), stop)
        nursery.cancel_scope.cancel()


async def run_server(
    server: Server, stop: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await server.run(stop.wait, task_status=task_status)


@dataclass
class Process:
    """A server in a process of its own."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL: nothing is said to anybody."""
        self.popen.kill()
        self.popen.wait(STOP_SECONDS)

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(STOP_SECONDS)


def bare_environment() -> dict[str, str]:
    """This process's variables without settings of the server, or of the tests."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SYNCBRIDGE_", "REDIS_"))}


def _environment(tmp_path: Path, redis_url: str, variables: dict[str, str]) -> dict[str, str]:
    return {
        **bare_environment(),
        "SERVER_ADDR": "127.0.0.1:0",
        "REDIS_ADDR": redis_url,
        "JWT_SECRET": ACCESS_SECRET,
        "JWT_REFRESH_SECRET": REFRESH_SECRET,
        "SYNCBRIDGE_LOG_FORMAT": "console",
        "SYNCBRIDGE_DATA_DIR": str(tmp_path / "data"),
        "PYTHONWARNINGS": "default",
        **variables,
    }


def serve_once(
    tmp_path: Path, redis_url: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`syncbridge serve` that is expected to refuse its start; returns how it ended."""
    return subprocess.run(
        [sys.executable, "-m", "syncbridge_server", "serve"],
        env=_environment(tmp_path, redis_url, variables),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@contextmanager
def server_process(
    tmp_path: Path,
    redis_url: str,
    *arguments: str,
    within: Sequence[str] = (),
    **variables: str,
) -> Iterator[Process]:
    """`syncbridge serve` in a process of its own; waits until it listens, ends it afterwards.

    Args:
        within: a command that runs another one, given after it.
    """
    log = tmp_path / f"server-{uuid.uuid4().hex[:8]}.log"
    environment = _environment(tmp_path, redis_url, variables)
    command = [*within, sys.executable, "-m", "syncbridge_server", *(arguments or ("serve",))]
    with log.open("wb") as output:
        popen = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield Process(popen, _wait_for_port(popen, log), log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            popen.terminate()
        try:
            popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def _wait_for_port(popen: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(r"listening on https?://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        if popen.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")
