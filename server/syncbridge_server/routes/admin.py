"""Administration over HTTP: a message to every connected device."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.identity import Role
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.routes.problem import read_json


class BroadcastBody(msgspec.Struct):
    """Body of `POST /admin/broadcast`."""

    message: str
    type: str = "notification"
    data: Any = None


class AdminRoutes:
    """Routes for role admin."""

    def __init__(self, gateway: Gateway, authenticate: BearerAuth) -> None:
        self._gateway = gateway
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [Route("/admin/broadcast", self.broadcast, methods=["POST"])]

    async def broadcast(self, request: Request) -> Response:
        """BROADCAST to every device of every node; `delivered` counts those of this one."""
        identity = await self._authenticate(request)
        identity.require(Role.ADMIN)
        body = await read_json(request, BroadcastBody, self._gateway.limits.message_bytes)
        members = {"message": body.message, "type": body.type}
        if body.data is not None:
            members["data"] = body.data
        delivered = self._gateway.broadcast(msgspec.json.encode(members))
        return Response(
            msgspec.json.encode({"delivered": delivered}), media_type="application/json"
        )
