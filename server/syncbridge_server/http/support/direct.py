"""The shortest way from a request to its endpoint, for the routes that allow it.

Starlette looks for a route one by one, each with a regular expression, behind four layers that
each wrap `send` to catch exceptions. Here the routes are in a table by their first segment and
number of segments, the few that are left are tried in Starlette's order with Starlette's own
expressions, and exceptions are caught once. Whatever is not answered like that (no such path,
another method, a redirect, a route of another kind, a root path) is Starlette's: it answers as if
nothing stood in front of it.

Theory of operation. The first route in order that matches must win. So a route that cannot be in
the table closes the table behind it: for its first segment, or altogether when that may be
anything. Of the routes in the table a path can only match those under its own key, because a
parameter never contains a slash.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.convertors import StringConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Awaitable[Response]]
_ANYTHING = "{"


class Entry(NamedTuple):
    """One route of the table."""

    route: Route
    endpoint: Endpoint
    pattern: re.Pattern[str]
    methods: frozenset[str]


Table = dict[tuple[int, str], list[Entry]]


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
        self._table = _tabled(app.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        entry = None
        if scope["type"] == "http" and not scope.get("root_path"):
            entry = self._find(scope)
        if entry is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await entry.endpoint(request)
        except Exception as error:
            response = await self._handled(request, error)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> Entry | None:
        path = scope["path"]
        parts = path.split("/", 2)
        if len(parts) < 2:
            return None
        for entry in self._table.get((path.count("/"), parts[1]), ()):
            match = entry.pattern.match(path)
            if match is not None and scope["method"] in entry.methods:
                scope["app"] = self.app
                scope["router"] = self.app.router
                scope["route"] = entry.route
                scope["endpoint"] = entry.route.endpoint
                scope["path_params"] = match.groupdict()
                return entry
        return None

    async def _handled(self, request: Request, error: Exception) -> Response:
        for kind in type(error).__mro__:
            if kind in self._handlers:
                response = await self._handlers[kind](request, error)
                error.__traceback__ = None  # an instance that is raised again would collect them
                return response
        raise error


def _tabled(routes: list[BaseRoute]) -> Table:
    """The routes that can be found by table; see the top of this file."""
    table: Table = {}
    closed: set[str] = set()
    for route in routes:
        if isinstance(route, WebSocketRoute):
            continue
        first = _first(route)
        if first == _ANYTHING:
            break
        entry = _entry(route)
        if entry is None:
            closed.add(first)
        elif first not in closed:
            key = entry.route.path.count("/"), first
            table.setdefault(key, []).append(entry)
    return table


def _first(route: BaseRoute) -> str:
    """The first segment of a route's path; _ANYTHING when it is not the same for every path."""
    first = getattr(route, "path", "").partition("/")[2].partition("/")[0]
    return first if isinstance(route, Route) and _ANYTHING not in first else _ANYTHING


def _entry(route: BaseRoute) -> Entry | None:
    """The entry of a plain route: `async def endpoint(request)` and whole segments."""
    if type(route) is not Route or route.methods is None:
        return None
    wrapped = getattr(route.app, "__qualname__", "").startswith("request_response.")
    if not wrapped or not inspect.iscoroutinefunction(route.endpoint):
        return None
    if any(type(one) is not StringConvertor for one in route.param_convertors.values()):
        return None
    return Entry(route, route.endpoint, route.path_regex, frozenset(route.methods))
