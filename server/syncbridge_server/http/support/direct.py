"""From a request to its endpoint and back, without the layers of Starlette that each wrap `send`.

`Resources` knows what a path names. A resource answers OPTIONS itself, and with 405 a method that
it does not take; both say in `Allow` what it takes. A path that names nothing, but would without
the slashes at its end, is redirected there: by a relative reference, which is right whatever
scheme, host and base path a proxy shows. WebSockets and the lifespan are Starlette's.

An answer that is ready goes to the listener in one piece, where that takes it so (`ANSWER`) and
compressing it takes no thread. Others are compressed on their way.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from syncbridge_server.http.support.compression import Compressing
from syncbridge_server.http.support.ready import Ready
from syncbridge_server.http.support.resources import Found, Resources
from syncbridge_server.http.support.segments import OPEN, keep_slashes
from syncbridge_server.listener.contract import ANSWER, Answerer

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Awaitable[Response]]
EVERYTHING = "*"
"""The target of an OPTIONS that asks about the server as a whole (RFC 9110 section 9.3.7)."""


class DirectRoutes:
    """ASGI: the routes of a Starlette application, in front of it.

    Args:
        app: the application; its routes are read once, here.
        handlers: its exception handlers. What has none is raised, as Starlette does in the end.
    """

    def __init__(self, app: Starlette, handlers: Mapping[Any, Handler]) -> None:
        self.app = app
        self._handlers = {
            kind: handler for kind, handler in handlers.items() if kind not in (500, Exception)
        }
        self._resources = Resources(app.routes)
        routes = (route for route in app.routes if isinstance(route, Route))
        self._plain = {id(route): route.endpoint for route in routes if _is_plain(route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if OPEN in scope["path"]:
            keep_slashes(scope)
        found = self._resources.find(scope["path"], scope["method"])
        if found is None:
            route = endpoint = None
        else:
            route = found.route
            endpoint = self._plain.get(id(route))
            self._tell(scope, found)
        if route is not None and endpoint is None:
            await route.app(scope, receive, Compressing(scope["headers"], send))
            return
        request = Request(scope, receive, send)
        try:
            if endpoint is not None:
                response = await endpoint(request)
            else:
                response = self._without_route(scope, found)
        except Exception as error:
            response = await self._handled(request, error)
        answer: Answerer | None = scope.get(ANSWER)
        compressing = Compressing(scope["headers"], send)
        if answer is None or not isinstance(response, Ready) or not response.adapt(compressing):
            await response(scope, receive, compressing)
            return
        rest = answer(response.status_code, response.raw_headers, response.body)
        if rest is not None:
            await rest

    def _tell(self, scope: Scope, found: Found) -> None:
        """What Starlette leaves in the scope."""
        route = found.route or found.resource.route
        scope["app"] = self.app
        scope["router"] = self.app.router
        scope["route"] = route
        scope["endpoint"] = route.endpoint
        scope["path_params"] = found.parameters

    def _without_route(self, scope: Scope, found: Found | None) -> Response:
        """The answer where no route takes the request. Raises HTTPException."""
        if found is None and scope["path"] == EVERYTHING:
            methods = self._resources.methods
        elif found is None:
            return self._elsewhere(scope)
        else:
            methods = found.methods
        allow = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))}
        if scope["method"] != "OPTIONS":
            raise HTTPException(405, headers=allow)
        return Response(None, 204, allow)

    def _elsewhere(self, scope: Scope) -> Response:
        """To the same path without the slashes at its end, if it names something."""
        bare = scope["path"].rstrip("/")
        if bare == scope["path"] or self._resources.find(bare, scope["method"]) is None:
            raise HTTPException(404)
        raw = scope["raw_path"].decode("ascii").partition("?")[0].rstrip("/")
        query = scope["query_string"].decode("latin-1")
        root = scope.get("root_path", "")
        path = raw if raw.startswith(root + "/") else root + raw
        return Response(None, 308, {"Location": f"{path}?{query}" if query else path})

    async def _handled(self, request: Request, error: Exception) -> Response:
        for kind in type(error).__mro__:
            if kind in self._handlers:
                response = await self._handlers[kind](request, error)
                error.__traceback__ = None  # an instance that is raised again would collect them
                return response
        raise error


def _is_plain(route: Route) -> bool:
    """Whether the endpoint is `async def endpoint(request)`, and may be called as such."""
    wrapped = getattr(route.app, "__qualname__", "").startswith("request_response.")
    return wrapped and inspect.iscoroutinefunction(route.endpoint)
