"""GET /openapi.json, /schemas/messages.json and /docs: the interface, for programs and people.

The page is three files of ours, without anything from elsewhere, and its policy allows nothing
else: an inline script or a foreign origin would not run.
"""

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import __version__
from syncbridge_server.http.support.answers import names_tag
from syncbridge_server.http.support.fields import list_field
from syncbridge_server.message_schemas import message_schemas
from syncbridge_server.openapi.describe import Answer, JsonObject, describe
from syncbridge_server.openapi.document import document

POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
PAGE = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/docs/icon.svg": ("icon.svg", "image/svg+xml"),
}
_UNCHANGED = Answer("The client's copy is current.", None)


class DocumentRoutes:
    """The documents. `optional_token`: as in `openapi.document`."""

    def __init__(self, optional_token: bool = False) -> None:
        self._optional_token = optional_token
        self._openapi = b""

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/schemas/messages.json", self.messages, methods=["GET"]),
            *(Route(path, _page(*entry), methods=["GET"]) for path, entry in PAGE.items()),
        ]

    @describe(
        "This description",
        answers={200: Answer("OpenAPI 3.1.", JsonObject), 304: _UNCHANGED},
        headers={"If-None-Match": "Entity tag of the copy at hand."},
        public=True,
        tag="documents",
    )
    async def openapi(self, request: Request) -> Response:
        """OpenAPI 3.1 of every HTTP route, from the types that validate the requests."""
        if not self._openapi:
            routes, root = request.app.routes, request.scope.get("root_path", "")
            described = document(routes, __version__, self._optional_token, root)
            self._openapi = to_json(described)
        return cacheable(request, self._openapi, "application/json")

    @describe(
        "JSON Schema of the WebSocket messages",
        answers={
            200: Answer("JSON Schema, draft 2020-12.", JsonObject, "application/schema+json"),
            304: _UNCHANGED,
        },
        headers={"If-None-Match": "Entity tag of the copy at hand."},
        public=True,
        tag="documents",
    )
    async def messages(self, request: Request) -> Response:
        """Every message of `/ws`, in both directions."""
        return cacheable(request, _messages(), "application/schema+json")


def to_json(value: Any) -> bytes:
    """Indented: people read these too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def cacheable(request: Request, body: bytes, media_type: str) -> Response:
    """200 with an entity tag, or 304."""
    tag = f'"{blake2b(body, digest_size=8).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if names_tag(list_field(request.scope, b"if-none-match"), tag):
        return Response(None, 304, headers)
    return Response(body, 200, headers, media_type)


@cache
def _messages() -> bytes:
    return to_json(message_schemas())


@cache
def _file(name: str) -> bytes:
    return (files("syncbridge_server.openapi") / "page" / name).read_bytes()


def _page(name: str, media_type: str) -> Callable[..., Any]:
    @describe(
        "The page that shows this description" if name.endswith("html") else "Part of the page",
        answers={200: Answer("The file.", str, media_type.partition(";")[0]), 304: _UNCHANGED},
        headers={"If-None-Match": "Entity tag of the copy at hand."},
        public=True,
        tag="documents",
    )
    async def page(request: Request) -> Response:
        """A static file. Needs nothing from another origin."""
        answer = cacheable(request, _file(name), media_type)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    return page
