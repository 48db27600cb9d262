"""Voice channels over HTTP for participants: token, participants, leave, history.

A caller's grants list the channels of each waddle that are open to it (`syncbridge.voice.grants`).
Only callers with a grant learn whether a channel exists.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import SERVICES, Identity, authorize
from syncbridge.ids import default_session, short_id
from syncbridge.rates.buckets import TokenBuckets
from syncbridge.voice import grants
from syncbridge.voice.call_records import MediaConnection
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import told_by
from syncbridge.voice.health import CallHealth
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.provider.records import CannotVerify, Metrics
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.http import Authenticate, named_device
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.channels import (
    BODY,
    ChannelQuery,
    channel_query,
    claimed,
    no_call,
    reached,
    required,
    told,
)
from syncbridge_server.http.support.problem import decode_json, read_body, read_json, require_json
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import ChannelId, JsonObject, Timestamp, describe
from syncbridge_server.voice.assembly import Voice
from syncbridge_server.voice.rooms.leaving import Leaving
from syncbridge_server.voice.rooms.opening import NotLive

_log = get_logger("VOICE")


class TokenBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of `POST /api/voice/token`."""

    waddle_id: ChannelId
    channel_id: ChannelId


class TokenAnswer(msgspec.Struct, rename="camel"):
    """Access to a call. `ice_servers` is empty: the provider's client library has its own."""

    token: str
    session_id: str
    ice_servers: list[JsonObject]
    expires_at: Timestamp


class LeaveBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of `POST /voice/channels/{channel_id}/leave`. `user_id`: for services and admins."""

    user_id: Annotated[str, Meta(extra_json_schema={"maxLength": 64})] = ""


class LeaveAnswer(msgspec.Struct, rename="camel"):
    """`left`: the user was in the call and has left it."""

    channel_id: str
    user_id: str
    left: bool


class RoomBody(msgspec.Struct, rename="camel"):
    """The call of a channel and its session at the provider."""

    session_id: str
    generation: int
    state: str
    created_at: Timestamp
    opened_at: Timestamp
    max_participants: int
    recording: str
    last_error: str


class DoubtBody(msgspec.Struct, rename="camel"):
    """Evidence against a connection: by webhook, report, list or operator, true at a time."""

    source: str
    at: Timestamp


class ConnectionBody(msgspec.Struct, rename="camel"):
    """A connection to the provider. Without an id, only its existence is known.

    `seen_at`, `seen_by`: the latest evidence of it, and its source. `shown_at`: the latest evidence
    that is not its client's own. `lease_until`: its client's reports are valid until then.
    """

    connection_id: str
    generation: int
    seen_at: Timestamp
    seen_by: str
    shown_at: Timestamp
    lease_until: Timestamp | None
    doubts: list[DoubtBody]


class EvidenceBody(msgspec.Struct, rename="camel"):
    """Why a participant is shown: the first evidence, and the latest confirmation.

    `source`: webhook, report or list; empty: not recorded. `ref`: the webhook's id, the device.
    """

    source: str
    ref: str
    last_confirmed_at: Timestamp
    last_confirmed_by: str
    device_id: str
    connections: list[ConnectionBody]


class ParticipantBody(msgspec.Struct, rename="camel"):
    """A participant. `evidence`: for services, admins and the user."""

    user_id: str
    joined_at: Timestamp
    state: str
    muted: bool
    video: bool
    evidence: EvidenceBody | None


class FiguresBody(msgspec.Struct, rename="camel"):
    """Figures of a call, times in ms."""

    participants: int
    peak_participants: int
    total_participant_time: int
    duration: int
    migrations: int
    last_activity: Timestamp
    last_sync_at: Timestamp | None


class QualityBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """The provider's figures (packets, ms, ms, bits a second), or in `error` why they are
    missing."""

    packets_lost: float | None = None
    jitter: float | None = None
    latency: float | None = None
    bandwidth: float | None = None
    error: str = ""


class MigrationBody(msgspec.Struct, rename="camel"):
    """The latest migration.

    `result`: opening, moving; then moved, stranded (nobody came), failed (no session), ended.
    """

    reason: str
    result: str
    began_at: Timestamp
    ended_at: Timestamp | None
    participants: int
    migrated_count: int
    stranded_count: int


class HealthBody(msgspec.Struct):
    """The health of a call: a score from 0 to 1, its checks, and a status.

    `reason`: why the last comparisons with the provider, two or more, could not verify the call.
    """

    score: float
    status: str
    checks: dict[str, bool]
    reason: str


class ChannelBody(msgspec.Struct, rename="camel"):
    """A voice channel. Without a call `session` and `metrics` are null.

    `removing`: users that the provider must still remove: their tokens were revoked, or they came
    back after a removal. Services and admins see all, others only themselves.
    """

    channel_id: str
    waddle_id: str
    session: RoomBody | None
    participants: list[ParticipantBody]
    metrics: FiguresBody | None
    health: HealthBody
    migration: MigrationBody | None
    quality: QualityBody | None
    removing: list[str]


class CallBody(msgspec.Struct, rename="camel"):
    """An ended call; time in ms."""

    session_id: str
    generation: int
    created_at: Timestamp
    ended_at: Timestamp
    reason: str
    peak_participants: int
    total_participant_time: int
    migrations: int


class HistoryAnswer(msgspec.Struct, rename="camel"):
    """Ended calls of a channel, latest first."""

    channel_id: str
    calls: list[CallBody]


class HistoryQuery(ChannelQuery):
    """Query of `GET /voice/channels/{channel_id}/history`."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class VoiceRoutes:
    """The routes.

    Args:
        voice: None without a configured provider: every route answers 503.
        id_bytes: longest user or device id.
        buckets: rate of voice tokens for each user; None: unlimited.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        voice: Voice | None,
        authenticate: Authenticate,
        id_bytes: int,
        buckets: TokenBuckets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._voice = voice
        self._authenticate = authenticate
        self._id_bytes = id_bytes
        self._buckets = buckets
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        channel = "/voice/channels/{channel_id}"
        return [
            Route("/api/voice/token", self.issue_token, methods=["POST"]),
            Route(channel, self.show_channel, methods=["GET"]),
            Route(f"{channel}/history", self.show_history, methods=["GET"]),
            Route(f"{channel}/leave", self.leave_channel, methods=["POST"]),
        ]

    def admin_routes(self) -> list[BaseRoute]:
        """The read-only routes, for operators that `authenticate` accepts as admins."""
        return [Route("/admin/voice/channels/{channel_id}", self.show_channel, methods=["GET"])]

    @describe(
        "A token for the call of a voice channel",
        body=TokenBody,
        answers={200: TokenAnswer},
        headers={"X-Device-ID": "The device that will be in the call."},
        errors=(409, 503),
        tag="voice",
    )
    async def issue_token(self, request: Request) -> Response:
        """Opens the call if there is none. 409 when it is full, 503 while the provider is away."""
        identity = await self._authenticate(request, session_bound=True)
        voice = required(self._voice)
        body = await read_json(request, TokenBody, BODY)
        channel_id = ids.channel_id("channelId", body.channel_id)
        waddle_id = ids.channel_id("waddleId", body.waddle_id)
        permissions = grants.require(identity, waddle_id, channel_id)
        self._hold_to_rate(identity)
        device_id = identity.device_id or named_device(request)
        if device_id:
            short_id("X-Device-ID", device_id, self._id_bytes)
        logins = tuple(name for name in (identity.jti, identity.family) if name)
        voice.revoking.note(identity.user_id, (*logins, *[device_id][: bool(device_id)]))
        issue = partial(
            voice.tokens.issue,
            identity.user_id,
            identity.name or identity.user_id,
            waddle_id,
            permissions=permissions,
            device_id=device_id,
            sid=identity.session_id or default_session(identity.user_id),
            logins=logins,
        )
        try:
            issued = await claimed(voice.names, waddle_id, channel_id, issue)
        except ProviderError as error:
            raise told(error, channel_id) from None
        _log.info("voice_token_issued", channel_id=channel_id, session_id=issued.session_id)
        expires_at = timestamp(int(issued.expires_at * 1000))
        return encoded(TokenAnswer(issued.token, issued.session_id, [], expires_at))

    @describe(
        "A voice channel",
        answers={200: ChannelBody},
        query=ChannelQuery,
        errors=(404, 409, 422),
        tag="voice",
    )
    async def show_channel(self, request: Request) -> Response:
        """Its call, participants and health. 404 when there never was a call."""
        channel, identity = await self._reached(request)
        voice = required(self._voice)
        quality = await voice.monitor.quality(channel)
        health = await voice.monitor.health(channel)
        seer = None if grants.unlimited(identity) else identity.user_id
        return encoded(body_of(channel, voice.writer.now(), health, quality, seer))

    @describe(
        "Calls of a voice channel that have ended",
        answers={200: HistoryAnswer},
        query=HistoryQuery,
        errors=(404, 409, 422),
        tag="voice",
    )
    async def show_history(self, request: Request) -> Response:
        """With their final figures, latest first."""
        identity = await self._authenticate(request, session_bound=True)
        voice = required(self._voice)
        query = channel_query(request, HistoryQuery)
        record = (await reached(voice, identity, request, query.waddle)).record
        finals = await voice.channels.finals(record.channel_id, query.limit)
        calls = [
            CallBody(
                final.session_id,
                final.generation,
                timestamp(final.created_at),
                timestamp(final.ended_at),
                final.reason,
                final.peak_participants,
                final.total_participant_ms,
                final.migrations,
            )
            for final in finals
        ]
        return encoded(HistoryAnswer(record.public_id, calls))

    @describe(
        "Leave the call of a voice channel",
        body=LeaveBody,
        answers={200: LeaveAnswer},
        query=ChannelQuery,
        errors=(404, 409, 422, 503),
        tag="voice",
    )
    async def leave_channel(self, request: Request) -> Response:
        """With all devices. Services and admins may name the user, who then needs a new token to
        come back. 409 without a call.

        An empty body counts as an empty object.
        """
        channel, identity = await self._reached(request)
        channel_id = channel.record.channel_id
        text = await read_body(request, BODY)
        if text:
            require_json(request)
        body = decode_json(text, LeaveBody) if text else LeaveBody()
        user_id = self._leaver(identity, body)
        audited(request.scope, user_id=user_id)
        voice = required(self._voice)
        try:
            leaving, sent_away = Leaving(voice.provider, voice.writer), user_id != identity.user_id
            by = identity.user_id if sent_away else ""
            left = await leaving.leave(channel_id, user_id, by=by, keep_out=sent_away)
        except NotLive:
            raise no_call() from None
        except ProviderError as error:
            raise told(error, channel_id) from None
        _log.info("voice_user_left", channel_id=channel_id, user_id=user_id, by=identity.user_id)
        return encoded(LeaveAnswer(channel.record.public_id, user_id, left))

    def _leaver(self, identity: Identity, body: LeaveBody) -> str:
        user_id = body.user_id or identity.user_id
        if user_id != identity.user_id:
            authorize(identity, SERVICES)
        return short_id("userId", user_id, self._id_bytes)

    def _hold_to_rate(self, identity: Identity) -> None:
        """Raise RATE_LIMITED for a user who asks too often: each token may cost a provider
        request."""
        if self._buckets is None or identity.privileged:
            return
        wait = self._buckets.take(identity.user_id, self._clock())
        if wait:
            raise SyncBridgeError(ErrorCode.RATE_LIMITED, "too many voice tokens", retry_after=wait)

    async def _reached(self, request: Request) -> tuple[Channel, Identity]:
        """The channel of the path, and the caller. Raises as `reached`."""
        identity = await self._authenticate(request, session_bound=True)
        voice = required(self._voice)
        waddle_id = channel_query(request).waddle
        return await reached(voice, identity, request, waddle_id), identity


def body_of(
    channel: Channel,
    now: int,
    health: CallHealth,
    quality: Metrics | CannotVerify | None = None,
    seer: str | None = None,
) -> ChannelBody:
    """A channel as shown at `now` (Unix ms). `seer`: sees only their own evidence."""
    record = channel.record
    return ChannelBody(
        record.public_id,
        record.waddle_id,
        _room(channel),
        _participants(channel, seer),
        _figures(channel, now),
        HealthBody(health.score, health.status, health.checks, health.reason),
        _migration(channel),
        _quality(quality),
        [user_id for user_id in record.unwelcome if seer in (None, user_id)],
    )


def _migration(channel: Channel) -> MigrationBody | None:
    move, call = channel.record.move, channel.call
    if move is None:
        return None
    moving = move.result == "moving" and call is not None
    return MigrationBody(
        move.reason,
        move.result,
        timestamp(move.began_at),
        timestamp(move.ended_at) if move.ended_at else None,
        move.participants,
        len(call.arrived) if moving and call is not None else move.migrated,
        move.stranded,
    )


def _quality(quality: Metrics | CannotVerify | None) -> QualityBody | None:
    if quality is None:
        return None
    if isinstance(quality, CannotVerify):
        return QualityBody(error=quality.detail or str(quality.doubt))
    return QualityBody(quality.packets_lost, quality.jitter, quality.latency, quality.bandwidth)


def _room(channel: Channel) -> RoomBody | None:
    room, call, record = channel.record.room, channel.call, channel.record
    if room is None or call is None:
        return None
    return RoomBody(
        room.session_id,
        room.generation,
        call.phase.value,
        timestamp(record.created_at),
        timestamp(room.opened_at),
        record.config.max_participants,
        record.recording,
        record.last_error,
    )


def _participants(channel: Channel, seer: str | None) -> list[ParticipantBody]:
    call, shown = channel.call, []
    for user_id in call.users if call is not None else ():
        participant = channel.record.participants.get(user_id)
        shown.append(
            ParticipantBody(
                user_id,
                timestamp((call.since(user_id) if call is not None else None) or 0),
                "moving" if participant is not None and participant.moving_to else "connected",
                participant is not None and participant.muted,
                participant is not None and participant.video,
                _evidence(channel, user_id) if seer in (None, user_id) else None,
            )
        )
    return shown


def _evidence(channel: Channel, user_id: str) -> EvidenceBody | None:
    member = channel.call.member(user_id) if channel.call is not None else None
    if member is None:
        return None
    participant, held = channel.record.participants.get(user_id), list(member.connections.values())
    last = max(held, key=lambda one: one.seen_at)
    return EvidenceBody(
        member.by.teller.value if member.by is not None else "",
        member.by.ref if member.by is not None else "",
        timestamp(last.seen_at),
        last.seen_by,
        participant.device_id if participant is not None else "",
        [_connection(one) for one in held],
    )


def _connection(one: MediaConnection) -> ConnectionBody:
    doubts = [doubt for doubt in (one.doubt, one.unshown) if doubt is not None]
    return ConnectionBody(
        one.id,
        one.generation,
        timestamp(one.seen_at),
        one.seen_by,
        timestamp(one.shown_at),
        timestamp(one.lease) if one.lease is not None else None,
        [DoubtBody(told_by(doubt).value, timestamp(doubt.at)) for doubt in dict.fromkeys(doubts)],
    )


def _figures(channel: Channel, now: int) -> FiguresBody | None:
    call, record = channel.call, channel.record
    if call is None:
        return None
    statistics = call.statistics(now)
    return FiguresBody(
        statistics.participants,
        statistics.peak,
        statistics.total_ms,
        max(now - record.created_at, 0),
        record.migrations,
        timestamp(record.last_activity),
        timestamp(record.last_sync_at) if record.last_sync_at else None,
    )
