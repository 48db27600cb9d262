"""Recordings of a voice channel, for services and admins: the only routes that show URLs."""

import time
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import SERVICES, Identity
from syncbridge.voice.recordings import Recorded
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.channels import (
    ChannelQuery,
    channel_query,
    known,
    path_channel,
)
from syncbridge_server.openapi.describe import Answer, Timestamp, describe
from syncbridge_server.voice.assembly import Voice

RECORDING = "recording"


class RecordingRow(msgspec.Struct, rename="camel"):
    """One recording, transcript or summary. Anyone with the `url` can fetch it.

    `duration` in seconds, if known; `expires_at`: end of its availability, if known.
    """

    recording_id: str
    session_id: str
    ready_at: Timestamp
    url: str
    duration: float | None
    kind: str
    expires_at: Timestamp | None


class RecordingsBody(msgspec.Struct, rename="camel"):
    """The recordings of a channel, the latest first."""

    channel_id: str
    recordings: list[RecordingRow]


class RecordingRoutes:
    """The routes. `voice` is None without a voice provider."""

    def __init__(self, voice: Voice | None, authenticate: BearerAuth) -> None:
        self._voice = voice
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        path = "/voice/channels/{channel_id}/recordings"
        return [
            Route(path, self.of_channel, methods=["GET"]),
            Route(f"{path}/{{recording_id}}/text", self.show_text, methods=["GET"]),
        ]

    @describe(
        "Recordings of a voice channel",
        answers={200: RecordingsBody},
        query=ChannelQuery,
        errors=(409, 422),
    )
    async def of_channel(self, request: Request) -> Response:
        """Those that can still be fetched; an unknown channel has none."""
        identity = await self._authenticate(request, SERVICES)
        key, found = await self._key(identity, request), []
        if self._voice is not None and key:
            found = await self._voice.recordings.of_channel(key)
        rows = [row_of(one) for one in still_there(found, time.time() * 1000)]
        return encoded(RecordingsBody(path_channel(request), rows))

    @describe(
        "Text of a transcript or summary",
        answers={200: Answer("Unchanged from the provider.", str, "text/plain")},
        query=ChannelQuery,
        errors=(404, 409, 422),
    )
    async def show_text(self, request: Request) -> Response:
        """404 for a text that is not kept: not fetched yet, or expired."""
        identity = await self._authenticate(request, SERVICES)
        key, text = await self._key(identity, request), None
        recording_id = unquote(request.scope["raw_path"].split(b"/")[-2].decode("ascii"))
        if self._voice is not None and key:
            text = await self._voice.recordings.text(key, recording_id)
        if text is None:
            raise SyncBridgeError(ErrorCode.NOT_FOUND, "there is no such text")
        headers = {"Cache-Control": "no-store"}
        return Response(text, media_type="text/plain", headers=headers)

    async def _key(self, identity: Identity, request: Request) -> str:
        """The key of the path's channel; empty when the named waddle has none."""
        channel_id, waddle_id = path_channel(request), channel_query(request).waddle
        if self._voice is None:
            return channel_id
        found = await known(self._voice.names, identity, request, waddle_id)
        if found is None:
            return "" if waddle_id else channel_id
        return found.key


def still_there(found: list[Recorded], now: float) -> list[Recorded]:
    """What is available at `now` (Unix ms); stored texts also after the provider's expiry."""
    over = {one.recording_id for one in found if 0 < one.expires_at <= now}
    kept = [one for one in found if one.recording_id not in over or one.kind != RECORDING]
    return [
        msgspec.structs.replace(one, url="") if one.recording_id in over else one for one in kept
    ]


def row_of(recorded: Recorded) -> RecordingRow:
    """A recording as shown."""
    return RecordingRow(
        recorded.recording_id,
        recorded.session_id,
        timestamp(recorded.ready_at),
        recorded.url,
        recorded.duration,
        recorded.kind,
        timestamp(recorded.expires_at) if recorded.expires_at else None,
    )
