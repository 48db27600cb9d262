"""Which route answers, what a path takes, and where a slash at the end leads."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.http.support.compression import LEAST, THREAD_FROM
from syncbridge_server.http.support.direct import DirectRoutes
from syncbridge_server.http.support.middleware import UNMATCHED, RequestMiddleware, template
from syncbridge_server.http.support.problem import exception_handlers
from syncbridge_server.http.support.ready import tagged_json, unchanged
from syncbridge_server.http.support.resources import Resources
from syncbridge_server.listener.contract import ANSWER


def told(name: str) -> Any:
    async def endpoint(request: Request) -> Response:
        """Which endpoint it is and what it was given."""
        return JSONResponse([name, request.method, request.path_params, template(request.scope)])

    return endpoint


async def refuse(request: Request) -> Response:
    raise SyncBridgeError(ErrorCode.FORBIDDEN, "not you")


async def crash(request: Request) -> Response:
    raise LookupError("a bug")


def synchronous(request: Request) -> Response:
    return JSONResponse(["synchronous", request.scope["route"].path])


class Whole:
    """An ASGI application as an endpoint."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse(["whole", scope["method"]])(scope, receive, send)


ROUTES = [
    Route("/", told("root")),
    Route("/item/{name}", told("item")),
    Route("/item/fixed", told("fixed"), methods=["POST"]),
    Route("/item/{name}", told("written"), methods=["PUT"]),
    Route("/item/{name}/part/{part}", told("part"), methods=["GET", "DELETE"]),
    Route("/calls", told("calls")),
    Route("/calls", told("call made"), methods=["POST"]),
    Route("/calls/{id:path}/state", told("state"), methods=["PUT"]),
    Route("/calls/{id:path}", told("call")),
    Route("/calls/{id:path}", told("call removed"), methods=["DELETE"]),
    Route("/refuse", refuse),
    Route("/crash", crash),
    Route("/sync", synchronous),
    Route("/whole", Whole(), methods=["GET"]),
]


async def ask(method: str, target: str, root: str = "") -> httpx.Response:
    app = Starlette(routes=ROUTES, exception_handlers=exception_handlers)
    whole = RequestMiddleware(DirectRoutes(app, exception_handlers), access_log=False)
    transport = httpx.ASGITransport(whole, raise_app_exceptions=False, root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.request(method, target)


@pytest.mark.parametrize(
    ("method", "target", "answer"),
    [
        ("GET", "/", ["root", "GET", {}, "/"]),
        ("GET", "/item/a", ["item", "GET", {"name": "a"}, "/item/{name}"]),
        ("PUT", "/item/a", ["written", "PUT", {"name": "a"}, "/item/{name}"]),
        ("POST", "/item/fixed", ["fixed", "POST", {}, "/item/fixed"]),
        ("DELETE", "/item/a/part/%C3%A9", ["part", "DELETE", {"name": "a", "part": "é"}, None]),
        ("GET", "/calls", ["calls", "GET", {}, "/calls"]),
        ("POST", "/calls", ["call made", "POST", {}, "/calls"]),
        ("PUT", "/calls/a/b/state", ["state", "PUT", {"id": "a/b"}, "/calls/{id:path}/state"]),
        ("GET", "/calls/a/state", ["call", "GET", {"id": "a/state"}, "/calls/{id:path}"]),
        ("DELETE", "/calls/a/", ["call removed", "DELETE", {"id": "a/"}, "/calls/{id:path}"]),
        ("GET", "/sync", ["synchronous", "/sync"]),
        ("GET", "/whole", ["whole", "GET"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/base"])
async def test_a_route_answers(method: str, target: str, answer: list[Any], prefix: str) -> None:
    """The most specific one that takes the method, whether or not a proxy strips the base path."""
    found = await ask(method, prefix + target, root="/base")
    if answer[-1] is None:
        answer = [*answer[:-1], found.json()[-1]]

    assert (200, answer) == (found.status_code, found.json())


ALLOWED = {
    "/": "GET, HEAD, OPTIONS",
    "/item/a": "GET, HEAD, OPTIONS, PUT",
    "/item/fixed": "OPTIONS, POST",
    "/item/a/part/b": "DELETE, GET, HEAD, OPTIONS",
    "/calls": "GET, HEAD, OPTIONS, POST",
    "/calls/a": "DELETE, GET, HEAD, OPTIONS",
    "/calls/a/state": "DELETE, GET, HEAD, OPTIONS, PUT",
    "/whole": "GET, HEAD, OPTIONS",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW")


@pytest.mark.parametrize("target", ALLOWED)
async def test_what_is_allowed_is_what_is_taken(target: str) -> None:
    """OPTIONS and every 405 say so, and no other method is answered 405."""
    options = await ask("OPTIONS", target)
    assert (204, ALLOWED[target]) == (options.status_code, options.headers["allow"])
    for method in METHODS:
        answer = await ask(method, target)
        if method in ALLOWED[target].split(", "):
            assert 200 == answer.status_code
        else:
            assert (405, ALLOWED[target]) == (answer.status_code, answer.headers["allow"]), method


async def test_a_head_is_a_get_without_its_body() -> None:
    """Status and headers are the same; the listener leaves the body out."""
    get, head = await ask("GET", "/item/a"), await ask("HEAD", "/item/a")
    assert get.headers["content-type"] == head.headers["content-type"]


@pytest.mark.parametrize(
    ("target", "root", "location"),
    [
        ("/item/fixed/", "", "/item/fixed"),
        ("/item/%C3%A9//?a=%20&b", "", "/item/%C3%A9?a=%20&b"),
        ("/calls/", "", None),
        ("/item/", "", None),
        ("/nowhere/", "", None),
        ("//item/fixed/", "", None),
        ("//evil.example/", "", None),
        ("/whole/", "/base", "/base/whole"),
        ("/base/whole/", "/base", "/base/whole"),
    ],
)
async def test_a_slash_at_the_end(target: str, root: str, location: str | None) -> None:
    """Leads to the resource without it, on the same host and scheme; else there is nothing."""
    for method in ("GET", "POST"):
        answer = await ask(method, f"http://test{target}", root)
        if location is None:
            assert answer.status_code in (200, 404, 405)
            assert "location" not in answer.headers
        else:
            assert (308, location) == (answer.status_code, answer.headers["location"])


SIZES = (LEAST - 100, LEAST, 3 * LEAST, THREAD_FROM, 2 * THREAD_FROM)
CODINGS = (b"identity", b"gzip", b"zstd, gzip;q=0.5", b"")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [*SIZES, None])
async def test_an_answer_in_one_piece_is_that_in_messages(size: int | None, coding: bytes) -> None:
    """Same status, headers and body, whatever is compressed; only what needs a thread comes late.

    `size`: of a state; None: the caller's copy is current.
    """

    async def state(request: Request) -> Response:
        tag = '"e.1.l"'
        return unchanged(tag) if size is None else tagged_json(b"x" * size, tag, revalidate=True)

    app = Starlette(routes=[Route("/state", state)])
    whole: list[Any] = []
    fields = [(b"host", b"a"), (b"accept-encoding", coding), (b"if-none-match", b'W/"e.1.l"')]

    def answer(status: int, headers: Any, body: bytes) -> None:
        whole.append((status, dict(headers), body))

    async def messages(more: dict[str, Any]) -> tuple[Any, ...]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/state", "headers": fields, **more}
        await DirectRoutes(app, {})(scope, receive, send)
        return tuple(sent)

    async def receive() -> Any:
        raise AssertionError("nothing is to be received")

    head, body = await messages({})
    late = await messages({ANSWER: answer})

    expected = head["status"], dict(head["headers"]), body["body"]
    if size is not None and size >= THREAD_FROM:
        assert not whole
        assert late == (head, body)
    else:
        assert not late
        assert [expected] == whole
    compressed = size is not None and size >= LEAST and coding not in (b"identity", b"")
    assert compressed == (b"content-encoding" in expected[1])


async def test_errors() -> None:
    """A refusal is a problem document, a bug a 500 that is raised to the middleware."""
    assert 403 == (await ask("GET", "/refuse")).status_code
    assert 500 == (await ask("GET", "/crash")).status_code
    assert 404 == (await ask("GET", "/ITEM/a")).status_code


def test_the_template_is_that_of_the_route() -> None:
    """For metrics and logs; without a route there is one word for all."""
    assert "/item/{name}" == template({"route": ROUTES[1]})
    assert UNMATCHED == template({})


@pytest.mark.parametrize("path", ["/{anything}", "/number/{n:int}"])
def test_a_path_that_cannot_be_looked_up(path: str) -> None:
    """Is a mistake that shows at the start."""
    with pytest.raises(ValueError, match="begin with a plain segment"):
        Resources([Route(path, told("x"))])
