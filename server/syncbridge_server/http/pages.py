"""GET /, /admin/ and /assets/*: the demo, the dashboard, and what they load.

They are built from `pages/` of the tree (see `scripts/build_pages.sh`) into this package's folder
`pages`, whole or not at all. A server runs without them: `/` then says how far they are. Names of
assets contain a hash of their content, so a browser keeps them. The policy lets in nothing from
elsewhere and nothing inline.
"""

from hashlib import blake2b
from html import escape
from importlib.resources import files
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import __version__
from syncbridge_server.http.support.answers import encoded, names_tag
from syncbridge_server.http.support.fields import list_field
from syncbridge_server.openapi.describe import Answer, describe
from syncbridge_server.origins import is_loopback_origin

FOLDER = Path(str(files("syncbridge_server"))) / "pages"
"""`built`: the directory of the built files. `progress`: a line about the build that is under
way."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'"
)
ASSETS = "/assets/"
"""Where the parts of both pages are."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
KEPT = "public, max-age=31536000, immutable"
WAY = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "messages": "/schemas/messages.json",
    "health": "/health",
    "websocket": "/ws",
}
SENTENCE = "SyncBridge keeps the live state of a user's session true on all of their devices."
MEDIA = b'name="media" content=""'
"""In the demo: the element that says where the stand-in voice provider takes connections."""
_UNCHANGED = Answer("The client's copy is current.", None)
_LINES = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SyncBridge</title>
<link rel="icon" href="{up}docs/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{up}docs/docs.css">
</head>
<body>
<p>{text} <a href="{up}docs">API reference</a></p>
</body>
</html>
"""


class WayBody(msgspec.Struct):
    """Answer of `GET /`: paths at this address."""

    docs: str
    openapi: str
    messages: str
    health: str
    websocket: str


class Built:
    """The files that the build has made, by their paths; read again when there are newer ones."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._stamp = (0, 0)
        self._files: dict[str, bytes] = {}

    def file(self, path: str) -> bytes | None:
        """The content of a file; None when it is not there."""
        built = self._folder / "built"
        try:
            status = built.stat()
        except FileNotFoundError:
            return None
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            found = [each for each in built.rglob("*") if each.suffix in TYPES]
            self._files = {each.relative_to(built).as_posix(): each.read_bytes() for each in found}
            self._stamp = stamp
        return self._files.get(path)

    @property
    def progress(self) -> str:
        """How far a build is; empty when none has begun."""
        try:
            return (self._folder / "progress").read_text("utf-8").strip()
        except FileNotFoundError:
            return ""


class PageRoutes:
    """The pages.

    Args:
        dev: the demo is shown at `/`.
        voice_url: of the voice provider; if it is on this machine, the demo connects with it.
    """

    def __init__(self, dev: bool, voice_url: str = "", built: Built | None = None) -> None:
        self._dev = dev
        media = _media_url(voice_url)
        self._media = MEDIA.replace(b'""', b'"%b"' % escape(media).encode())
        self._demo_policy = POLICY.replace(
            "connect-src 'self'", f"connect-src 'self' {media}".strip()
        )
        self._built = built or Built()

    def routes(self) -> list[BaseRoute]:
        """For the application's router. The dashboard's address is `/admin/`."""
        return [
            Route("/", self.show_start, methods=["GET"]),
            *(
                Route(path, show, methods=["GET"], include_in_schema=False)
                for path, show in (
                    ("/admin", self.show_slash),
                    ("/admin/", self.show_dashboard),
                    (ASSETS + "{name}", self.show_asset),
                )
            ),
        ]

    @describe(
        "Start page",
        answers={200: Answer("Paths.", WayBody, texts=("text/html",)), 304: _UNCHANGED},
        headers={"Accept": "`text/html`: the page for people."},
        public=True,
        tag="documents",
    )
    async def show_start(self, request: Request) -> Response:
        """Paths for programs that know the address only; for people, a page.

        In development it is the demo, elsewhere a line that says what this is.
        """
        if "text/html" not in list_field(request.scope, b"accept"):
            root = request.scope.get("root_path", "")
            answer = encoded({name: root + path for name, path in WAY.items()})
        elif self._dev:
            answer = self._page(request, "index.html", self._media)
            answer.headers["Content-Security-Policy"] = self._demo_policy
        else:
            answer = _lines(f"{SENTENCE} This is version {__version__}.")
        answer.headers["Vary"] = "Accept"
        return answer

    async def show_slash(self, request: Request) -> Response:
        """The addresses in the page are relative to `/admin/`."""
        return Response(None, 308, {"Location": request.scope.get("root_path", "") + "/admin/"})

    async def show_dashboard(self, request: Request) -> Response:
        """A page. It shows nothing before its user has signed in."""
        return self._page(request, "admin/index.html")

    async def show_asset(self, request: Request) -> Response:
        """A file whose name changes with its content."""
        name = request.path_params["name"]
        body = self._built.file(f"assets/{name}")
        if body is None:
            raise HTTPException(404)
        return _file(request, body, TYPES[Path(name).suffix], KEPT)

    def _page(self, request: Request, path: str, media: bytes = MEDIA) -> Response:
        body = self._built.file(path)
        if body is not None:
            return _file(request, body.replace(MEDIA, media), TYPES[".html"], "no-cache")
        progress = self._built.progress
        text = f"{SENTENCE} The pages are not built yet: {progress or '`make pages` builds them'}."
        answer = _lines(text, "../" * path.count("/"))
        if progress and "failed" not in progress:
            answer.headers["Refresh"] = "2"
        return answer


def _media_url(voice_url: str) -> str:
    """Where the demo connects with a provider on this machine; empty: there is none."""
    if not is_loopback_origin(voice_url):
        return ""
    return f"ws{voice_url.removeprefix('http')}/media"


def _file(request: Request, body: bytes, media_type: str, kept: str) -> Response:
    """200 with an entity tag, or 304."""
    tag = f'"{blake2b(body, digest_size=8).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": kept, "Content-Security-Policy": POLICY}
    if names_tag(list_field(request.scope, b"if-none-match"), tag):
        return Response(None, 304, headers)
    return Response(body, 200, headers, media_type)


def _lines(text: str, up: str = "") -> Response:
    """A page that needs nothing but the style of `/docs`. `up`: from it to the start page."""
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": POLICY}
    return Response(_LINES.format(text=escape(text), up=up), 200, headers, TYPES[".html"])
