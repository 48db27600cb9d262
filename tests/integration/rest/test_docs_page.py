"""The page at /docs in a real browser: it runs under its own policy and shows every route."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from support.server_kit import Process, server_process

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60


@pytest.fixture
def browser() -> str:
    """A browser's name. It is a program and not a Python package, so that `make test` can be run
    without it; where SYNCBRIDGE_TEST_BROWSER is set, as in CI, it has to be there."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and not os.environ.get("SYNCBRIDGE_TEST_BROWSER"):
        pytest.skip("there is no Chromium here; CI has one")
    assert found is not None, "Chromium is needed"
    return found


@pytest.fixture
def server(redis_url: str, tmp_path: Path) -> Iterator[Process]:
    with server_process(tmp_path, redis_url) as process:
        yield process


def rendered(browser: str, url: str, profile: Path) -> str:
    """The page's document after its scripts have run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command = [
        browser,
        *flags,
        f"--user-data-dir={profile}",
        "--virtual-time-budget=10000",
        "--dump-dom",
        url,
    ]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    return done.stdout.decode()


def test_the_page_shows_every_route(browser: str, server: Process, tmp_path: Path) -> None:
    """One entry an operation, with its method, path, parameters and a form to try it."""
    api = httpx.get(f"{server.url}/openapi.json").json()
    dom = rendered(browser, f"{server.url}/docs", tmp_path / "profile")
    expected = [(method.upper(), path) for path, item in api["paths"].items() for method in item]
    shown = re.findall(r'<span class="method \w+">(\w+)</span><code>([^<]+)</code>', dom)

    assert sorted(expected) == sorted((m, unescape(path)) for m, path in shown)
    assert len(expected) == dom.count("<form>") == dom.count(">Send</button>")
    assert 'name="session_id"' in dom
    assert api["info"]["version"] in dom
