"""The page at /docs in a real browser: it runs under its own policy and shows every route."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from support.server_kit import Process, mint, new_session, server_process
from support.source_tree import ROOT

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
    assert len(expected) == dom.count("<summary>Example</summary>")
    assert 'name="session_id"' in dom
    assert api["info"]["version"] in dom


SOCKET = """
const { chromium } = require(process.argv[1]);
(async () => {
  const browser = await chromium.launch({
    executablePath: process.argv[2], args: ["--no-sandbox", "--disable-gpu"],
  });
  const page = await browser.newPage();
  page.setDefaultTimeout(60000);
  const wrong = [];
  page.on("console", (line) => line.type() === "error" && wrong.push(line.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  await page.goto(process.argv[3]);
  await page.locator("#token").fill(process.argv[4]);
  const form = page.locator("#socket");
  await form.getByRole("button", { name: "Connect" }).click();
  await page.locator(".heard", { hasText: "connected" }).waitFor();
  await form.getByRole("button", { name: "Send message" }).click();
  await page.locator(".heard", { hasText: '"session_id"' }).waitFor();
  await form.locator("select").selectOption("STATE_UPDATE_in");
  await form.getByRole("button", { name: "Disconnect" }).click();
  await page.locator(".heard", { hasText: "closed: 1000" }).waitFor();
  const operation = page.locator("#post_session_snapshot");
  await operation.locator("summary").first().click();
  await operation.getByText("Body: fields").click();
  const fields = await operation.locator(".fields").first().textContent();
  const example = await operation.locator(".example").textContent();
  const heard = await page.locator(".heard").textContent();
  console.log(JSON.stringify({ heard, fields, example, wrong }));
  await browser.close();
})();
"""
PLAYWRIGHT = ROOT / "clients" / "js" / "node_modules" / "playwright-core"


def test_the_page_speaks_with_the_socket(browser: str, server: Process) -> None:
    """AUTH with the page's token is answered; fields have types, and whether they are needed."""
    if shutil.which("node") is None or not PLAYWRIGHT.exists():
        pytest.skip("NOT RUN: node and `make client-js` are needed")
    command = ["node", "-e", SOCKET, str(PLAYWRIGHT), shutil.which(browser) or browser]
    done = subprocess.run(
        [*command, f"{server.url}/docs", mint(new_session())],
        capture_output=True,
        timeout=4 * SECONDS,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert found["wrong"] == []
    assert '"type":8' in found["heard"].replace(" ", "")
    assert "state_datarequired" in re.sub("object", "", found["fields"])
    assert "curl -X POST" in found["example"]
    assert '"state_data"' in found["example"]
