"""Calls for operators, viewers too: what `/voice` and `/users` show, to be read only."""

from collections.abc import Collection
from functools import partial

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.identity import ADMIN_READERS, Identity, Role
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.voice import ChannelBody, VoiceRoutes
from syncbridge_server.http.voice_evidence import (
    ChannelsAnswer,
    ChannelsQuery,
    TimelineAnswer,
    TimelineQuery,
    UserCallsAnswer,
    VoiceEvidenceRoutes,
)
from syncbridge_server.openapi.describe import describe
from syncbridge_server.voice.assembly import Voice


class ReadAsAdmin:
    """Authentication for routes that read: an admin or viewer is shown what an admin is shown."""

    def __init__(self, authenticate: BearerAuth) -> None:
        self._authenticate = authenticate

    async def __call__(
        self,
        request: HTTPConnection,
        roles: Collection[Role] = ADMIN_READERS,
        *,
        session_bound: bool = False,
    ) -> Identity:
        """The caller, as an admin. What the route asks for is not looked at."""
        identity = await self._authenticate(request, ADMIN_READERS)
        return msgspec.structs.replace(identity, role=Role.ADMIN)


class AdminCallRoutes:
    """The routes. `voice`: None when no provider is configured: then they are answered 503."""

    def __init__(self, voice: Voice | None, authenticate: BearerAuth, id_bytes: int) -> None:
        readers = ReadAsAdmin(authenticate)
        self._rooms = VoiceRoutes(voice, readers, id_bytes)
        self._evidence = VoiceEvidenceRoutes(voice, readers, id_bytes)

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        channels = "/admin/voice/channels"
        get = partial(Route, methods=["GET"])
        return [
            get(channels, self.channels),
            get(channels + "/{channel_id}", self.channel),
            get(channels + "/{channel_id}/timeline", self.timeline),
            get("/admin/users/{user_id}/calls", self.user_calls),
        ]

    @describe(
        "Voice channels with a call, all of them",
        answers={200: ChannelsAnswer},
        query=ChannelsQuery,
        errors=(422, 503),
    )
    async def channels(self, request: Request) -> Response:
        """As `GET /voice/channels` shows them to an admin."""
        return await self._evidence.channels(request)

    @describe("A voice channel, with evidence", answers={200: ChannelBody}, errors=(404, 422))
    async def channel(self, request: Request) -> Response:
        """As `GET /voice/channels/{channel_id}` shows it to an admin."""
        return await self._rooms.show_channel(request)

    @describe(
        "The timeline of a voice channel",
        answers={200: TimelineAnswer},
        query=TimelineQuery,
        errors=(404, 422, 503),
    )
    async def timeline(self, request: Request) -> Response:
        """As `GET /voice/channels/{channel_id}/timeline` shows it to an admin."""
        return await self._evidence.timeline(request)

    @describe("The calls of a user", answers={200: UserCallsAnswer}, errors=(422, 503))
    async def user_calls(self, request: Request) -> Response:
        """As `GET /users/{user_id}/calls` shows them to an admin."""
        return await self._evidence.user_calls(request)
