"""ApacheBench, a client with a TLS of its own that keeps connections: nothing fails."""

import re
import shutil

import pytest
import trio

from support.listener.http_site import WAYS, answer, http_site

REQUESTS = 2_000


@pytest.mark.skipif(shutil.which("ab") is None, reason="NOT RUN: ab (apache2-utils) is not here")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
async def test_no_request_fails(way: str, version: str) -> None:
    """2,000 on 20 kept connections, over plain TCP, TLS 1.2 and 1.3."""

    async def hello(scope: object, receive: object, send: object) -> None:
        await answer(send, b"hello")

    async with http_site(way, {"/": hello}) as site:
        url = f"{'https' if way == 'tls' else 'http'}://127.0.0.1:{site.port}/"
        secure = ["-f", version] if way == "tls" else []
        command = ["ab", "-k", "-q", "-n", str(REQUESTS), "-c", "20", *secure, url]
        with trio.fail_after(60):
            ran = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    figures = dict(re.findall(r"^([\w -]+requests): +(\d+)", ran.stdout.decode(), re.MULTILINE))

    assert str(REQUESTS) == figures["Complete requests"]
    assert str(REQUESTS) == figures["Keep-Alive requests"]
    assert "0" == figures["Failed requests"]
    assert "Non-2xx" not in ran.stdout.decode()
    assert b"SSL" not in ran.stderr
