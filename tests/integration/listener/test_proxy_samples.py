"""The proxies of `deploy/proxies` in front of a server: sockets, requests, addresses."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from support.redis_servers import free_port
from support.server_kit import bearer, mint, new_session, running_node
from support.source_tree import ROOT
from support.ws_client import Device

SECONDS = 15.0
SPOOFED = [(b"x-forwarded-for", b"203.0.113.9")]
HIDDEN = (
    *("/metrics", "/admin/metrics/all", "/admin", "//metrics"),
    *("/%6detrics", "/%61dmin/metrics/all", "/metrics%2F", "/metric%73"),
)
"""Paths of operators, in spellings that the server takes, too."""
NGINX = """daemon off; error_log stderr; pid {folder}/pid; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {sample};
}}
"""


@contextmanager
def proxy(kind: str, folder: Path, backend: int) -> Iterator[int]:
    """A proxy with its sample, in front of a port of this machine; yields its own port."""
    program = shutil.which(kind) or shutil.which(kind, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed: Debian has it")
    port = free_port()
    name = "nginx.conf" if kind == "nginx" else "haproxy.cfg"
    sample = (ROOT / "deploy/proxies" / name).read_text("utf-8")
    for before, after in (("127.0.0.1:8080", f"127.0.0.1:{backend}"), ("8000", str(port))):
        assert before in sample
        sample = sample.replace(before, after)
    path = folder / name
    path.write_text(sample, "utf-8")
    command = [program, "-db", "-f", str(path)]
    if kind == "nginx":
        main = folder / "main.conf"
        main.write_text(NGINX.format(folder=folder, sample=path), "utf-8")
        command = [program, "-c", str(main), "-e", "stderr", "-p", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        process.kill()
        process.wait()


async def until_ready(http: httpx.AsyncClient) -> None:
    """Wait until the proxy answers for a server that is ready. Raises TooSlowError."""
    with trio.fail_after(SECONDS):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get("/health/ready")).status_code == 200:
                    return
            await trio.sleep(0.02)


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_a_sample_serves(kind: str, tmp_path: Path, redis_url: str) -> None:
    """Sockets and requests go through; operators' paths do not; no client chooses its address."""
    session = new_session()
    async with running_node(
        redis_url, trusted_proxies="127.0.0.1", unauthenticated_per_address=1
    ) as node:
        with proxy(kind, tmp_path, node.port) as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                await until_ready(http)
                async with await Device.open(port, headers=SPOOFED) as device:
                    await device.auth(mint("ann"), "laptop", session_id=session)
                    await device.set("a", 1)
                    body = {"session_id": session, "user_id": "ann", "version": 1}
                    written = await http.post(
                        "/session/snapshot",
                        json=body | {"state_data": {"a": 1, "b": 2}},
                        headers=bearer(mint("ann")),
                    )
                    update = await device.receive(5)
                    clients = {one.client for one in node.server.gateway.registry}
                hidden = [
                    (await http.get(f"http://127.0.0.1:{port}{path}")).status_code
                    for path in HIDDEN
                ]
                missing = (await http.get("/metricsandmore")).json()

    assert written.is_success, written.text
    assert {"b": 2} == update["payload"]["changes"]
    assert {"127.0.0.1"} == clients
    assert [404] * len(HIDDEN) == hidden
    assert "urn:syncbridge:error:not_found" == missing["type"]
