"""One session for operators: its keys and their writers, ending it, and closing sockets."""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.identity import ADMIN_READERS, ADMINS
from syncbridge.records.devices import Departure, DeviceList, Expel, ListDevices
from syncbridge.records.sessions import Device, PresenceChange, Status
from syncbridge.updates import MAX_VERSION
from syncbridge_server.admin.administration import Administration
from syncbridge_server.admin.inspection import Inspected, Inspection, Key
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.gateway.departures import REMOVED
from syncbridge_server.gateway.devices import decode_info, is_online
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.devices import path_session, refuse
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.openapi.describe import Timestamp, Uuid, VersionNumber, describe
from syncbridge_server.ports.store import Store

BODY = 1_024


class KeyRow(msgspec.Struct):
    """A key. `value`: JSON text, as it is stored. `version`: of its last change, by `writer`.

    `writer` is empty where that is not kept (`SYNCBRIDGE_KEY_WRITERS`). `candidates` are then
    devices of which an update was taken at that version: one of them may be the writer.
    """

    key: str
    value: str
    version: VersionNumber
    writer: str
    candidates: list[str]


class DeviceRow(msgspec.Struct):
    """A device. `node`: where its socket is, empty while it is offline.

    `last_seen`: when it joined or left; `in_call`: the channel whose call it holds, of `waddle_id`;
    empty: it holds none.
    """

    device_id: str
    device_type: str
    device_name: str
    os_version: str
    app_version: str
    online: bool
    node: str
    connected_at: Timestamp
    last_seen: Timestamp
    in_call: str
    waddle_id: str


class InspectedBody(msgspec.Struct):
    """A session. `writer`: the device that made the version. `bytes`: of keys and values.

    Version 0, and no times: it was joined and never written.
    """

    session_id: Uuid
    user_id: str
    version: VersionNumber
    epoch: str
    lineage: str
    writer: str
    app_version: str
    bytes: int
    created_at: Timestamp | None
    updated_at: Timestamp | None
    expires_at: Timestamp | None
    keys: list[KeyRow]
    devices: list[DeviceRow]


class ExpiredBody(msgspec.Struct):
    """What became of a session. `online`: devices that came back meanwhile; then it is not
    `expired`, and goes on.
    """

    session_id: Uuid
    signed_out: int
    expired: bool
    online: int


class CloseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/connections/close`: a row of `GET /admin/connections`."""

    node: Annotated[str, Meta(max_length=64)]
    connection_id: Annotated[int, Meta(ge=0, le=MAX_VERSION)]


class ClosedBody(msgspec.Struct):
    """`closed`: the socket was there. Its client may come back."""

    closed: bool


class AdminSessionRoutes:
    """The routes."""

    def __init__(
        self,
        administration: Administration,
        inspection: Inspection,
        gateway: Gateway,
        store: Store,
        authenticate: BearerAuth,
    ) -> None:
        self._administration = administration
        self._inspection = inspection
        self._gateway = gateway
        self._store = store
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            Route("/admin/sessions/{session_id}", self.look, methods=["GET"]),
            Route("/admin/sessions/{session_id}", self.expire, methods=["DELETE"]),
            Route("/admin/connections/close", self.close, methods=["POST"]),
        ]

    @describe("A session, key by key", answers={200: InspectedBody}, errors=(404,))
    async def look(self, request: Request) -> Response:
        """Its state with the version and the writer of each key, as far as Redis keeps them, and
        its devices.
        """
        await self._authenticate(request, ADMIN_READERS)
        sid = path_session(request)
        answer: DeviceList = await self._store.call(ListDevices(sid, "", False))
        refuse(answer.status)
        devices = [self._device(sid, device) for device in answer.devices]
        return encoded(inspected(sid, await self._inspection.look(sid), devices))

    @describe("End a session", answers={200: ExpiredBody}, errors=(404,))
    async def expire(self, request: Request) -> Response:
        """Its devices are signed out, their sockets closed, and its state is forgotten."""
        identity = await self._authenticate(request, ADMINS)
        sid = path_session(request)
        answer: DeviceList = await self._store.call(ListDevices(sid, "", False))
        refuse(answer.status)
        for device in answer.devices:
            await self._sign_out(sid, device.device_id)
        online = await self._inspection.erase(sid)
        self._administration.notice(
            "session_expired", f"{identity.user_id} ended a session", session_id=sid
        )
        return encoded(ExpiredBody(sid, len(answer.devices), not online, online))

    @describe("Close a socket", body=CloseBody, answers={200: ClosedBody})
    async def close(self, request: Request) -> Response:
        """On whichever node it is. Its client may come back; to keep it out, revoke its tokens."""
        await self._authenticate(request, ADMINS)
        body = await read_json(request, CloseBody, BODY)
        closed = await self._administration.disconnect(body.node, body.connection_id)
        audited(request.scope, node=body.node, connection=body.connection_id)
        return encoded(ClosedBody(closed))

    async def _sign_out(self, sid: str, device_id: str) -> None:
        answer: Departure = await self._store.call(Expel(sid, device_id, "", False))
        if answer.status is Status.OK and answer.fence:
            self._gateway.announce(
                PresenceChange(sid, REMOVED, answer.fence, answer.version, device_id, b"")
            )

    def _device(self, sid: str, device: Device) -> DeviceRow:
        info, online = decode_info(device.info), is_online(device)
        return DeviceRow(
            device.device_id,
            info.device_type,
            info.device_name,
            info.os_version,
            info.app_version,
            online,
            device.conn.partition(":")[0] if online else "",
            timestamp(info.connected_at),
            timestamp(max(info.connected_at, device.seen)),
            *self._gateway.voice.held_by(sid, device.device_id),
        )


def inspected(sid: str, found: Inspected, devices: list[DeviceRow]) -> InspectedBody:
    """A session as a body."""
    shown = found.snapshot
    return InspectedBody(
        session_id=sid,
        user_id=shown.owner,
        version=shown.version,
        epoch=shown.epoch,
        lineage=shown.lineage,
        writer=shown.device_id,
        app_version=shown.app_version,
        bytes=found.bytes,
        created_at=moment(shown.created_at),
        updated_at=moment(shown.updated_at),
        expires_at=moment(shown.expires_at),
        keys=[key_row(key) for key in found.keys],
        devices=devices,
    )


def moment(unix_ms: int) -> str | None:
    """A time as text; None for 0."""
    return timestamp(unix_ms) if unix_ms else None


def key_row(key: Key) -> KeyRow:
    """A key as a body."""
    return KeyRow(key.key, key.value.decode(), key.version, key.writer, key.candidates)
