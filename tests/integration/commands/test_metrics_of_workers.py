"""One scrape of a server with workers tells of all of them, at an address of its own."""

import re
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import httpx

from support.redis_servers import free_port
from support.server_kit import bearer, mint, server_process

WORKERS = 2
WRITES = 24


def total(text: str, name: str) -> tuple[float, int]:
    """The sum over the workers of what a name starts, and how many of them have some of it."""
    found = re.findall(rf'^{re.escape(name)}[{{,].*?worker="(\d)".* (\S+)$', text, re.M)
    return sum(float(value) for _, value in found), len({w for w, v in found if float(v)})


def until_up(metrics: str) -> str:
    """The metrics once every worker answers; AssertionError after 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            text = httpx.get(metrics, timeout=5).text
        except httpx.HTTPError:
            text = ""
        if len(re.findall(r"^syncbridge_worker_up\{.*\} 1\.0$", text, re.M)) == WORKERS:
            return text
        time.sleep(0.05)
    raise AssertionError("the workers did not start")


def test_one_scrape_of_all_workers(tmp_path: Path, redis_url: str) -> None:
    """Sums are what was done, each worker has some of it, and promtool has nothing to say."""
    port, admin = free_port(), free_port()
    addresses = {
        "SERVER_ADDR": f"127.0.0.1:{port}",
        "SYNCBRIDGE_ADMIN_ADDR": f"127.0.0.1:{admin}",
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    }
    metrics = f"http://127.0.0.1:{admin}/metrics"
    arguments = ("serve", "--workers", str(WORKERS))
    with server_process(tmp_path, redis_url, *arguments, **addresses):
        until_up(metrics)
        for number in range(WRITES):
            session = str(uuid.uuid4())
            body = {
                "user_id": "ann",
                "device_id": "d",
                "session_id": session,
                "state_data": {"n": number},
            }
            done = httpx.post(
                f"http://127.0.0.1:{port}/session/snapshot", json=body, headers=bearer(mint("ann"))
            )
            assert done.is_success, done.text
        text = httpx.get(metrics, timeout=5).text
        public = {
            path: httpx.get(f"http://127.0.0.1:{port}{path}").status_code
            for path in ("/metrics", "/admin/metrics/all", "/health/live", "/health/ready")
        }
        apart = {
            path: httpx.get(f"http://127.0.0.1:{admin}{path}").status_code
            for path in ("/metrics", "/admin/metrics/all", "/health/live", "/session/state", "/ws")
        }

    posted = total(text, "syncbridge_http_requests_total")
    commits, writers = total(text, "syncbridge_commits_total")
    timed, _ = total(text, "syncbridge_commit_seconds_count")
    assert posted[0] >= WRITES
    assert (WRITES, WRITES) == (commits, timed)
    assert 1 <= writers <= WORKERS
    assert public == {
        "/metrics": 404, "/admin/metrics/all": 404, "/health/live": 200, "/health/ready": 200,
    }  # fmt: skip
    assert apart == {
        "/metrics": 200, "/admin/metrics/all": 401, "/health/live": 200,
        "/session/state": 401, "/ws": 404,
    }  # fmt: skip
    lint(text)


def lint(text: str) -> None:
    """`promtool check metrics`, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
        )
        assert (0, "") == (done.returncode, done.stdout + done.stderr)
