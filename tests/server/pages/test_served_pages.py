"""The demo, the dashboard and their assets as they are served: whole, kept, and under a policy."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from support.source_tree import text
from syncbridge.close_codes import CloseCode
from syncbridge_server.http.pages import POLICY, Built, PageRoutes

MEDIA = b'<meta name="media" content="">'
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PROVIDER = "http://127.0.0.1:9"


def build(folder: Path, demo: bytes = b"demo") -> None:
    """What the build leaves, all at once."""
    made = folder / "made"
    for name, body in {
        "index.html": MEDIA + demo,
        "admin/index.html": b"dashboard",
        "assets/a-1.js": b"1",
        "assets/a-1.css": b"{}",
        "assets/a-1.map": b"not served",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(body)
    shutil.rmtree(folder / "built", ignore_errors=True)
    made.rename(folder / "built")


def client(folder: Path, *, dev: bool = True, voice_url: str = "") -> httpx.AsyncClient:
    routes = PageRoutes(dev, voice_url, Built(folder)).routes()
    transport = httpx.ASGITransport(Starlette(routes=routes), root_path="")
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=HTML)


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A development server whose pages are built."""
    build(tmp_path)
    async with client(tmp_path) as made:
        yield made


async def test_programs_get_paths_and_people_a_page(http: httpx.AsyncClient) -> None:
    """By what they accept; caches keep the two apart."""
    shown = await http.get("/")
    told = await http.get("/", headers={"Accept": "*/*"})

    assert "demo" in shown.text
    assert "/docs" == told.json()["docs"]
    assert ("Accept", "Accept") == (shown.headers["vary"], told.headers["vary"])


async def test_a_page_is_checked_and_an_asset_is_kept(http: httpx.AsyncClient) -> None:
    """A page has an entity tag; an asset's name changes with its content."""
    for path, kept in {
        "/": "no-cache",
        "/admin/": "no-cache",
        "/assets/a-1.js": "public, max-age=31536000, immutable",
    }.items():
        first = await http.get(path)
        again = await http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (200, kept) == (first.status_code, first.headers["cache-control"])
        assert (304, b"") == (again.status_code, again.content)
        assert POLICY == first.headers["content-security-policy"]


async def test_types_are_told_and_what_has_none_is_not_served(http: httpx.AsyncClient) -> None:
    """A path out of the folder leads nowhere."""
    style = await http.get("/assets/a-1.css")
    others = ["/assets/a-1.map", "/assets/none.js", "/assets/..%2Findex.html"]

    assert "text/css; charset=utf-8" == style.headers["content-type"]
    assert [404] * 3 == [(await http.get(path)).status_code for path in others]


async def test_the_dashboard_is_below_its_slash(http: httpx.AsyncClient) -> None:
    """The addresses in it are relative."""
    answer = await http.get("/admin")

    assert (308, "/admin/") == (answer.status_code, answer.headers["location"])
    assert "dashboard" == (await http.get("/admin/")).text


async def test_a_new_build_is_seen(tmp_path: Path, http: httpx.AsyncClient) -> None:
    """Without a restart."""
    before = await http.get("/")
    build(tmp_path, b"another")
    after = await http.get("/")

    assert "another" in after.text
    assert before.headers["etag"] != after.headers["etag"]


async def test_the_demo_may_connect_with_a_provider_on_this_machine(tmp_path: Path) -> None:
    """Its page says where; with any other provider it does not connect itself."""
    build(tmp_path)
    async with client(tmp_path, voice_url=PROVIDER) as http:
        near = await http.get("/")
        dashboard = await http.get("/admin/")
    async with client(tmp_path, voice_url="https://provider.example") as http:
        far = await http.get("/")

    assert 'content="ws://127.0.0.1:9/media"' in near.text
    assert "connect-src 'self' ws://127.0.0.1:9/media;" in near.headers["content-security-policy"]
    assert POLICY == dashboard.headers["content-security-policy"]
    assert (MEDIA.decode() in far.text, POLICY) == (True, far.headers["content-security-policy"])


async def test_outside_of_development_a_line_says_what_this_is(tmp_path: Path) -> None:
    """And where the documents are."""
    build(tmp_path)
    async with client(tmp_path, dev=False) as http:
        answer = await http.get("/")

    assert 1 == answer.text.count("<p>")
    assert "SyncBridge keeps the live state" in answer.text
    assert '<a href="docs">' in answer.text
    assert "demo" not in answer.text


async def test_without_pages_it_is_said_how_far_they_are(tmp_path: Path) -> None:
    """While they are built the page comes back by itself; a failed build ends that."""
    async with client(tmp_path) as http:
        nothing = await http.get("/")
        (tmp_path / "progress").write_text("compiling <now>\n")
        building = await http.get("/admin/")
        (tmp_path / "progress").write_text("their build failed, and `make pages` says why\n")
        failed = await http.get("/")
        asset = await http.get("/assets/a-1.js")

    assert "`make pages` builds them" in nothing.text
    assert "compiling &lt;now&gt;" in building.text
    assert 'href="../docs/docs.css"' in building.text
    assert "2" == building.headers["refresh"]
    assert ["refresh" in one.headers for one in (nothing, failed)] == [False, False]
    assert "failed" in failed.text
    assert 404 == asset.status_code


def test_the_source_has_the_place_for_the_provider() -> None:
    """What the server fills in stands in the page's source as it expects it."""
    assert 'name="media" content=""' in text(Path("pages/index.html"))


def test_the_dashboard_names_every_close_code() -> None:
    """Also those that a server seldom sends."""
    named = re.findall(r'"(\d{4})": "', text(Path("pages/admin/views/overview.tsx")))

    assert {str(int(code)) for code in CloseCode} <= set(named)
