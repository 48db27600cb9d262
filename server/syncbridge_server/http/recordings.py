"""Recordings of a voice channel, for services and admins: the only place that shows addresses."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.identity import SERVICES
from syncbridge.voice.recordings import Recorded
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.channels import path_channel
from syncbridge_server.openapi.describe import Timestamp, describe
from syncbridge_server.ports.recordings import Recordings


class RecordingRow(msgspec.Struct, rename="camel"):
    """One recording. Whoever has the `url` can fetch it. `duration` in seconds, if told."""

    recording_id: str
    session_id: str
    ready_at: Timestamp
    url: str
    duration: float | None


class RecordingsBody(msgspec.Struct, rename="camel"):
    """The recordings of a channel, the latest first."""

    channel_id: str
    recordings: list[RecordingRow]


class RecordingRoutes:
    """The routes. `recordings` is None without a voice provider."""

    def __init__(self, recordings: Recordings | None, authenticate: BearerAuth) -> None:
        self._recordings = recordings
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        path = "/voice/channels/{channel_id}/recordings"
        return [Route(path, self.of_channel, methods=["GET"])]

    @describe("Recordings of a voice channel", answers={200: RecordingsBody}, errors=(422,))
    async def of_channel(self, request: Request) -> Response:
        """Those that can still be fetched; none of a channel that nobody knows."""
        await self._authenticate(request, SERVICES)
        channel_id = path_channel(request)
        found = [] if self._recordings is None else await self._recordings.of_channel(channel_id)
        return encoded(RecordingsBody(channel_id, [row_of(recorded) for recorded in found]))


def row_of(recorded: Recorded) -> RecordingRow:
    """A recording as it is shown."""
    return RecordingRow(
        recorded.recording_id,
        recorded.session_id,
        timestamp(recorded.ready_at),
        recorded.url,
        recorded.duration,
    )
