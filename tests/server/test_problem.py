"""Problem documents, bounded bodies, request ids, and the last catch of exceptions."""

import io
import json
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from syncbridge.errors import ErrorCode, StoreTimeout, SyncBridgeError
from syncbridge_server.http.support.middleware import RequestMiddleware
from syncbridge_server.http.support.problem import (
    exception_handlers,
    problem_of,
    read_body,
    read_json,
)
from syncbridge_server.log import configure_logging
from syncbridge_server.observability import HttpMetrics, http_metrics, new_registry
from syncbridge_server.proxies import TrustedProxies

JSON = {"Content-Type": "application/json"}


class Thing(msgspec.Struct):
    """A body with a number in it."""

    number: int


async def fail(request: Request) -> Response:
    """Raise what the path says."""
    raise {
        "conflict": SyncBridgeError(ErrorCode.VERSION_CONFLICT, "newer", current_version=7),
        "limited": SyncBridgeError(ErrorCode.RATE_LIMITED, "slow down", retry_after=0.2),
        "store": StoreTimeout("no answer"),
        "bug": RuntimeError("secret detail"),
        "gone": ClientDisconnect(),
    }[request.path_params["how"]]


async def echo(request: Request) -> Response:
    """The size of the body."""
    return PlainTextResponse(str(len(await read_body(request, 1000))))


async def thing(request: Request) -> Response:
    """The number of a `Thing`."""
    return PlainTextResponse(str((await read_json(request, Thing, 1000)).number))


async def nothing(request: Request) -> Response:
    """An endpoint behind two paths."""
    raise SyncBridgeError(ErrorCode.NOT_FOUND)


def client(metrics: HttpMetrics | None = None, **options: Any) -> httpx.AsyncClient:
    """A client of an application with those three routes."""
    app = Starlette(
        routes=[
            Route("/fail/{how}", fail),
            Route("/echo", echo, methods=["POST", "PUT"]),
            Route("/thing", thing, methods=["POST"]),
            Route("/same", nothing),
            Route("/other/{name}", nothing),
        ],
        exception_handlers=exception_handlers,
    )
    transport = httpx.ASGITransport(
        RequestMiddleware(app, metrics, **options), client=("9.9.9.9", 1)
    )
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def members(answer: httpx.Response) -> dict[str, Any]:
    """The problem document, checked for what RFC 9457 and we ask of each."""
    problem: dict[str, Any] = answer.json()
    assert "application/problem+json" == answer.headers["content-type"]
    assert answer.status_code == problem["status"]
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert f"urn:syncbridge:error:{problem['code']}" == problem["type"]
    return problem


async def test_error_becomes_a_problem_with_its_fields() -> None:
    """An error's fields stand beside the standard members."""
    async with client() as http:
        problem = members(await http.get("/fail/conflict"))

    assert (409, "version_conflict", "newer", 7) == (
        problem["status"],
        problem["code"],
        problem["detail"],
        problem["current_version"],
    )


@pytest.mark.parametrize(("path", "status"), [("/fail/limited", 429), ("/fail/store", 503)])
async def test_retry_after_is_whole_seconds(path: str, status: int) -> None:
    """Retry-After is at least one second (RFC 9110 section 10.2.3 knows no fractions)."""
    async with client() as http:
        answer = await http.get(path)

    assert (status, "1") == (answer.status_code, answer.headers["retry-after"])
    members(answer)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_makes_a_problem(code: ErrorCode) -> None:
    """Each catalogue entry has a document; 401 has a challenge."""
    answer = problem_of(SyncBridgeError(code, title="x", detail_of="y"))
    problem = json.loads(bytes(answer.body))

    assert (code.status, code.title, code.wire) == (
        answer.status_code,
        problem["title"],
        problem["code"],
    )
    assert ("www-authenticate" in answer.headers) is (code.status == 401)


async def test_unknown_path_and_wrong_method() -> None:
    """404 and 405 are problems too; 405 names what is allowed."""
    async with client() as http:
        missing = await http.get("/nowhere")
        wrong = await http.get("/echo")

    assert (404, "not_found") == (missing.status_code, members(missing)["code"])
    assert (405, "method_not_allowed") == (wrong.status_code, members(wrong)["code"])
    assert "POST, PUT" == wrong.headers["allow"]


async def test_unexpected_exception_is_a_500_that_tells_nothing() -> None:
    """The answer has the request id and no detail of the exception; the log has it once."""
    log = io.StringIO()
    configure_logging("json", stream=log)
    async with client(access_log=False) as http:
        answer = await http.get("/fail/bug", headers={"X-Request-ID": "r-1"})

    problem = members(answer)
    assert (500, "internal_error", "r-1") == (
        answer.status_code,
        problem["code"],
        problem["request_id"],
    )
    assert "secret detail" not in answer.text
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert ["r-1"] == [line["request_id"] for line in lines if "secret detail" in str(line)]


async def test_caller_that_goes_away_is_no_error() -> None:
    """A disconnect is counted as 499 and not logged as a failure."""
    registry = new_registry()
    log = io.StringIO()
    configure_logging("console", stream=log)
    async with client(http_metrics(registry)) as http:
        await http.get("/fail/gone")

    labels = {"method": "GET", "route": "/fail/{how}", "status": "499"}
    assert 1.0 == registry.get_sample_value("syncbridge_http_requests_total", labels)
    assert "[ERROR]" not in log.getvalue()


@pytest.mark.parametrize(("size", "status"), [(0, 200), (1000, 200), (1001, 413), (10**6, 413)])
async def test_body_is_bounded(size: int, status: int) -> None:
    """A body up to the limit is read, a larger one is refused."""
    async with client() as http:
        assert status == (await http.post("/echo", content=b"x" * size)).status_code


async def test_body_without_a_length_is_cut_while_it_streams() -> None:
    """A chunked body is not read further than the limit."""
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 100
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(SyncBridgeError) as caught:
        await read_body(request, 1000)

    assert (ErrorCode.TOO_LARGE, 1100) == (caught.value.code, received)
    assert {"limit": 1000} == caught.value.fields


async def test_announced_length_is_believed_only_to_refuse() -> None:
    """A false Content-Length neither breaks nor widens anything."""
    async with client() as http:
        for value, status in (("999999999999999999999999", 413), ("-1", 200), ("abc", 200)):
            headers = {"Content-Length": value}
            assert status == (await http.post("/echo", content=b"x", headers=headers)).status_code


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"number": 1}', 200, ""),
        (b"{", 400, "invalid_json"),
        (b"", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"number": "\\ud800"}', 400, "invalid_json"),
        (b"{}", 422, "invalid_field"),
        (b'{"number": 1.5}', 422, "invalid_field"),
        (b"[1]", 422, "invalid_field"),
        (b'{"number": ' + b"[" * 900, 400, "invalid_json"),
    ],
)
async def test_json_bodies(content: bytes, status: int, code: str) -> None:
    """Bad JSON is 400; JSON of another shape is 422."""
    async with client() as http:
        answer = await http.post("/thing", content=content, headers=JSON)

    assert status == answer.status_code
    if code:
        assert code == members(answer)["code"]


async def test_a_wrong_field_is_named() -> None:
    """The problem says which field and what was expected."""
    async with client() as http:
        problem = members(await http.post("/thing", content=b'{"number": "x"}', headers=JSON))

    assert "number" == problem["field"]
    assert "number: Expected `int`, got `str`" == problem["detail"]


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/merge-patch+json", 200),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=b", 415),
        ("application/jsonp", 415),
        ("application/json, text/plain", 415),
        ("text/plain", 415),
        ("text/plain;charset=UTF-8", 415),
        ("text/plain; application/json", 415),
        ("", 415),
        (None, 415),
    ],
)
async def test_media_type(media: str | None, status: int) -> None:
    """What a web page can send without asking first is not taken for JSON, and 415 says what is."""
    headers = {} if media is None else {"Content-Type": media}
    async with client() as http:
        answer = await http.post("/thing", content=b'{"number": 1}', headers=headers)

    assert status == answer.status_code
    if status == 415:
        assert "application/json" == answer.headers["accept"]
        assert "send Content-Type: application/json" in members(answer)["detail"]


@pytest.mark.parametrize(
    ("authorization", "media", "status"),
    [
        ("Bearer x", "text/plain;charset=UTF-8", 200),
        ("bearer x", "TEXT/PLAIN", 200),
        ("Bearer x", None, 200),
        ("Bearer x", "application/x-www-form-urlencoded", 415),
        ("Bearer x", "text/html", 415),
        ("Basic x", "text/plain", 415),
        ("", "text/plain", 415),
    ],
)
async def test_text_is_json_for_who_has_a_token(
    authorization: str, media: str | None, status: int
) -> None:
    """`fetch` sends a string as text/plain; whoever names a bearer token meant JSON by it."""
    headers = {"Authorization": authorization} | ({} if media is None else {"Content-Type": media})
    async with client() as http:
        answer = await http.post("/thing", content=b'{"number": 1}', headers=headers)

    assert status == answer.status_code


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-1.2_X", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("a\tb", False),
        ("{evil}", False),
    ],
)
async def test_request_id_is_kept_when_harmless(given: str, kept: bool) -> None:
    """Every answer has an X-Request-ID; a strange one is replaced."""
    async with client() as http:
        for path in ("/echo", "/nowhere", "/fail/bug"):
            answer = await http.get(path, headers={"X-Request-ID": given})

            assert (answer.headers["x-request-id"] == given) is kept
            assert answer.headers["x-request-id"]


async def test_access_line_and_metrics_name_the_route() -> None:
    """One line and one count for each request; labels come from route templates only."""
    registry = new_registry()
    log = io.StringIO()
    configure_logging("console", stream=log)
    async with client(http_metrics(registry)) as http:
        await http.get("/fail/limited")
        await http.get("/nowhere/a")
        await http.request("BREW", "/nowhere/b")
        await http.get("/same")
        await http.get("/other/same")

    def count(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status": status}
        return registry.get_sample_value("syncbridge_http_requests_total", labels)

    assert 1.0 == count("GET", "/fail/{how}", "429")
    assert 1.0 == count("GET", "unmatched", "404")
    assert 1.0 == count("other", "unmatched", "404")
    assert (1.0, 1.0) == (count("GET", "/same", "404"), count("GET", "/other/{name}", "404"))
    assert 0.0 == registry.get_sample_value("syncbridge_http_requests_running")
    lines = log.getvalue().splitlines()
    assert 5 == len(lines)
    assert lines[0].startswith("[HTTP][INFO][_finish] request_answered. ")
    assert "client=9.9.9.9" in lines[0]


async def test_handoff_token_is_not_logged() -> None:
    """The one secret that stands in a path stays out of the access line."""
    log = io.StringIO()
    configure_logging("console", stream=log)
    async with client() as http:
        await http.get("/session/s-1/handoff/s3cr3t")
        await http.get("/session/s-1/handoff/s3cr3t/more")

    assert "s3cr3t" not in log.getvalue()
    assert "path=/session/s-1/handoff/[redacted]/more" in log.getvalue()


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    """A request from `peer` with X-Forwarded-For lines."""
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return {"type": "http", "client": (peer, 1) if peer else None, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client_address"),
    [
        ("9.9.9.9", [], "9.9.9.9"),
        ("9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["1.1.1.1"], ""),
    ],
)
def test_forwarded_addresses_are_believed_from_proxies_only(
    peer: str | None, forwarded: list[str], client_address: str
) -> None:
    """The rightmost address that no trusted proxy owns is the caller."""
    proxies = TrustedProxies(("10.0.0.0/8",))

    assert client_address == proxies.client(scope(peer, *forwarded))
    assert (peer or "") == TrustedProxies(()).client(scope(peer, *forwarded))
