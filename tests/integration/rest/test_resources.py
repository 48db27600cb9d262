"""Every path of the whole application: what it takes, base paths, and copies that are current."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from integration.rest.test_cors import WAYS, reached
from support.listener.ws_raw import open_plain
from support.server_kit import Node, bearer, mint, new_session, running_node
from syncbridge.identity import Role

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
LEAST_PATHS = 40


def described(node: Node) -> dict[str, set[str]]:
    """A path for each route, with the methods of all routes that have it."""
    found: dict[str, set[str]] = {}
    session = new_session()
    for route in node.server.routes:
        if isinstance(route, Route):
            path = re.sub(r"{[^}]*}", "x", route.path.replace("{session_id}", session))
            found[path] = found.get(path, set()) | (route.methods or set())
    return found


@pytest.mark.parametrize("way", WAYS)
async def test_allow_is_true_everywhere(way: str, redis_url: str, tmp_path: Path) -> None:
    """What OPTIONS names is answered otherwise than 405, and nothing else is."""
    token = bearer(mint("root", Role.ADMIN))
    wrong: list[Any] = []
    async with reached(way, redis_url, tmp_path, rate_limit_enabled=False) as (node, http):
        paths = described(node)
        for path, methods in paths.items():
            options = await http.options(path)
            allow = options.headers["allow"].split(", ")
            if options.status_code != 204 or not methods <= set(allow) or allow != sorted(allow):
                wrong.append((path, options.status_code, allow))
            for method in METHODS:
                answer = await http.request(method, path, headers=token)
                if (answer.status_code == 405) is (method in allow):
                    wrong.append((method, path, answer.status_code, allow))
                elif answer.status_code == 405 and answer.headers["allow"].split(", ") != allow:
                    wrong.append((method, path, answer.headers["allow"], allow))
                elif method == "HEAD" and answer.content:
                    wrong.append((method, path, answer.content))

    assert [] == wrong
    assert len(paths) >= LEAST_PATHS


@pytest.mark.parametrize("way", WAYS)
async def test_copies_that_are_current(way: str, redis_url: str, tmp_path: Path) -> None:
    """`*`, lists, weak tags and several lines name a copy; another tag and half of one do not."""
    session, ann = new_session(), bearer(mint("ann"))
    async with reached(way, redis_url, tmp_path) as (_, http):
        state = {"session_id": session, "user_id": "ann", "state_data": {"a": 1}}
        await http.post("/session/snapshot", json=state, headers=ann)
        for path in (f"/session/{session}", "/openapi.json", "/docs"):
            tag = (await http.get(path, headers=ann)).headers["etag"].removeprefix("W/")
            for lines in ([tag], ["*"], ['"x"', tag], [f'"x", W/{tag}'], ['"a"', '"b", "c"', tag]):
                fields = [*ann.items(), *(("If-None-Match", line) for line in lines)]
                assert 304 == (await http.get(path, headers=fields)).status_code, (path, lines)
                assert 304 == (await http.head(path, headers=fields)).status_code, (path, lines)
            for lines in (['"x"'], ['"x"', f'"y{tag[1:]}'], [""]):
                fields = [*ann.items(), *(("If-None-Match", line) for line in lines)]
                assert 200 == (await http.get(path, headers=fields)).status_code, (path, lines)
        missing = await http.get(f"/session/{new_session()}", headers={**ann, "If-None-Match": "*"})
        assert 404 == missing.status_code


@pytest.mark.parametrize("root", ["/sync", "sync/", "/a/b/"])
async def test_a_base_path(redis_url: str, root: str) -> None:
    """Documents, pages, redirects and WebSockets are right whether or not a proxy strips it."""
    base = f"/{root.strip('/')}"
    async with running_node(redis_url, http_root_path=root) as node, node.http() as http:
        for prefix in ("", base):
            way = (await http.get(f"{prefix}/")).json()
            api = (await http.get(f"{prefix}/openapi.json")).json()
            page = (await http.get(f"{prefix}/docs")).text
            slash = await http.get(f"{prefix}/docs/?a=b")
            assert {base} == {path.removesuffix(WAY[name]) for name, path in way.items()}
            assert [{"url": base}] == api["servers"]
            for link in re.findall(r'(?:href|src)="([^"]*)"', page):
                at = httpx.URL(f"http://shown{base}/docs").join(link)
                assert at.path.startswith(base + "/")
                assert 200 == (await http.get(at.path)).status_code
            assert (308, f"{base}/docs?a=b") == (slash.status_code, slash.headers["location"])
            answer = await open_plain(node.port, path=f"{prefix}/ws")
            assert 101 == answer.status
            await answer.open.link.abort()
        assert 404 == (await http.get("/other/docs")).status_code


WAY = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "messages": "/schemas/messages.json",
    "health": "/health",
    "websocket": "/ws",
}


async def test_the_way_is_shown(redis_url: str) -> None:
    """`GET /` names paths, each of which is there."""
    async with running_node(redis_url) as node, node.http() as http:
        way = (await http.get("/")).json()
        assert WAY == way
        statuses = {name: (await http.get(path)).status_code for name, path in way.items()}

    assert 426 == statuses.pop("websocket")
    assert {200} == set(statuses.values())
