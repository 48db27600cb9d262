"""Session state over HTTP: `POST /session/snapshot` and `GET /session/{uuid}`.

A snapshot is compared with what is stored inside the write's own script; devices receive only the
keys that differ.
"""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncbridge import encode, ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, authorize
from syncbridge.kernels import render_pairs
from syncbridge.records.sessions import Apply, Mode, Outcome, Place, Read, Snapshot, Status
from syncbridge.updates import check_lineage, check_version
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.gateway.engine import outcome_error
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.http.support.answers import etag, names_tag, timestamp
from syncbridge_server.http.support.devices import path_session
from syncbridge_server.http.support.fields import list_field
from syncbridge_server.http.support.problem import read_json_body
from syncbridge_server.http.support.ready import tagged_json, unchanged
from syncbridge_server.openapi.describe import (
    Answer,
    JsonObject,
    RawObject,
    ShortId,
    Timestamp,
    Uuid,
    VersionNumber,
    describe,
)
from syncbridge_server.ports.store import Store


class SnapshotBody(msgspec.Struct):
    """Body of `POST /session/snapshot`, as in the session state document."""

    session_id: Uuid
    user_id: ShortId
    state_data: RawObject
    device_id: str = ""
    app_version: str = ""
    version: VersionNumber = 0
    lineage: str = ""


class WrittenBody(msgspec.Struct):
    """Answer to a write."""

    session_id: Uuid
    version: VersionNumber
    epoch: str
    lineage: str
    created_at: Timestamp
    updated_at: Timestamp
    expires_at: Timestamp


class ReplacedBody(WrittenBody):
    """Answer to a snapshot.

    `kept`, with a state policy: keys that the caller may not write, and that are unchanged.
    """

    kept: list[str] | msgspec.UnsetType = msgspec.UNSET


class SessionBody(WrittenBody):
    """Answer to `GET /session/{session_id}`."""

    user_id: str
    device_id: str
    app_version: str
    state_data: JsonObject


_decoder = msgspec.json.Decoder(SnapshotBody)


class SessionRoutes:
    """The routes, on one store and gateway."""

    def __init__(self, gateway: Gateway, store: Store, authenticate: BearerAuth) -> None:
        self._gateway = gateway
        self._store = store
        self._authenticate = authenticate
        self._limits = gateway.limits

    def routes(self) -> list[Route]:
        """For the application's router."""
        return [
            Route("/session/snapshot", self.put_snapshot, methods=["POST"]),
            Route("/session/{session_id}", self.get_session, methods=["GET"]),
        ]

    @describe(
        "Create or replace a session's whole state",
        body=SnapshotBody,
        answers={200: Answer("Updated.", ReplacedBody), 201: Answer("Created.", ReplacedBody)},
        errors=(409,),
    )
    async def put_snapshot(self, request: Request) -> Response:
        """Create or replace a session's whole state."""
        identity = await self._authenticate(request, session_bound=True)
        body = self._decode(await read_json_body(request, self._limits.snapshot_bytes))
        write = self._write(identity, body)
        await self._gateway.require_join(identity, write.sid)
        kept = await self._spare(identity, write)
        outcome = await self._gateway.commit(write)
        if outcome.status is Status.AHEAD and body.version == 1 and outcome.version == 0:
            write = msgspec.structs.replace(write, base_version=0, base_lineage="")
            outcome = await self._gateway.commit(write)
        if outcome.status is not Status.OK:
            raise outcome_error(outcome)
        answer = encode.to_json(written(write.sid, outcome) | kept)
        status = 201 if outcome.created else 200
        return tagged_json(answer, etag(outcome), status=status)

    @describe(
        "The whole state of a session",
        answers={200: SessionBody, 304: Answer("The caller's copy is current.", None)},
        headers={"If-None-Match": "Entity tag of the copy at hand."},
        errors=(404,),
    )
    async def get_session(self, request: Request) -> Response:
        """The whole state; 304 when `If-None-Match` names the current version."""
        identity = await self._authenticate(request, session_bound=True)
        session_id = path_session(request)
        authorize(identity, session_id=session_id)
        await self._gateway.require_join(identity, session_id)
        named = list_field(request.scope, b"if-none-match")
        known = parse_etag(named) if named else None
        snapshot: Snapshot = await self._store.call(
            Read(session_id, identity.user_id, not identity.privileged, known)
        )
        refuse(snapshot)
        tag = etag(snapshot)
        if snapshot.flat is None or (named and names_tag(named, tag)):
            return unchanged(tag)
        return tagged_json(snapshot_json(session_id, snapshot), tag, revalidate=True)

    def _decode(self, data: bytes) -> SnapshotBody:
        try:
            return _decoder.decode(data)
        except msgspec.ValidationError as error:
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, str(error)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise SyncBridgeError(ErrorCode.INVALID_JSON, "body: not valid JSON") from None

    def _write(self, identity: Identity, body: SnapshotBody) -> Apply:
        parser, sid = self._gateway.parser, ids.session_id(body.session_id)
        authorize(identity, user_id=body.user_id, session_id=sid, device_id=body.device_id)
        ids.short_id("user_id", body.user_id, self._limits.id_bytes)
        for name in ("device_id", "app_version"):
            if getattr(body, name):
                ids.short_id(name, getattr(body, name), self._limits.id_bytes)
        check_version("version", body.version)
        check_lineage("lineage", body.lineage)
        return Apply(
            sid,
            body.user_id,
            body.device_id or identity.device_id,
            parser.split(body.state_data, "state_data").flat(),
            [],
            base_version=body.version,
            base_lineage=body.lineage if body.version else "",
            mode=Mode.WHOLE,
            replace=True,
            owner_check=not identity.privileged,
            app_version=body.app_version,
        )

    async def _spare(self, identity: Identity, write: Apply) -> dict[str, object]:
        """Have a snapshot leave the keys that its caller may not write.

        Those keys are taken from the stored state, and the write is valid only for that version.
        """
        policy = self._gateway.policy.policy
        if policy is None:
            return {}
        known: Snapshot = await self._store.call(
            Read(write.sid, write.user_id, write.owner_check, None)
        )
        if known.status is Status.FORBIDDEN:
            refuse(known)
        if known.status is Status.OK and write.base_version > known.version:
            ahead = Outcome(Status.AHEAD, known.version, known.version, known.epoch)
            ahead.lineage = known.lineage
            raise outcome_error(ahead)
        kept = policy.spare(identity, write, known.flat or [])
        return {"kept": [key.decode() for key in kept]}


def refuse(snapshot: Snapshot) -> None:
    """Raise the error of a refused read."""
    if snapshot.status is Status.FORBIDDEN:
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "this session belongs to another user")
    if snapshot.status is not Status.OK:
        raise SyncBridgeError(ErrorCode.SESSION_NOT_FOUND, "there is no such session")


def written(session_id: str, outcome: Outcome) -> dict[str, object]:
    """Answer to a write."""
    return {
        "session_id": session_id,
        "version": outcome.version,
        "epoch": outcome.epoch,
        "lineage": outcome.lineage,
        "created_at": timestamp(outcome.created_at),
        "updated_at": timestamp(outcome.updated_at),
        "expires_at": timestamp(outcome.expires_at),
    }


def snapshot_json(session_id: str, snapshot: Snapshot) -> bytes:
    """Answer to a read; the state's bytes are passed on as they are stored."""
    return encode.to_json(
        {
            "session_id": session_id,
            "user_id": snapshot.owner,
            "device_id": snapshot.device_id,
            "app_version": snapshot.app_version,
            "version": snapshot.version,
            "epoch": snapshot.epoch,
            "lineage": snapshot.lineage,
            "state_data": msgspec.Raw(render_pairs(snapshot.flat or [])),
            "created_at": timestamp(snapshot.created_at),
            "updated_at": timestamp(snapshot.updated_at),
            "expires_at": timestamp(snapshot.expires_at),
        }
    )


def parse_etag(header: str) -> Place | None:
    """The version in the first valid tag of an If-None-Match header."""
    for part in header.split(",")[:16]:
        fields = part.strip().removeprefix("W/").strip('"').split(".")
        if len(fields) == 3 and fields[1].isascii() and fields[1].isdigit() and len(fields[1]) < 17:
            return Place(fields[0], int(fields[1]), fields[2])
    return None
