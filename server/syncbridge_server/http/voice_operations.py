"""Voice channels over HTTP for services: prewarm, configure, migrate, mute, end, and metrics."""

from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import ADMIN_READERS, SERVICES, Identity
from syncbridge.voice.ahead import configure, prewarm, wanted_config
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import EvidenceOrigin, Teller
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.durations import short_duration
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.channels import (
    BODY,
    ChannelQuery,
    channel_query,
    claimed,
    configured_key,
    no_call,
    path_channel,
    reached,
    required,
    told,
)
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.http.support.voice_config import (
    ChannelConfigAnswer,
    ConfigAnswer,
    ConfigBody,
    chosen_config,
    shown_config,
)
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import ChannelId, Timestamp, describe
from syncbridge_server.settings import Settings
from syncbridge_server.voice.assembly import Voice
from syncbridge_server.voice.figures.survey import VoiceFigures, survey
from syncbridge_server.voice.from_settings import default_config
from syncbridge_server.voice.rooms.opening import NotLive, require_waddle

_log = get_logger("VOICE")


class PrewarmBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of `prewarm`. `starts_at`: when the event begins; by default now."""

    waddle_id: ChannelId
    starts_at: Annotated[datetime, Meta(tz=True)] | None = None
    config: ConfigBody | None = None


class PrewarmAnswer(msgspec.Struct, rename="camel"):
    """The room is open from `warm_from` and kept until `warm_until`; `session_id` if it is open.

    `config`: its configuration.
    """

    channel_id: str
    session_id: str | None
    warm_from: Timestamp
    warm_until: Timestamp
    config: ConfigAnswer


class MigrateAnswer(msgspec.Struct, rename="camel"):
    """Participants were told to rejoin in `session_id`."""

    channel_id: str
    session_id: str


class MuteBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of `mute`."""

    user_id: Annotated[str, Meta(extra_json_schema={"maxLength": 64})]


class MuteAnswer(msgspec.Struct, rename="camel"):
    """`muted`: the user is in the call with every microphone off."""

    channel_id: str
    user_id: str
    muted: bool


class EndAnswer(msgspec.Struct, rename="camel"):
    """`ended`: there was a call or a room, which has ended."""

    channel_id: str
    ended: bool


class VoiceMetricsBody(VoiceFigures, kw_only=True, rename="camel"):
    """Answer of `GET /admin/metrics/voice`. `enabled`: a voice provider is configured."""

    enabled: bool
    provider: str
    webhooks_waiting: int
    at: Timestamp | None


class VoiceOperationRoutes:
    """The routes. `voice`: None when no provider is configured."""

    def __init__(self, voice: Voice | None, authenticate: BearerAuth, settings: Settings) -> None:
        self._voice = voice
        self._authenticate = authenticate
        self._settings = settings

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        channel = "/voice/channels/{channel_id}"
        return [
            Route(f"{channel}/config", self.configure, methods=["PUT"]),
            Route(f"{channel}/config", self.show_config, methods=["GET"]),
            Route(f"{channel}/prewarm", self.prewarm, methods=["POST"]),
            Route(f"{channel}/migrate", self.migrate, methods=["POST"]),
            Route(f"{channel}/mute", self.mute, methods=["POST"]),
            Route(f"{channel}/end", self.end, methods=["POST"]),
            Route("/admin/metrics/voice", self.metrics, methods=["GET"]),
        ]

    @describe(
        "Open a voice channel's session ahead of an event",
        body=PrewarmBody,
        answers={200: PrewarmAnswer},
        query=ChannelQuery,
        errors=(409, 503),
        tag="voice",
    )
    async def prewarm(self, request: Request) -> Response:
        """Kept open until some minutes after the event's begin if nobody joins.

        409 when a running call was opened with another configuration than `config`.
        """
        identity = await self._in_charge(request)
        voice = required(self._voice)
        channel_id = path_channel(request)
        query = channel_query(request)
        body = await read_json(request, PrewarmBody, BODY)
        waddle_id = ids.channel_id("waddleId", body.waddle_id)
        audited(request.scope, waddle_id=waddle_id)
        if query.waddle not in ("", waddle_id):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD, "waddle: not the waddleId of the body", field="waddle"
            )
        act = partial(self._prewarm, body=body, waddle_id=waddle_id)
        answer = await claimed(voice.names, waddle_id, channel_id, act)
        _log.info(
            "voice_channel_prewarmed",
            channel_id=channel_id,
            by=identity.user_id,
            session_id=answer.session_id,
            waddle_id=waddle_id,
        )
        return encoded(answer)

    async def _prewarm(self, key: str, *, body: PrewarmBody, waddle_id: str) -> PrewarmAnswer:
        """Prewarm the channel of a key. Raises OtherWaddle, CALL_ACTIVE, and as `_open`."""
        writer = required(self._voice).writer
        now = writer.now()
        opens_at = self._opens_at(body, now)
        given = body.config is not None and body.config != ConfigBody()
        base = wanted_config(await writer.read(key), now, default_config(self._settings))
        config = self._config(body.config, base)
        rule = partial(
            warmed, opens_at=opens_at, config=config, waddle_id=waddle_id, required=given
        )
        warm_from, warm_until = await writer.change(key, rule)
        session_id = await self._open(key, waddle_id) if opens_at <= now else None
        times = timestamp(warm_from), timestamp(warm_until)
        return PrewarmAnswer(id_of_key(key), session_id, *times, shown_config(config))

    @describe(
        "Configure a voice channel",
        body=ConfigBody,
        answers={200: ChannelConfigAnswer},
        query=ChannelQuery,
        errors=(409, 422, 503),
        tag="voice",
    )
    async def configure(self, request: Request) -> Response:
        """Applies to sessions that are opened from now on; a running call does not change. Omitted
        fields have their defaults: `{}` removes the configuration.
        """
        identity = await self._in_charge(request)
        voice = required(self._voice)
        waddle_id = channel_query(request).waddle
        if waddle_id:
            audited(request.scope, waddle_id=waddle_id)
        body = await read_json(request, ConfigBody, BODY)
        default = default_config(self._settings)
        standing = self._config(body) if body != ConfigBody() else None
        rule = partial(configured, config=standing, default=default, waddle_id=waddle_id)
        channel_id, change = path_channel(request), partial(voice.writer.change, rule=rule)
        if waddle_id:
            in_use = await claimed(voice.names, waddle_id, channel_id, change)
        else:
            in_use = await change(await configured_key(voice.names, identity, request))
        _log.info(
            "voice_channel_configured",
            channel_id=channel_id,
            by=identity.user_id,
            waddle_id=waddle_id,
        )
        return encoded(self._shown(channel_id, standing, in_use))

    @describe(
        "The configuration of a voice channel",
        answers={200: ChannelConfigAnswer},
        query=ChannelQuery,
        errors=(404, 409, 422),
        tag="voice",
    )
    async def show_config(self, request: Request) -> Response:
        """The configuration of its sessions. `inUse`: that of the open session."""
        identity = await self._in_charge(request)
        record = (await self._known(identity, required(self._voice), request)).record
        in_use = record.config if record.room is not None else None
        return encoded(self._shown(record.public_id, record.standing, in_use))

    def _shown(
        self, channel_id: str, standing: ChannelConfig | None, in_use: ChannelConfig | None
    ) -> ChannelConfigAnswer:
        config = shown_config(standing or default_config(self._settings))
        used = shown_config(in_use) if in_use is not None else None
        return ChannelConfigAnswer(channel_id, standing is not None, config, used)

    @describe(
        "Move a call to a new session",
        answers={200: MigrateAnswer},
        query=ChannelQuery,
        errors=(404, 409, 422, 503),
        tag="voice",
    )
    async def migrate(self, request: Request) -> Response:
        """Tells the participants to rejoin. 409 without a call, or while it moves.

        503 when the provider opens no other session: the call stays where it is.
        """
        identity = await self._in_charge(request)
        voice = required(self._voice)
        channel = await self._known(identity, voice, request)
        channel_id, record = channel.record.channel_id, channel.record
        if not channel.live:
            raise no_call()
        if record.previous is not None or record.coming is not None:
            raise SyncBridgeError(
                ErrorCode.CALL_MOVING, "participants are still moving", retry_after=10.0
            )
        await self._move(channel_id)
        room = (await voice.writer.read(channel_id)).record.room
        session_id = room.session_id if room is not None else ""
        return encoded(MigrateAnswer(record.public_id, session_id))

    @describe(
        "Mute a participant of a call",
        body=MuteBody,
        answers={200: MuteAnswer},
        query=ChannelQuery,
        errors=(404, 409, 422, 503),
        tag="voice",
    )
    async def mute(self, request: Request) -> Response:
        """Switches their microphones off; they may switch them on again. 422 when the provider
        cannot mute.
        """
        identity = await self._in_charge(request)
        voice = required(self._voice)
        channel = await self._known(identity, voice, request)
        body = await read_json(request, MuteBody, BODY)
        user_id = ids.short_id("userId", body.user_id, self._settings.id_bytes)
        audited(request.scope, user_id=user_id)
        if not voice.provider.capabilities.server_mute:
            raise SyncBridgeError(ErrorCode.UNSUPPORTED, "the voice provider cannot mute users")
        room, channel_id = channel.record.room, channel.record.channel_id
        if not channel.live or room is None:
            raise no_call()
        try:
            muted = await voice.provider.mute(room.session_id, user_id)
        except ProviderError as error:
            raise told(error, channel_id) from None
        _log.info("voice_user_muted", channel_id=channel_id, user_id=user_id, by=identity.user_id)
        return encoded(MuteAnswer(channel.record.public_id, user_id, muted))

    @describe(
        "End the call of a voice channel",
        answers={200: EndAnswer},
        query=ChannelQuery,
        errors=(404, 409, 422),
        tag="voice",
    )
    async def end(self, request: Request) -> Response:
        """Tells all participants, keeps the final figures, and ends the provider's session."""
        identity = await self._in_charge(request)
        voice = required(self._voice)
        channel_id = (await self._known(identity, voice, request)).record.channel_id
        try:
            await voice.writer.change(channel_id, partial(ended, by=identity.user_id))
            was_there = True
        except NotLive:
            was_there = False
        _log.info("voice_call_ended", channel_id=channel_id, by=identity.user_id, ended=was_there)
        return encoded(EndAnswer(id_of_key(channel_id), was_there))

    @describe("Metrics of voice calls", answers={200: VoiceMetricsBody}, tag="admin")
    async def metrics(self, request: Request) -> Response:
        """Of all live calls, on all nodes; zeros without a voice provider."""
        await self._authenticate(request, ADMIN_READERS)
        voice = self._voice
        if voice is None:
            nothing = VoiceMetricsBody(enabled=False, provider="", webhooks_waiting=0, at=None)
            return encoded(nothing)
        figures = await survey(voice.writer)
        body = VoiceMetricsBody(
            enabled=True,
            provider=self._settings.voice_provider,
            webhooks_waiting=await voice.inbox.waiting(),
            at=timestamp(voice.writer.now()),
            **msgspec.structs.asdict(figures),
        )
        return encoded(body)

    async def _in_charge(self, request: Request) -> Identity:
        return await self._authenticate(request, SERVICES)

    async def _known(self, identity: Identity, voice: Voice, request: Request) -> Channel:
        return await reached(voice, identity, request, channel_query(request).waddle)

    async def _open(self, channel_id: str, waddle_id: str) -> str:
        try:
            room = await required(self._voice).opening.room(channel_id, waddle_id)
        except ProviderError as error:
            raise told(error, channel_id) from None
        return room.session_id

    async def _move(self, channel_id: str) -> None:
        try:
            begun = await required(self._voice).migration.begin(channel_id, "requested")
        except ProviderError as error:
            raise told(error, channel_id) from None
        if not begun:
            raise SyncBridgeError(
                ErrorCode.PROVIDER_UNAVAILABLE, "the call cannot be moved now", retry_after=5.0
            )

    def _opens_at(self, body: PrewarmBody, now: int) -> int:
        """When to open the room, in Unix ms. Raises INVALID_FIELD for a time too far off."""
        if body.starts_at is None:
            return now
        starts_at = round(body.starts_at.timestamp() * 1000)
        longest = 0.9 * self._settings.voice_ttl
        if starts_at > now + longest * 1000:
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"startsAt: at most {short_duration(longest)} ahead is expected",
                field="startsAt",
            )
        return max(now, starts_at - round(self._settings.voice_prewarm * 1000))

    def _config(self, body: ConfigBody | None, base: ChannelConfig | None = None) -> ChannelConfig:
        """The server's defaults, or `base`, overridden by a body.

        Raises INVALID_FIELD.
        """
        default = default_config(self._settings)
        offered = required(self._voice).provider.capabilities.features
        return chosen_config(body, base or default, default.max_participants, offered)


def warmed(
    channel: Channel,
    now: int,
    *,
    opens_at: int,
    config: ChannelConfig,
    waddle_id: str,
    required: bool,
) -> tuple[int, int]:
    """Note when to open a room; returns from when and until when it is open.

    `required`: the caller gave a configuration. Raises OtherWaddle, CALL_ACTIVE.
    """
    require_waddle(channel, waddle_id)
    if required and opens_at <= now:
        require_unused(channel, now, config)
    prewarm(channel, now, opens_at, config, waddle_id)
    return channel.record.warm_from, channel.record.warm_until


def configured(
    channel: Channel,
    now: int,
    *,
    config: ChannelConfig | None,
    default: ChannelConfig,
    waddle_id: str = "",
) -> ChannelConfig | None:
    """Configure a channel, of `waddle_id` if named. Raises OtherWaddle.

    Returns the configuration of the open room, or None.
    """
    require_waddle(channel, waddle_id)
    channel.record.waddle_id = channel.record.waddle_id or waddle_id
    configure(channel, now, config, default)
    return channel.record.config if channel.record.room is not None else None


def require_unused(channel: Channel, now: int, config: ChannelConfig) -> None:
    """Raise CALL_ACTIVE when people are in a call with another configuration."""
    record = channel.record
    if record.room is not None and record.config != config and channel.taken(now):
        raise SyncBridgeError(
            ErrorCode.CALL_ACTIVE,
            "config: a call is under way that was opened in another way; end it first, or leave"
            " config out",
            field="config",
        )


def ended(channel: Channel, now: int, *, by: str) -> None:
    """End the call for `by`. Raises NotLive without a call or room."""
    if channel.record.room is None:
        raise NotLive
    channel.end(now, "ended", EvidenceOrigin(Teller.OPERATOR, by))
