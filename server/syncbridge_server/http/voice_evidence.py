"""Evidence of calls: the list of calls, the timeline of a channel, the calls of a user.

Only services and admins see the devices and connections of all users; others see their own entries
and those of the whole call. Grants decide which channels a caller sees.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import ids
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.identity import Identity, authorize
from syncbridge.voice import grants
from syncbridge.voice.channel import Channel
from syncbridge.voice.evidence import Teller
from syncbridge.voice.health import check_health
from syncbridge.voice.stored import Stored
from syncbridge.voice.timeline import TimelineEntry
from syncbridge.voice.verification import ALL, Unverified, worst
from syncbridge_server.auth.http import Authenticate
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.channels import ChannelQuery, channel_query, reached, required
from syncbridge_server.http.support.pages import PageSize, query_of
from syncbridge_server.http.support.sealed_cursor import CursorSeal
from syncbridge_server.openapi.describe import ChannelId, Timestamp, describe
from syncbridge_server.redis.stores.cold import StateDamaged
from syncbridge_server.settings import Settings
from syncbridge_server.voice.assembly import Voice


class ChannelsQuery(msgspec.Struct):
    """Query of `GET /voice/channels`. `cursor`: `nextCursor` of the page before."""

    cursor: Annotated[str, Meta(extra_json_schema={"maxLength": 1464})] = ""
    limit: PageSize = 50


class ChannelRow(msgspec.Struct, rename="camel"):
    """A call in brief.

    `doubtful`: participants with evidence against their presence. `status`: healthy, degraded or
    unhealthy; `reason`: why the latest comparisons could not verify the call, or empty.
    """

    channel_id: ChannelId
    waddle_id: str
    session_id: str
    generation: int
    state: str
    participants: int
    doubtful: int
    created_at: Timestamp
    last_sync_at: Timestamp | None
    status: str
    reason: str


class ChannelsAnswer(msgspec.Struct, rename="camel"):
    """Channels with a call, in a stable order. `nextCursor` is empty on the last page.

    `damaged`: unreadable channels, which the page leaves out.
    """

    channels: list[ChannelRow]
    next_cursor: str
    damaged: int


class TimelineQuery(ChannelQuery, rename="camel"):
    """Query of `GET /voice/channels/{channel_id}/timeline`.

    `user_id`: only entries of this user, or of the whole call.
    """

    cursor: Annotated[str, Meta(max_length=64)] = ""
    limit: PageSize = 100
    user_id: Annotated[str, Meta(max_length=64)] = ""


class EntryRow(msgspec.Struct, rename="camel"):
    """One piece of evidence, and its effect. The page on voice calls lists the values.

    `at`: when it took effect; `said_at`: when it was true, if known. `source`: webhook, report,
    list, token, timeout, operator or provider; `ref`: the webhook's id, the device, the operator,
    the session. `wrong_ms`: longest time for which the opposite was shown. `count`: entries left
    out.
    """

    at: Timestamp
    said_at: Timestamp | None
    source: str
    ref: str
    what: str
    user_id: str
    connection_id: str
    reason: str
    generation: int
    wrong_ms: int
    count: int


class TimelineAnswer(msgspec.Struct, rename="camel"):
    """Entries, latest first. `nextCursor` is empty on the last page."""

    channel_id: ChannelId
    entries: list[EntryRow]
    next_cursor: str


class UserCallsQuery(msgspec.Struct):
    """Query of `GET /users/{user_id}/calls`: nothing can be chosen."""


class UserCallRow(msgspec.Struct, rename="camel"):
    """A channel with a current or past call of a user.

    `state`: connected, moving or left; `last_at`: time of the last note. A user who has left has no
    `joined_at`, and `session_id` is that of the continuing call, if any.
    """

    channel_id: ChannelId
    waddle_id: str
    session_id: str
    state: str
    joined_at: Timestamp | None
    last_at: Timestamp
    device_id: str


class UserCallsAnswer(msgspec.Struct, rename="camel"):
    """The calls that a user is in, then past ones, latest first.

    `damaged`: unreadable channels, which are left out.
    """

    user_id: str
    calls: list[UserCallRow]
    damaged: int


class VoiceEvidenceRoutes:
    """The routes. `voice`: None when no provider is configured."""

    def __init__(self, voice: Voice | None, authenticate: Authenticate, settings: Settings) -> None:
        self._seal = CursorSeal(settings.jwt_refresh_secret.get_secret_value())
        self._voice = voice
        self._authenticate = authenticate
        self._id_bytes = settings.id_bytes

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            Route("/voice/channels", self.channels, methods=["GET"]),
            Route("/voice/channels/{channel_id}/timeline", self.timeline, methods=["GET"]),
            Route("/users/{user_id}/calls", self.user_calls, methods=["GET"]),
        ]

    def admin_routes(self) -> list[BaseRoute]:
        """The same for operators that `authenticate` accepts as admins."""
        channels = "/admin/voice/channels"
        return [
            Route(channels, self.channels, methods=["GET"]),
            Route(channels + "/{channel_id}/timeline", self.timeline, methods=["GET"]),
            Route("/admin/users/{user_id}/calls", self.user_calls, methods=["GET"]),
        ]

    @describe(
        "Voice channels with a call",
        answers={200: ChannelsAnswer},
        query=ChannelsQuery,
        errors=(422, 503),
        tag="voice",
    )
    async def channels(self, request: Request) -> Response:
        """Channels of the caller's grants; services and admins see all.

        A page may be shorter than the limit although another one follows.
        """
        identity = await self._authenticate(request, session_bound=True)
        voice = required(self._voice)
        in_charge = grants.unlimited(identity)
        if not in_charge and not identity.voice:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "the token has no voice grant")
        query = query_of(request, ChannelsQuery)
        place = query.cursor if in_charge else self._seal.open(query.cursor)
        if place:
            ids.channel_key("cursor", place)
        listed = await voice.channels.live_page(query.limit, place)
        found, damaged = read(voice, await voice.channels.read_many(listed))
        unverified = await voice.evidence.all_unverified()
        rows = [
            row_of(channel, voice.writer.now(), unverified)
            for channel in found
            if channel.live and may_see(identity, channel)
        ]
        following = listed[-1] if len(listed) == query.limit else ""
        cursor = following if in_charge else self._seal.seal(following)
        return encoded(ChannelsAnswer(rows, cursor, damaged))

    @describe(
        "Timeline of a voice channel's calls",
        answers={200: TimelineAnswer},
        query=TimelineQuery,
        errors=(404, 409, 422, 503),
        tag="voice",
    )
    async def timeline(self, request: Request) -> Response:
        """Latest first: about 500 entries are kept, for 7 days after the last one.

        Callers other than services and admins get their own entries and those of the whole call.
        """
        identity = await self._authenticate(request, session_bound=True)
        voice = required(self._voice)
        query = channel_query(request, TimelineQuery)
        record = (await reached(voice, identity, request, query.waddle)).record
        user_id, in_charge = query.user_id, grants.unlimited(identity)
        if not in_charge and user_id not in ("", identity.user_id):
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "this concerns another user")
        user_id = user_id if in_charge else identity.user_id
        found, following = await voice.evidence.timeline(
            record.channel_id, query.limit, query.cursor, user_id
        )
        rows = [entry_row(entry, in_charge=in_charge) for _, entry in found]
        return encoded(TimelineAnswer(record.public_id, rows, following))

    @describe(
        "Current and past calls of a user",
        answers={200: UserCallsAnswer},
        errors=(422, 503),
        tag="voice",
    )
    async def user_calls(self, request: Request) -> Response:
        """At most 100 channels of the last 30 days, each read again."""
        identity = await self._authenticate(request)
        user_id = ids.short_id("user_id", request.path_params["user_id"], self._id_bytes)
        authorize(identity, user_id=user_id)
        query_of(request, UserCallsQuery)
        voice = required(self._voice)
        noted = await voice.evidence.calls_of(user_id)
        stored = await voice.channels.read_many([channel_id for channel_id, _ in noted])
        found, damaged = read(voice, stored)
        channels = {channel.record.channel_id: channel for channel in found}
        gone = [i for (i, _), one in zip(noted, stored, strict=True) if is_forgotten(one)]
        if gone:
            await voice.evidence.forget_calls(user_id, gone)
        rows = [
            user_call(channels[channel_id], user_id, at)
            for channel_id, at in noted
            if channel_id in channels
        ]
        rows.sort(key=lambda row: row.state == "left")
        return encoded(UserCallsAnswer(user_id, rows, damaged))


def read(voice: Voice, stored: Iterable[Stored | StoreError]) -> tuple[list[Channel], int]:
    """The existing channels, and the number of unreadable ones."""
    found, damaged = [], 0
    for one in stored:
        try:
            if isinstance(one, StoreError):
                raise one
            if one.revision:
                found.append(voice.writer.channel_of(one))
        except StateDamaged:
            damaged += 1
    return found, damaged


def is_forgotten(one: Stored | StoreError) -> bool:
    """Whether there is no such channel."""
    return isinstance(one, Stored) and not one.revision


def may_see(identity: Identity, channel: Channel) -> bool:
    """Whether a caller has a grant for a channel."""
    record = channel.record
    return grants.permissions_of(identity, record.waddle_id, record.public_id) is not None


def row_of(channel: Channel, now: int, unverified: dict[str, Unverified]) -> ChannelRow:
    """A live channel in brief."""
    record, call, room = channel.record, channel.call, channel.record.room
    assert call is not None
    assert room is not None
    known = worst(unverified.get(record.channel_id), unverified.get(ALL))
    health = check_health(channel, now, known)
    return ChannelRow(
        record.public_id,
        record.waddle_id,
        room.session_id,
        room.generation,
        call.phase.value,
        len(call.users),
        len(call.doubted),
        timestamp(record.created_at),
        timestamp(record.last_sync_at) if record.last_sync_at else None,
        health.status,
        health.reason,
    )


def entry_row(entry: TimelineEntry, *, in_charge: bool) -> EntryRow:
    """An entry as shown; `in_charge`: include the operator's name."""
    hidden = entry.source is Teller.OPERATOR and not in_charge
    return EntryRow(
        timestamp(entry.at),
        timestamp(entry.said_at) if entry.said_at else None,
        entry.source.value,
        "" if hidden else entry.ref,
        entry.what,
        entry.user_id,
        entry.connection_id,
        entry.reason,
        entry.generation,
        entry.wrong_ms,
        entry.count,
    )


def user_call(channel: Channel, user_id: str, at: int) -> UserCallRow:
    """A channel with a call that a user is in, or was in at `at`."""
    record, call = channel.record, channel.call
    since = call.since(user_id) if call is not None else None
    participant = record.participants.get(user_id)
    state = (
        "left"
        if since is None
        else "moving"
        if participant and participant.moving_to
        else "connected"
    )
    return UserCallRow(
        record.public_id,
        record.waddle_id,
        record.room.session_id if call is not None and record.room is not None else "",
        state,
        timestamp(since) if since is not None else None,
        timestamp(at),
        participant.device_id if participant is not None and since is not None else "",
    )
