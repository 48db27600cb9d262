"""Signals to whole servers: what is read again, and that none ends a process without a drain."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from support.listener.http_site import Peer, get
from support.listener.listener_site import certificate
from support.listener.tls_client import open_tls_stream
from support.server_kit import START_SECONDS, server_process

FIRST_WORDS = "tls_certificates_loaded"
KEPT_WORDS = "tls_reload_failed"
HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def presented(port: int) -> bytes:
    """The certificate of a new connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


def on_disk(folder: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert((folder / "certificate.pem").read_text())


async def logged(log: Path, line: str, times: int) -> None:
    """Wait until the log has a line so many times."""
    with trio.fail_after(30):
        while (await trio.Path(log).read_text()).count(line) < times:  # noqa: ASYNC110
            await trio.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
async def test_certificates_are_read_again(tmp_path: Path, redis_url: str, workers: int) -> None:
    """New connections have the new one, open ones go on; a broken file changes nothing."""
    cert, key = certificate(tmp_path)
    variables = {
        "SYNCBRIDGE_TLS_CERT": cert,
        "SYNCBRIDGE_TLS_KEY": key,
        "SYNCBRIDGE_WORKERS": str(workers),
    }
    with server_process(tmp_path, redis_url, **variables) as process:
        await logged(process.log, "listening on https", workers)
        before = on_disk(tmp_path)
        assert before == presented(process.port)
        peer = Peer(await open_tls_stream(process.port, "http/1.1"))
        assert 200 == (await peer.ask(get("/health/live"))).status

        certificate(tmp_path)
        process.popen.send_signal(signal.SIGHUP)
        await logged(process.log, FIRST_WORDS, workers)
        after = on_disk(tmp_path)
        assert before != after
        assert {after} == {presented(process.port) for _ in range(8)}
        assert 200 == (await peer.ask(get("/health/live"))).status

        await trio.Path(key).write_text("not a key")
        process.popen.send_signal(signal.SIGHUP)
        await logged(process.log, KEPT_WORDS, workers)
        assert {after} == {presented(process.port) for _ in range(8)}
        assert 200 == (await peer.ask(get("/health/live"))).status
        await peer.hang_up()
        assert 0 == await trio.to_thread.run_sync(process.terminate)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_no_other_signal_ends_a_server(tmp_path: Path, redis_url: str, workers: str) -> None:
    """A connection that was open before them is answered after."""
    with server_process(tmp_path, redis_url, SYNCBRIDGE_WORKERS=workers) as process:
        peer = Peer(await trio.open_tcp_stream("127.0.0.1", process.port))
        assert 200 == (await peer.ask(get("/health/live"))).status
        for number in HARMLESS:
            process.popen.send_signal(number)
        await logged(process.log, "state_policy_not_configured", int(workers))

        assert 200 == (await peer.ask(get("/health/live"))).status
        await peer.hang_up()
        assert 0 == await trio.to_thread.run_sync(process.terminate)


async def test_sigquit_drains(tmp_path: Path, redis_url: str) -> None:
    """As SIGTERM does, with exit code 0."""
    with server_process(tmp_path, redis_url) as process:
        process.popen.send_signal(signal.SIGQUIT)

        assert 0 == await trio.to_thread.run_sync(process.popen.wait, 20)
        assert "draining" in process.log.read_text()


async def test_signals_before_the_server_listens(tmp_path: Path) -> None:
    """A start that is held up by Redis survives them, and follows SIGHUP once it can."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(START_SECONDS)
        process, log = started(tmp_path, silent.getsockname()[1])
        try:
            held, _ = await trio.to_thread.run_sync(silent.accept)
            for number in HARMLESS:
                process.send_signal(number)
            held.close()
            silent.close()
            await logged(log, "state_policy_not_configured", 1)
            assert process.poll() is None
            process.terminate()
            assert 0 == await trio.to_thread.run_sync(process.wait, 20)
        finally:
            process.kill()
            process.wait()


def started(tmp_path: Path, redis_port: int) -> tuple["subprocess.Popen[bytes]", Path]:
    """A server whose Redis is at a port."""
    log = tmp_path / "server.log"
    environment = {
        **os.environ,
        "SERVER_ADDR": "127.0.0.1:0",
        "REDIS_ADDR": f"redis://127.0.0.1:{redis_port}",
        "JWT_SECRET": "a" * 40,
        "JWT_REFRESH_SECRET": "b" * 40,
        "SYNCBRIDGE_DATA_DIR": str(tmp_path / "data"),
        "SYNCBRIDGE_LOG_FORMAT": "console",
    }
    command = [sys.executable, "-m", "syncbridge_server", "serve"]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output), log
