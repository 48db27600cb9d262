"""The description of the HTTP interface: complete, well formed, and made from the types in use."""

import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from jsonschema_rs import validator_for
from starlette.routing import Route

from support.server_kit import Node, running_node
from syncbridge_server.openapi.describe import Answer, describe
from syncbridge_server.openapi.document import document, operations, undescribed

UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        yield client


async def test_every_route_is_described_and_every_description_has_a_route(
    node: Node, http: httpx.AsyncClient
) -> None:
    """What the application routes and what it describes are the same paths and methods."""
    api = (await http.get("/openapi.json")).json()
    routes = [r for r in node.server.routes if isinstance(r, Route) and r.include_in_schema]
    routed = {
        (re.sub(r":\w+}", "}", r.path), method.lower())
        for r in routes
        for method in (r.methods or {"GET"}) - {"HEAD"}
    }

    assert [] == undescribed(routes)
    assert routed == {(path, method) for path, item in api["paths"].items() for method in item}
    assert "3.1.0" == api["openapi"]


async def test_the_document_is_consistent(http: httpx.AsyncClient) -> None:
    """References lead somewhere, path parameters are declared, operation ids differ."""
    api = (await http.get("/openapi.json")).json()
    schemas = api["components"]["schemas"]
    found = list(everything(api))
    ids = [op["operationId"] for op in found]

    assert len(set(ids)) == len(ids)
    assert set() == {name for name in references(api) if name not in schemas}
    for path, item in api["paths"].items():
        for operation in item.values():
            declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert {part[1:-1] for part in path.split("/") if part.startswith("{")} == declared
            assert operation["summary"]
            assert operation["description"]
            assert operation["responses"]
    for schema in schemas.values():
        validator_for({"$defs": {}, "components": {"schemas": schemas}, **schema})


async def test_errors_follow_from_what_a_route_asks_for(http: httpx.AsyncClient) -> None:
    """A body brings 400, 413, 415, 422; a token 401, 403, 503; errors are problem documents."""
    api = (await http.get("/openapi.json")).json()
    for operation in everything(api):
        statuses = set(operation["responses"])
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= statuses
        if operation["security"]:
            assert {"401", "403", "503"} <= statuses
        for status, answer in operation["responses"].items():
            if status in {"401", "403", "409", "422", "429"}:
                assert ["application/problem+json"] == list(answer["content"])


async def test_a_described_body_is_what_the_endpoint_decodes(http: httpx.AsyncClient) -> None:
    """The schema has the fields of the type, required ones marked, with bounds."""
    api = (await http.get("/openapi.json")).json()
    body = api["components"]["schemas"]["SnapshotBody"]

    sent = {"session_id", "user_id", "state_data", "device_id", "app_version", "version", "lineage"}
    assert sent == set(body["properties"])
    assert {"session_id", "user_id", "state_data"} == set(body["required"])
    assert {"type": "string", "format": "uuid"} == body["properties"]["session_id"]
    assert "object" == body["properties"]["state_data"]["type"]


async def test_documents_are_cached_by_tag(http: httpx.AsyncClient) -> None:
    """Each of the documents answers 304 to its own tag."""
    for path in ("/openapi.json", "/schemas/messages.json", "/docs", "/docs/docs.js"):
        first = await http.get(path)
        again = await http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (200, 304, b"") == (first.status_code, again.status_code, again.content)


async def test_the_page_needs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    """No inline script or style, no other origin, and a policy that says so."""
    page = await http.get("/docs")

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "//" not in page.text.replace("<!--", "")
    assert "style=" not in page.text
    assert "<script>" not in page.text


async def test_development_needs_no_token(redis_url: str) -> None:
    """Where callers of this machine are admins, a token is described as optional."""
    async with running_node(redis_url, dev=True) as node, node.http() as http:
        api = (await http.get("/openapi.json")).json()

    assert [{"bearer": []}, {}] == api["paths"]["/session/snapshot"]["post"]["security"]


class Body(msgspec.Struct):
    """A body."""

    number: int


class Query(msgspec.Struct):
    """A query."""

    needed: str
    limit: int = 5


def test_describe() -> None:
    """Everything that an endpoint says about itself is in the document."""

    @describe(
        "A thing",
        answers={200: Answer("Done.", Body), 204: None},
        body=Body,
        query=Query,
        headers={"X-Device-ID": "Who asks."},
        errors=(404,),
        path={"count": int},
    )
    async def endpoint(request: Any) -> None:
        """What it does."""

    routes = [Route("/things/{count}/{session_id}", endpoint, methods=["PUT"])]
    [operation] = [item["put"] for item in document(routes, "1")["paths"].values()]

    assert [("put", "/things/{count}/{session_id}")] == [
        (o.method, o.path) for o in operations(routes)
    ]
    assert ("A thing", "What it does.") == (operation["summary"], operation["description"])
    assert {
        ("count", "path", True),
        ("session_id", "path", True),
        ("needed", "query", True),
        ("limit", "query", False),
        ("X-Device-ID", "header", False),
    } == {(p["name"], p["in"], p.get("required", False)) for p in operation["parameters"]}
    assert {"200", "204", "400", "401", "403", "404", "413", "415", "422", "429", "503"} == set(
        operation["responses"]
    )
    assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_a_route_without_description_is_found() -> None:
    """The check above can fail."""

    async def endpoint(request: Any) -> None: ...

    assert ["/x"] == undescribed([Route("/x", endpoint)])


def everything(api: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in api["paths"].values():
        yield from item.values()


def references(value: Any) -> Iterator[str]:
    """Names of all schemas that are referred to."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.skipif(
    os.environ.get("SYNCBRIDGE_TEST_BROWSER") != "1" or shutil.which("npx") is None,
    reason="NOT RUN: SYNCBRIDGE_TEST_BROWSER=1 and npx are needed for Redocly",
)
async def test_redocly_finds_no_error(http: httpx.AsyncClient, tmp_path: Path) -> None:
    """With its recommended rules."""
    path = trio.Path(tmp_path / "openapi.json")
    await path.write_text((await http.get("/openapi.json")).text)
    lint = ["npx", "--yes", "@redocly/cli@2", "lint", "--extends=recommended", "--format=json"]
    with trio.fail_after(110):
        ran = await trio.run_process([*lint, str(path)], capture_stdout=True, check=False)
    told = json.loads(ran.stdout)

    assert [] == [one for one in told["problems"] if one["severity"] == "error"]
    assert 0 == told["totals"]["errors"]
    assert 0 == ran.returncode
