"""Access to the dashboard: the caller, sign-in, links, revocations, configuration."""

import re
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import __version__, ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import ADMIN_READERS, ADMINS, Role, authorize
from syncbridge_server.admin.links import LIFE, Links, address, new_code
from syncbridge_server.auth.assembly import Authentication
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.refresh import TokenPair
from syncbridge_server.auth.revocation import Kind
from syncbridge_server.configuration.docs import rows, text_of
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.pages import query_of
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.openapi.describe import Answer, ShortId, Timestamp, describe
from syncbridge_server.settings import Settings, variable

BODY = 4_096
HIDDEN = "[hidden]"
SHOWN = 500
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")
_IN_QUERY = re.compile(r"(?<=[?&])([^=&\s]*(?:password|token|secret|key)[^=&\s]*=)[^&\s,]*", re.I)


class SignInBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/sign-in`: the code of a link."""

    code: Annotated[str, Meta(max_length=64)]


class LinkBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/links`. `user_id`: the user who will be signed in; default: the
    caller."""

    role: Literal["admin", "viewer"] = "admin"
    user_id: ShortId = ""


class LinkAnswer(msgspec.Struct):
    """A link. `path`: at this server, with the code in its fragment."""

    path: str
    expires_at: Timestamp


class CallerBody(msgspec.Struct):
    """The user of the token, and the features of this server.

    `node`: that answered. `voice`: there is a voice provider. `issues_tokens`: tokens can be had
    from this server.
    """

    user_id: str
    role: Literal["admin", "viewer"]
    expires_at: Timestamp
    version: str
    node: str
    development: bool
    voice: bool
    issues_tokens: bool
    websocket: str


class RevocationsQuery(msgspec.Struct):
    """Query of `GET /admin/revocations`."""

    limit: Annotated[int, Meta(ge=1, le=SHOWN)] = 100


class RevocationRow(msgspec.Struct):
    """Revoked tokens. `user_id`: the owner of the device; empty: any user."""

    kind: Kind
    value: str
    user_id: str
    at: Timestamp


class RevocationsBody(msgspec.Struct):
    """The newest revocations, and how many hold."""

    revocations: list[RevocationRow]
    total: int


class SettingRow(msgspec.Struct):
    """A setting in effect. `value`: empty for unset, `[hidden]` for a secret that is set."""

    section: str
    name: str
    value: str
    default: str
    text: str
    changed: bool


class ConfigurationBody(msgspec.Struct):
    """Every setting of the node that answered."""

    node: str
    settings: list[SettingRow]


class AdminAccessRoutes:
    """The routes. `node`: our name. `voice`: there is a voice provider. `clock`: Unix seconds."""

    def __init__(
        self,
        auth: Authentication,
        links: Links,
        settings: Settings,
        node: str,
        *,
        voice: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._auth = auth
        self._links = links
        self._settings = settings
        self._node = node
        self._voice = voice

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            Route("/admin/sign-in", self.sign_in, methods=["POST"]),
            Route("/admin/links", self.make_link, methods=["POST"]),
            Route("/admin/me", self.me, methods=["GET"]),
            Route("/admin/revocations", self.revocations, methods=["GET"]),
            Route("/admin/configuration", self.configuration, methods=["GET"]),
        ]

    @describe(
        "Exchange the code of a link for tokens",
        body=SignInBody,
        answers={200: Answer("An access and a refresh token.", TokenPair)},
        public=True,
        errors=(401, 503),
    )
    async def sign_in(self, request: Request) -> Response:
        """The code is used up. It is the credential, so that no token is asked for."""
        body = await read_json(request, SignInBody, BODY)
        pair, user_id = await self._links.take(body.code)
        request.scope.setdefault("state", {})["user"] = user_id
        headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
        return Response(msgspec.json.encode(pair), headers=headers, media_type="application/json")

    @describe("A link to the dashboard", body=LinkBody, answers={200: LinkAnswer})
    async def make_link(self, request: Request) -> Response:
        """Good once, for ten minutes. 422 where tokens are issued elsewhere."""
        caller = await self._auth.bearer(request, ADMINS)
        authorize(caller, ADMINS, device_id=None)
        body = await read_json(request, LinkBody, BODY)
        if not self._auth.rotation.issues:
            raise SyncBridgeError(
                ErrorCode.UNSUPPORTED, "this server does not issue tokens: paste one"
            )
        code, user_id = new_code(), body.user_id or caller.user_id
        ids.short_id("user_id", user_id, self._settings.id_bytes)
        await self._links.keep(code, user_id, Role(body.role))
        audited(request.scope, subject=user_id, role=body.role)
        path = request.scope.get("root_path", "") + address(code)
        return encoded(LinkAnswer(path, timestamp(int((self._clock() + LIFE) * 1000))))

    @describe("The caller", answers={200: CallerBody})
    async def me(self, request: Request) -> Response:
        """The user of the token, and the parts of the dashboard that this server has."""
        caller = await self._auth.bearer(request, ADMIN_READERS)
        return encoded(
            CallerBody(
                caller.user_id,
                "admin" if caller.role is Role.ADMIN else "viewer",
                timestamp(int(caller.expires_at * 1000)),
                __version__,
                self._node,
                self._settings.dev,
                self._voice,
                self._auth.rotation.issues,
                request.scope.get("root_path", "") + "/ws",
            )
        )

    @describe("Revoked tokens", answers={200: RevocationsBody}, query=RevocationsQuery)
    async def revocations(self, request: Request) -> Response:
        """The newest first, as this node knows them."""
        await self._auth.bearer(request, ADMIN_READERS)
        query = query_of(request, RevocationsQuery)
        known = self._auth.revocations
        found = [
            RevocationRow(rule.kind, rule.value, rule.user_id, timestamp(int(rule.at * 1000)))
            for rule in known.newest(query.limit)
        ]
        return encoded(RevocationsBody(found, len(known)))

    @describe("The settings in effect", answers={200: ConfigurationBody})
    async def configuration(self, request: Request) -> Response:
        """Of the node that answers, with secrets hidden."""
        await self._auth.bearer(request, ADMIN_READERS)
        return encoded(ConfigurationBody(self._node, list(shown(self._settings))))


def shown(settings: Settings) -> Iterable[SettingRow]:
    """Every setting; what may open something is hidden."""
    fields = {variable(name): name for name in Settings.model_fields}
    for row in rows():
        value: Any = getattr(settings, fields[row.name])
        secret = isinstance(value, SecretStr)
        text = text_of(value, Settings.model_fields[fields[row.name]])
        hidden = (HIDDEN if text else "") if secret else without_secrets(text)
        yield SettingRow(row.section, row.name, hidden, row.default, row.text, text != row.default)


def without_secrets(text: str) -> str:
    """A value in which no address holds a name, a password or a key."""
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub(f"{HIDDEN}@", text))
