"""The devices of a session over HTTP: listing them, and signing one out."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncbridge.identity import authorize
from syncbridge.records.devices import Departure, DeviceList, Expel, ListDevices
from syncbridge.records.sessions import Device, PresenceChange
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.gateway.departures import REMOVED
from syncbridge_server.gateway.devices import decode_info, is_online
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.http.support.answers import timestamp
from syncbridge_server.http.support.devices import path_session, refuse
from syncbridge_server.openapi.describe import Answer, Timestamp, Uuid, describe
from syncbridge_server.ports.store import Store

JSON = "application/json"


class DeviceBody(msgspec.Struct):
    """A device.

    `last_seen`: for one that is online, when its presence was last renewed. `in_call`: the channel
    of the call that it holds, if any, and `waddle_id` that channel's waddle.
    """

    device_id: str
    device_type: str
    device_name: str
    os_version: str
    status: Literal["online", "offline"]
    connected_at: Timestamp
    last_seen: Timestamp
    in_call: str | msgspec.UnsetType = msgspec.UNSET
    waddle_id: str | msgspec.UnsetType = msgspec.UNSET


class DevicesBody(msgspec.Struct):
    """Answer of `GET /session/{session_id}/devices`."""

    session_id: Uuid
    devices: list[DeviceBody]
    total: int


class DeviceRoutes:
    """The routes, on one store and gateway."""

    def __init__(self, gateway: Gateway, store: Store, authenticate: BearerAuth) -> None:
        self._gateway = gateway
        self._store = store
        self._authenticate = authenticate

    def routes(self) -> list[Route]:
        """For the application's router."""
        return [
            Route("/session/{session_id}/devices", self.list_devices, methods=["GET"]),
            Route("/session/{session_id}/device/{device_id:path}", self.remove, methods=["DELETE"]),
        ]

    @describe("The devices of a session", answers={200: DevicesBody}, errors=(404,))
    async def list_devices(self, request: Request) -> Response:
        """Every device that has joined, with those that have left."""
        identity = await self._authenticate(request, session_bound=True)
        session_id = path_session(request)
        authorize(identity, session_id=session_id)
        await self._gateway.require_join(identity, session_id)
        answer: DeviceList = await self._store.call(
            ListDevices(session_id, identity.user_id, not identity.privileged)
        )
        refuse(answer.status)
        devices = [self._body(session_id, device) for device in answer.devices]
        body = DevicesBody(session_id, devices, len(devices))
        return Response(msgspec.json.encode(body), media_type=JSON)

    @describe(
        "Sign a device out of a session",
        answers={204: Answer("Removed; its socket is closed.", None)},
        errors=(404,),
    )
    async def remove(self, request: Request) -> Response:
        """Forget the device and close its socket, on whichever node that is."""
        identity = await self._authenticate(request, session_bound=True)
        session_id, device_id = path_session(request), request.path_params["device_id"]
        authorize(identity, session_id=session_id, device_id=device_id)
        await self._gateway.require_join(identity, session_id)
        answer: Departure = await self._store.call(
            Expel(session_id, device_id, identity.user_id, not identity.privileged)
        )
        refuse(answer.status)
        if answer.fence:
            self._gateway.announce(
                PresenceChange(session_id, REMOVED, answer.fence, answer.version, device_id, b"")
            )
        return Response(status_code=204)

    def _body(self, session_id: str, device: Device) -> DeviceBody:
        info = decode_info(device.info)
        held = self._gateway.voice.held_by(session_id, device.device_id)
        return DeviceBody(
            device.device_id,
            info.device_type,
            info.device_name,
            info.os_version,
            "online" if is_online(device) else "offline",
            timestamp(info.connected_at),
            timestamp(max(info.connected_at, device.seen)),
            held.channel_id or msgspec.UNSET,
            held.waddle_id or msgspec.UNSET,
        )
