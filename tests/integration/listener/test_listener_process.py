"""Signals, workers and descriptor limits, on real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from support.listener.ws_raw import open_plain

APP = str(Path(__file__).parents[2] / "support" / "listener" / "listener_app.py")
DEADLINE = 20.0


@contextmanager
def running(*mode: str, **env: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A process of `listener_app.py` and its port; killed in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, APP, *mode], stdout=subprocess.PIPE, env={**os.environ, **env}
    )
    assert process.stdout is not None
    try:
        with process.stdout as lines:
            yield process, int(lines.readline())
    finally:
        process.kill()
        process.wait()


def ask_pid(port: int) -> int:
    """The pid that answers an HTTP request."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        sock.settimeout(DEADLINE)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while part := sock.recv(4096):
            answer += part
    return int(answer.rpartition(b"\r\n\r\n")[2])


def eventually(found: Callable[[], bool]) -> bool:
    """Try again until it is true; False when the deadline has passed."""
    end = time.monotonic() + DEADLINE
    while not found():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_closes_open_sockets_and_exits_with_0(number: signal.Signals) -> None:
    """The client is told 1012, then the process ends in order."""
    with running("single") as (process, port):
        client = (await open_plain(port)).open
        process.send_signal(number)

        assert (1012, "server restarts") == await client.closing()
        assert 0 == await trio.to_thread.run_sync(process.wait, DEADLINE)
        await client.link.abort()


async def test_a_second_signal_does_not_wait() -> None:
    """A stop that hangs is cut short by another signal, and the status says so."""
    with running("single", HANG="1") as (process, port):
        client = (await open_plain(port)).open
        process.send_signal(signal.SIGTERM)
        while True:  # until it has stopped accepting
            try:
                (await trio.open_tcp_stream("127.0.0.1", port)).socket.close()
            except OSError:
                break
        process.send_signal(signal.SIGTERM)

        assert 1 == await trio.to_thread.run_sync(process.wait, DEADLINE)
        await client.link.abort()


def test_without_descriptors_the_silent_give_way() -> None:
    """At its descriptor limit the process does not end, and serves whoever says something."""
    with running("limited", "40") as (process, port):
        held = [socket.create_connection(("127.0.0.1", port), DEADLINE) for _ in range(60)]
        answers = [ask_pid(port) for _ in range(3)]
        for sock in held:
            sock.close()

        assert [process.pid] * 3 == answers
        assert process.pid == ask_pid(port)


def test_a_killed_worker_is_replaced() -> None:
    """After kill -9 another process answers on the same port, and a signal ends all with 0."""
    with running("workers", "1") as (process, port):
        first = ask_pid(port)
        os.kill(first, signal.SIGKILL)
        second = ask_pid(port)
        process.terminate()

        assert first != second
        assert process.pid not in (first, second)
        assert 0 == process.wait(DEADLINE)


def test_workers_share_the_port() -> None:
    """Two workers both get connections of one port."""
    with running("workers", "2") as (process, port):
        seen: set[int] = set()

        def both() -> bool:
            seen.add(ask_pid(port))
            return len(seen) == 2

        assert eventually(both)
        process.terminate()
        assert 0 == process.wait(DEADLINE)


def test_workers_that_cannot_start_end_the_supervisor() -> None:
    """Five crashes in a row are enough: status 1, nothing left to restart."""
    with running("workers", "1", WORKER="broken") as (process, _):
        assert 1 == process.wait(DEADLINE)


def test_workers_end_when_their_supervisor_is_killed() -> None:
    """A worker reads the end of its lifeline and stops by itself."""
    with running("workers", "1") as (process, port):
        worker = ask_pid(port)
        process.kill()
        process.wait()

        assert eventually(lambda: gone(worker))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
