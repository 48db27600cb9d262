"""POST /auth/token, /auth/refresh, /auth/revoke."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import (
    ADMINS,
    NAME_BYTES,
    SERVICES,
    Identity,
    Role,
    VoiceGrant,
    authorize,
    display_name,
)
from syncbridge_server.auth.assembly import Authentication
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.http import named_device
from syncbridge_server.auth.refresh import TokenPair
from syncbridge_server.auth.revocation import Kind, Rule
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.openapi.describe import Answer, describe

MAX_BODY = 16_384
DEVICE_NOTE = (
    "A token without device_id is taken back if this device has used it; such a device is only what"
    " it calls itself. Revoke by user_id to take back every token of the user."
)
Seconds = Annotated[int, Meta(gt=0, le=31_622_400)]


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /auth/token. `ttl`: life of the access token in seconds.

    `name`: display name of the user, as in voice calls.
    """

    user_id: str
    role: Role = Role.USER
    session_id: str = ""
    device_id: str = ""
    voice: tuple[VoiceGrant, ...] = ()
    ttl: Seconds | None = None
    name: Annotated[str, Meta(max_length=256)] = ""


class RefreshRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /auth/refresh."""

    refresh_token: str


class RevokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /auth/revoke: exactly one, or a device together with its user."""

    jti: str = ""
    user_id: str = ""
    device_id: str = ""
    family: str = ""


class ChannelRef(msgspec.Struct):
    """A voice channel: an id in a waddle."""

    channel_id: str
    waddle_id: str


class Revoked(msgspec.Struct):
    """Answer of POST /auth/revoke. `before`: tokens issued later are not meant, Unix seconds.

    `note`: what this kind of revocation does not cover. `calls`: ids of voice channels from which
        the provider must still remove the user, `channels`: the same with their waddles; the
        request is repeated until it has.
    """

    revoked: str
    value: str
    before: float
    note: str | msgspec.UnsetType = msgspec.UNSET
    calls: list[str] | msgspec.UnsetType = msgspec.UNSET
    channels: list[ChannelRef] | msgspec.UnsetType = msgspec.UNSET


class AuthRoutes:
    """The three calls.

    Args:
        id_bytes: longest id. calls: removes the user from calls; returns the channels where that is
            not done yet: (id, waddle).
    """

    def __init__(
        self,
        auth: Authentication,
        id_bytes: int = 64,
        calls: Callable[[Rule], Awaitable[Sequence[tuple[str, str]]]] | None = None,
    ) -> None:
        self._auth = auth
        self._id_bytes = id_bytes
        self._calls = calls

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/auth/token", self.token, methods=["POST"]),
            Route("/auth/refresh", self.refresh, methods=["POST"]),
            Route("/auth/revoke", self.revoke, methods=["POST"]),
        ]

    @describe(
        "Tokens for a user",
        body=TokenRequest,
        answers={200: Answer("An access and a refresh token.", TokenPair)},
    )
    async def token(self, request: Request) -> Response:
        """A pair for a user. Service or admin; only an admin makes admins and viewers.

        A token that is bound to a session or a device mints none: it would have no bounds.
        """
        caller = await self._auth.bearer(request, SERVICES)
        authorize(caller, SERVICES, device_id=None)
        body = await read_json(request, TokenRequest, MAX_BODY)
        if body.role in (Role.ADMIN, Role.VIEWER):
            authorize(caller, ADMINS)
        audited(request.scope, subject=body.user_id, role=body.role)
        if body.name != display_name(body.name):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"name: at most {NAME_BYTES} bytes of printable text are expected",
                field="name",
            )
        grant = Grant(
            body.user_id,
            body.role,
            body.session_id,
            body.device_id,
            body.voice,
            name=body.name,
        )
        return _secret_answer(await self._auth.rotation.issue(grant, body.ttl))

    @describe(
        "Exchange a refresh token for a new pair",
        body=RefreshRequest,
        answers={200: Answer("The new pair; the old refresh token no longer works.", TokenPair)},
        public=True,
        headers={"X-Device-ID": "The calling device; it must match the token's."},
        errors=(401, 403, 503),
    )
    async def refresh(self, request: Request) -> Response:
        """A new pair for a refresh token; the body is the credential."""
        body = await read_json(request, RefreshRequest, MAX_BODY)
        return _secret_answer(
            await self._auth.rotation.rotate(body.refresh_token, named_device(request))
        )

    @describe("Revoke tokens", body=RevokeRequest, answers={200: Revoked})
    async def revoke(self, request: Request) -> Response:
        """Revoke tokens. A user only their own; a device named by a user is the user's own.

        A token that is bound takes back itself, its login, and what lies within its bounds.
        """
        caller = await self._auth.bearer(request, session_bound=True)
        body = await read_json(request, RevokeRequest, MAX_BODY)
        kind, value, owner = self._target(caller, body)
        audited(request.scope, kind=kind, value=value, owner=owner)
        by = "" if caller.privileged else caller.user_id
        rule: Rule = await self._auth.revocations.revoke(kind, value, owner, by=by)
        answer = Revoked(f"{rule.kind}_id" if kind in ("user", "device") else kind, value, rule.at)
        if kind == "device":
            answer.note = DEVICE_NOTE
        if self._calls is not None:
            answer.channels = [ChannelRef(*one) for one in await self._calls(rule)]
            answer.calls = list(dict.fromkeys(one.channel_id for one in answer.channels))
        return Response(msgspec.json.encode(answer), media_type="application/json")

    def _target(self, caller: Identity, body: RevokeRequest) -> tuple[Kind, str, str]:
        named = [name for name in body.__struct_fields__ if getattr(body, name)]
        if len(named) != 1 and sorted(named) != ["device_id", "user_id"]:
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD, "name one of jti, family, user_id and device_id"
            )
        for name in named:
            self._check_id(name, getattr(body, name))
        require_right(caller, body)
        if body.device_id:
            owner = body.user_id if caller.privileged else caller.user_id
            return "device", body.device_id, owner
        if body.user_id:
            return "user", body.user_id, ""
        return ("jti", body.jti, "") if body.jti else ("family", body.family, "")

    def _check_id(self, name: str, value: str) -> None:
        if len(value.encode()) > self._id_bytes or not value.isprintable():
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD, f"{name} has at most {self._id_bytes} bytes", field=name
            )


def require_right(caller: Identity, body: RevokeRequest) -> None:
    """Raise unless the caller may revoke what the body names."""
    for name, own in (("jti", caller.jti), ("family", caller.family)):
        named = getattr(body, name)
        if named and named == own:
            return
        if named and not caller.privileged:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, f"this {name} is not yours")
    authorize(caller, user_id=body.user_id, device_id=body.device_id or None)


def _secret_answer(pair: TokenPair) -> Response:
    """RFC 6749 section 5.1: answers with tokens must not be stored."""
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    return Response(msgspec.json.encode(pair), headers=headers, media_type="application/json")
