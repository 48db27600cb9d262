"""Handing a session over from one device to another, with a token that works once.

The token is 32 random bytes and, behind a dot, whose token made it: with that it ends. Only its
receiver has it: Redis stores its SHA-256. A request from another device than the target changes
nothing. The redeeming script releases the source: it is offline from then on, and its socket may
read, but not write, until it sends AUTH again.
"""

import base64
import hashlib
import secrets

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncbridge import encode, ids
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.identity import Identity, Role, authorize
from syncbridge.kernels import render_pairs
from syncbridge.records.devices import Handoff, OpenHandoff, Redeem, Redeemed
from syncbridge.records.sessions import PresenceChange
from syncbridge_server.auth.http import BearerAuth, named_device
from syncbridge_server.gateway.departures import HANDOFF
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.http.support.answers import timestamp
from syncbridge_server.http.support.devices import path_session, refuse
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.openapi.describe import (
    JsonObject,
    ShortId,
    Timestamp,
    Uuid,
    VersionNumber,
    describe,
)
from syncbridge_server.ports.store import RedisCommands, Store
from syncbridge_server.redis.stores.keys import handoff_key
from syncbridge_server.voice.rooms.handover import HandedCall, Handover

JSON = "application/json"
TOKEN_BYTES = 32
MAX_BODY = 4_096
NO_STORE = {"Cache-Control": "no-store"}


class HandoffRequest(msgspec.Struct):
    """Body of `POST /session/{session_id}/handoff`."""

    source_device: ShortId
    target_device: ShortId


class HandoffBody(msgspec.Struct):
    """Answer to it."""

    token: str
    session_id: Uuid
    source_device: str
    target_device: str
    expires_at: Timestamp


class HandedCallBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """The call that the source holds: the target's way in, or why there is none.

    `error`: a code of the provider's errors or of ours; redeem again after `retry_after_ms`.
    """

    channel_id: str
    waddle_id: str
    token: str | msgspec.UnsetType = msgspec.UNSET
    session_id: str | msgspec.UnsetType = msgspec.UNSET
    expires_at: Timestamp | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET


class RedeemedBody(msgspec.Struct):
    """Answer of `GET /session/{session_id}/handoff/{token}`."""

    valid: bool
    session_id: Uuid
    source_device: str
    target_device: str
    version: VersionNumber
    epoch: str
    lineage: str
    state_data: JsonObject
    voice: HandedCallBody | msgspec.UnsetType = msgspec.UNSET


class HandoffRoutes:
    """The routes.

    Args:
        calls: lets the call of the source go along with the session; None where there is no voice.
        life, reread: seconds, see the settings of these names.
    """

    def __init__(
        self,
        gateway: Gateway,
        store: Store,
        redis: RedisCommands,
        authenticate: BearerAuth,
        calls: Handover | None = None,
        *,
        life: float,
        reread: float,
    ) -> None:
        self._gateway = gateway
        self._store = store
        self._redis = redis
        self._authenticate = authenticate
        self._calls = calls
        self._life_ms = round(life * 1000)
        self._reread_ms = round(reread * 1000)

    def routes(self) -> list[Route]:
        """For the application's router."""
        redeem = Route("/session/{session_id}/handoff/{token}", self.redeem, methods=["GET"])
        # Starlette answers HEAD wherever it answers GET; here that would use the token up.
        redeem.methods = {"GET"}
        return [
            Route("/session/{session_id}/handoff", self.create, methods=["POST"]),
            redeem,
        ]

    @describe(
        "Start a handoff to another device",
        body=HandoffRequest,
        answers={201: HandoffBody},
        errors=(404,),
    )
    async def create(self, request: Request) -> Response:
        """A token for the target device."""
        identity = await self._authenticate(request, session_bound=True)
        session_id = path_session(request)
        authorize(identity, session_id=session_id)
        await self._gateway.require_join(identity, session_id)
        body = await read_json(request, HandoffRequest, MAX_BODY)
        for name in ("source_device", "target_device"):
            ids.short_id(name, getattr(body, name), self._gateway.limits.id_bytes)
        authorize(identity, session_id=session_id, device_id=body.source_device)
        if body.source_device == body.target_device:
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                "target_device: must differ from the source device",
                field="target_device",
            )
        token = new_token(identity, body.source_device)
        answer: Handoff = await self._store.call(
            OpenHandoff(
                session_id,
                digest_of(token),
                body.source_device,
                body.target_device,
                identity.user_id,
                not identity.privileged,
                self._life_ms,
            )
        )
        refuse(answer.status)
        await self._drop(session_id, answer.dropped)
        created = HandoffBody(
            token,
            session_id,
            body.source_device,
            body.target_device,
            timestamp(answer.expires_at),
        )
        return Response(msgspec.json.encode(created), 201, NO_STORE, JSON)

    @describe(
        "Redeem a handoff token, as the target device",
        answers={200: RedeemedBody},
        headers={"X-Device-ID": "The calling device. Default: the token's, then the target."},
        errors=(404, 410),
    )
    async def redeem(self, request: Request) -> Response:
        """The current state; the source device is released."""
        identity = await self._authenticate(request, session_bound=True)
        session_id = path_session(request)
        authorize(identity, session_id=session_id)
        await self._gateway.require_join(identity, session_id)
        maker = maker_of(request.path_params["token"])
        if maker is not None and self._authenticate.is_revoked(maker, maker.device_id):
            raise SyncBridgeError(
                ErrorCode.HANDOFF_EXPIRED, "its source device has been signed out"
            )
        answer: Redeemed = await self._store.call(
            Redeem(
                session_id,
                digest_of(request.path_params["token"]),
                named_device(request) or identity.device_id,
                identity.user_id,
                not identity.privileged,
                self._reread_ms,
            )
        )
        refuse(answer.status)
        if answer.fence:
            target = answer.target.encode()
            self._gateway.announce(
                PresenceChange(
                    session_id, HANDOFF, answer.fence, answer.version, answer.source, target
                )
            )
        call = None
        if self._calls is not None:
            call = await self._calls.take_along(identity, session_id, answer.source, answer.target)
        return Response(redeemed_json(session_id, answer, call), 200, NO_STORE, JSON)

    async def _drop(self, session_id: str, digests: list[str]) -> None:
        """Tokens that are too many. Those that stay for want of Redis expire by themselves."""
        if digests:
            try:
                await self._redis.execute(
                    "UNLINK", *(handoff_key(session_id, digest) for digest in digests)
                )
            except StoreError:
                pass


class Maker(msgspec.Struct, array_like=True):
    """The creator of a handoff token, as named in it: its digest protects the name."""

    user_id: str
    device_id: str
    jti: str
    family: str
    issued_at: float


def new_token(identity: Identity, device_id: str) -> str:
    """A secret, and behind the dot whose token made it, so that it ends with that token."""
    who = Maker(
        identity.user_id, device_id, identity.jti, identity.family, round(identity.issued_at, 3)
    )
    shown = base64.urlsafe_b64encode(msgspec.json.encode(who)).rstrip(b"=").decode()
    return f"{secrets.token_urlsafe(TOKEN_BYTES)}.{shown}"


def maker_of(token: str) -> Identity | None:
    """Who has made a handoff token; None for what is none, which Redis does not know either."""
    try:
        part = base64.urlsafe_b64decode(token.partition(".")[2] + "==")
        who = msgspec.json.decode(part, type=Maker)
    except (ValueError, RecursionError):
        return None
    return Identity(
        who.user_id, Role.USER, who.jti, who.issued_at, 0.0, "", who.device_id, (), who.family
    )


def digest_of(token: str) -> str:
    """What Redis knows of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def call_body(call: HandedCall) -> HandedCallBody:
    """A call that moves along, as the target sees it."""
    body = HandedCallBody(call.channel_id, call.waddle_id)
    if call.token is not None:
        body.token, body.session_id = call.token.token, call.token.session_id
        body.expires_at = timestamp(round(call.token.expires_at * 1000))
        return body
    body.error = call.error
    if call.retry_after is not None:
        body.retry_after_ms = round(call.retry_after * 1000)
    return body


def redeemed_json(session_id: str, answer: Redeemed, call: HandedCall | None) -> bytes:
    """The answer; the state's bytes are passed on as they are stored."""
    body = RedeemedBody(
        True,
        session_id,
        answer.source,
        answer.target,
        answer.version,
        answer.epoch,
        answer.lineage,
        msgspec.Raw(render_pairs(answer.flat)),
        msgspec.UNSET if call is None else call_body(call),
    )
    return encode.to_json(body)
