"""The table in front of Starlette: nobody can tell that it is there, but for the time it takes."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, Router

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.http.support.direct import DirectRoutes
from syncbridge_server.http.support.middleware import UNMATCHED, template
from syncbridge_server.http.support.problem import exception_handlers


def told(name: str) -> Any:
    async def endpoint(request: Request) -> Response:
        """Which endpoint it is and what it was given."""
        scope = request.scope
        where = [scope["route"].path, scope["router"] is scope["app"].router]
        return JSONResponse([name, request.method, request.path_params, *where])

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
    Route("/item/fixed", told("hidden")),
    Route("/item/{name}", told("written"), methods=["PUT"]),
    Route("/item/{name}/part/{part}", told("part"), methods=["GET", "DELETE"]),
    Route("/number/{n:int}", told("number")),
    Route("/number/{name}", told("name")),
    Route("/file/{path:path}/end", told("file"), methods=["PUT"]),
    Route("/file/a", told("behind a path")),
    Route("/refuse", refuse),
    Route("/crash", crash),
    Route("/sync", synchronous),
    Route("/whole", Whole()),
    Route("/slash/", told("slash")),
    Mount("/mounted", routes=[Route("/x", told("mounted"))]),
    Route("/mounted/x", told("never")),
    Route("/last", told("last")),
    Route("/{anything}", told("anything")),
    Route("/late", told("late")),
]
TARGETS = [
    *["/", "/item/a", "/item/fixed", "/item/a%2Fb", "/item/", "/item", "/item/a/b", "/item/a%0A"],
    *["/item/a/part/b", "/item/a/part/", "/number/7", "/number/x", "/file/a", "/file/a/b/end"],
    *["/refuse", "/sync", "/whole", "/slash", "/slash/", "/mounted/x", "/mounted/y", "/last"],
    *["/last/", "/late", "/nowhere/at/all", "//item/a", "/ITEM/a", "/item/%C3%A9", "/item//"],
]


async def ask(app: Any, method: str, target: str, root: str = "") -> tuple[int, Any, bytes]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.request(method, target)
    return answer.status_code, sorted(answer.headers.items()), answer.content


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "BREW"])
async def test_the_answers_are_starlettes(method: str) -> None:
    """Endpoint, parameters, order, 404, 405 with Allow, redirects, HEAD: all the same."""
    alone = Starlette(routes=ROUTES, exception_handlers=exception_handlers)
    behind = Starlette(routes=ROUTES, exception_handlers=exception_handlers)
    direct = DirectRoutes(behind, exception_handlers)

    for target in TARGETS:
        for root in ("", "/item"):
            expected = await ask(alone, method, target, root)
            assert await ask(direct, method, target, root) == expected, (target, root)


async def test_plain_routes_do_not_reach_starlette() -> None:
    """It is a short cut: what is in the table is answered without the application."""
    app = Starlette(routes=ROUTES, exception_handlers=exception_handlers)
    direct = DirectRoutes(app, exception_handlers)
    calls: list[str] = []

    async def instead(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await Response(status_code=418)(scope, receive, send)

    direct.app = instead  # type: ignore[assignment]
    instead.router = app.router  # type: ignore[attr-defined]
    short = ["/item/a", "/item/a/part/b", "/refuse", "/"]
    statuses = [(await ask(direct, "GET", path))[0] for path in short]
    for path in ("/number/7", "/file/a", "/sync", "/whole", "/last"):
        assert (await ask(direct, "GET", path))[0] == 418

    assert [200, 200, 403, 200] == statuses
    assert ["/number/7", "/file/a", "/sync", "/whole", "/last"] == calls


async def test_an_exception_without_a_handler_is_raised() -> None:
    """`RequestMiddleware` catches, logs and answers it, as it does behind Starlette."""
    app = Starlette(routes=ROUTES, exception_handlers=exception_handlers)
    transport = httpx.ASGITransport(DirectRoutes(app, exception_handlers))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with pytest.raises(LookupError):
            await http.get("/crash")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/item/a", "/item/{name}"),
        ("PUT", "/item/a", "/item/{name}"),
        ("PUT", "/number/7", "/number/{n:int}"),
        ("DELETE", "/last", "/last"),
    ],
)
def test_a_route_that_starlette_does_not_name(method: str, path: str, expected: str) -> None:
    """It is found again for the metrics, also when only the path has matched (405)."""
    router = Router(ROUTES)
    scope = {"type": "http", "path": path, "method": method, "headers": [], "root_path": ""}

    assert template({**scope, "router": router, "endpoint": None}) == expected
    assert template({**scope, "router": router}) == UNMATCHED
    assert template({**scope, "route": router.routes[-1], "endpoint": None}) == "/late"
