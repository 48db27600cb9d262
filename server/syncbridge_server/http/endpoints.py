"""Endpoints of events, for role admin: where `syncbridge deliver` posts them, and how that goes."""

import base64
import secrets
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.batches import LANE, batch_of
from syncbridge.events.cursor import Cursor, parse_cursor
from syncbridge.events.delivery import HELD_MOST, Item, lane_of
from syncbridge.events.endpoints import (
    MOST_ENDPOINTS,
    Endpoint,
    EndpointSpec,
    check_secret,
    take,
)
from syncbridge.events.kinds import EndpointTest, Event
from syncbridge.events.outbox import encode, new_event, without_values
from syncbridge.events.selection import Selection
from syncbridge.identity import ADMIN_READERS, ADMINS
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.events.guard import Guard, check_spec
from syncbridge_server.events.search import find_events
from syncbridge_server.events.switch import EventSwitch
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.pages import Cursor as PageCursor
from syncbridge_server.http.support.pages import query_of
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import Answer, JsonObject, Timestamp, describe
from syncbridge_server.ports.endpoints import LETTERS_MOST, EndpointStore, Status
from syncbridge_server.ports.events import EventStore
from syncbridge_server.redis.stores.inbox import is_entry

PATH = "/admin/webhooks"
REPLAY_MOST = 1_000
LETTERS_PART = 100
LOG_PART = 256
HELD_SECONDS = 60.0
UnixMs = Annotated[int, Meta(ge=0, le=2**53)]
EventId = Annotated[str, Meta(min_length=1, max_length=256)]
BODY_BYTES = 65_536
_log = get_logger("EVENTS")
_decode = msgspec.json.Decoder(Event).decode


class EndpointBody(EndpointSpec, forbid_unknown_fields=True):
    """Body of `POST` and `PUT /admin/webhooks`.

    Empty members select every event. `secret`: `whsec_` and base64; without it one is made. With
    `batch_events` above 1 so many events at most, gathered for `batch_ms`, are one message.
    """

    secret: str | None = None


class EndpointShown(msgspec.Struct):
    """An endpoint. `secret` stands only in the answer to the request that has made it.

    `failing_since`: nothing has been delivered since then. `late_ms`: from the latest event to its
    delivery. `held`: messages that are tried again later. `configured`: it stands in a file of
    `syncbridge deliver`, and cannot be changed here.
    """

    id: str
    url: str
    kinds: list[str]
    session_id: str
    user_id: str
    channel_id: str
    waddle_id: str
    values: bool
    description: str
    batch_events: int
    batch_ms: int
    configured: bool
    enabled: bool
    disabled_reason: str
    created_at: Timestamp
    rotated_at: Timestamp | None
    cursor: str
    delivered: int
    failed: int
    dead: int
    held: int
    late_ms: int
    delivered_at: Timestamp | None
    failed_at: Timestamp | None
    failing_since: Timestamp | None
    last_error: str
    secret: str | UnsetType = UNSET


class EndpointsBody(msgspec.Struct):
    """All endpoints, in the order in which they were made."""

    endpoints: list[EndpointShown]


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent again, one of four: dead letters by `entries`; events by `ids`, from the dead
    letters or the log; events that came into the log from `since` on, or behind the cursor `after`,
    both `until` a time (Unix ms).
    """

    entries: Annotated[list[str], Meta(max_length=REPLAY_MOST)] = []
    ids: Annotated[list[EventId], Meta(max_length=REPLAY_MOST)] = []
    since: UnixMs | None = None
    after: Annotated[str, Meta(max_length=64)] = ""
    until: UnixMs | None = None


class ReplayAnswer(msgspec.Struct):
    """`replayed`: how many events are sent again. `more`: there are more in that time, behind
    `cursor`.

    `missing`, only when `ids` were asked for: those that neither the dead letters nor the log have,
    or that the endpoint does not select.
    """

    replayed: int
    more: bool
    missing: list[str] | UnsetType = UNSET
    cursor: str | UnsetType = UNSET


class LettersQuery(msgspec.Struct):
    """Query of the dead letters of an endpoint."""

    cursor: PageCursor = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class LetterShown(msgspec.Struct):
    """An event that was given up. `entry` names it for a replay."""

    entry: str
    event_id: str
    reason: str
    failed_at: Timestamp
    event: JsonObject


class EndpointTested(msgspec.Struct):
    """`event_id`: of the event that is sent, the `webhook-id` of its message where it is alone."""

    event_id: str


class EndpointLettersBody(msgspec.Struct):
    """A page of dead letters, the latest first. `next_cursor` is empty on the last page."""

    dead_letters: list[LetterShown]
    next_cursor: str


class EndpointRoutes:
    """The routes."""

    def __init__(
        self,
        endpoints: EndpointStore,
        events: EventStore,
        switch: EventSwitch,
        authenticate: BearerAuth,
        networks: Sequence[str],
    ) -> None:
        self._endpoints = endpoints
        self._events = events
        self._switch = switch
        self._authenticate = authenticate
        self._guard = Guard(networks)

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        one = PATH + "/{endpoint_id}"
        return [
            Route(PATH, self.all, methods=["GET"]),
            Route(PATH, self.create, methods=["POST"]),
            Route(one, self.one, methods=["GET"]),
            Route(one, self.change, methods=["PUT"]),
            Route(one, self.remove, methods=["DELETE"]),
            Route(one + "/rotate", self.rotate, methods=["POST"]),
            Route(one + "/test", self.test, methods=["POST"]),
            Route(one + "/dead-letters", self.letters, methods=["GET"]),
            Route(one + "/dead-letters/{entry}", self.discard, methods=["DELETE"]),
            Route(one + "/replay", self.replay, methods=["POST"]),
        ]

    @describe("List event endpoints", answers={200: EndpointsBody})
    async def all(self, request: Request) -> Response:
        """Every endpoint, and how its deliveries go. Never with a secret."""
        await self._authenticate(request, ADMIN_READERS)
        found = await self._endpoints.endpoints()
        return encoded(EndpointsBody([await self._shown(one) for one in found]))

    @describe(
        "Create an event endpoint",
        answers={201: EndpointShown},
        body=EndpointBody,
        errors=(422, 503),
    )
    async def create(self, request: Request) -> Response:
        """As Standard Webhooks says: signed with `secret`, tried again for three days.

        The answer alone has the secret. 503 `events_starting`: some node does not write events yet.
        """
        identity = await self._authenticate(request, ADMINS)
        body = await self._checked(request)
        if len(await self._endpoints.endpoints()) >= MOST_ENDPOINTS:
            detail = f"at most {MOST_ENDPOINTS} endpoints"
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field="url")
        await self._switch.listen(values=body.values)
        secret = body.secret or new_secret()
        endpoint = Endpoint(secrets.token_hex(8), "", [secret], created_at=_now())
        endpoint.start = str(await self._events.last())
        take(endpoint, body, _now())
        await self._endpoints.put(endpoint)
        self._switch.endpoints_changed()
        _log.info("endpoint_created", endpoint=endpoint.id, by=identity.user_id)
        shown = await self._shown(endpoint)
        shown.secret = secret
        return encoded_as(201, shown)

    @describe("An endpoint", answers={200: EndpointShown}, errors=(404,))
    async def one(self, request: Request) -> Response:
        """And how its deliveries go."""
        await self._authenticate(request, ADMIN_READERS)
        return encoded(await self._shown(await self._found(request)))

    @describe(
        "Change an endpoint", answers={200: EndpointShown}, body=EndpointBody, errors=(404, 409)
    )
    async def change(self, request: Request) -> Response:
        """The whole of it but for its secret. `enabled: true` goes on where it was disabled."""
        identity = await self._authenticate(request, ADMINS)
        endpoint = await self._changeable(request)
        body = await self._checked(request)
        if body.secret is not None:
            detail = "secret: POST .../rotate gives another one"
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field="secret")
        await self._switch.listen(values=body.values)
        if endpoint.disabled and body.enabled:
            status = await self._endpoints.status(endpoint.id)
            status.failing_since = 0
            await self._endpoints.save(endpoint.id, status)
        take(endpoint, body, _now())
        await self._endpoints.put(endpoint)
        self._switch.endpoints_changed()
        _log.info("endpoint_updated", endpoint=endpoint.id, by=identity.user_id)
        return encoded(await self._shown(endpoint))

    @describe("Remove an endpoint", answers={204: Answer("Removed.", None)}, errors=(404, 409))
    async def remove(self, request: Request) -> Response:
        """With everything that is held for it."""
        identity = await self._authenticate(request, ADMINS)
        endpoint = await self._changeable(request)
        await self._endpoints.remove(endpoint.id)
        self._switch.endpoints_changed()
        _log.info("endpoint_deleted", endpoint=endpoint.id, by=identity.user_id)
        return Response(status_code=204)

    @describe("Rotate the secret of an endpoint", answers={200: EndpointShown}, errors=(404, 409))
    async def rotate(self, request: Request) -> Response:
        """The one before signs, too, until the next rotation: attempts have both signatures."""
        identity = await self._authenticate(request, ADMINS)
        endpoint = await self._changeable(request)
        secret = new_secret()
        endpoint.secrets = [secret, endpoint.secrets[0]]
        endpoint.rotated_at = _now()
        await self._endpoints.put(endpoint)
        self._switch.endpoints_changed()
        _log.info("endpoint_secret_rotated", endpoint=endpoint.id, by=identity.user_id)
        shown = await self._shown(endpoint)
        shown.secret = secret
        return encoded(shown)

    @describe("Send a test event to an endpoint", answers={202: EndpointTested}, errors=(404,))
    async def test(self, request: Request) -> Response:
        """With an event `endpoint.test`, whatever is selected; it is sent like any other."""
        identity = await self._authenticate(request, ADMINS)
        endpoint = await self._with_room(request)
        told = EndpointTest(endpoint.id)
        event = new_event(f"test-{secrets.token_hex(8)}", "endpoint.test", _now(), told)
        await self._endpoints.replay(endpoint.id, _items(endpoint, [event]))
        self._switch.endpoints_changed()
        _log.info("endpoint_tested", endpoint=endpoint.id, by=identity.user_id)
        return encoded_as(202, EndpointTested(event.id))

    @describe(
        "List dead letters of an endpoint",
        answers={200: EndpointLettersBody},
        query=LettersQuery,
        errors=(404,),
    )
    async def letters(self, request: Request) -> Response:
        """The latest first, at most 1,000 of an endpoint."""
        await self._authenticate(request, ADMIN_READERS)
        endpoint = await self._found(request)
        query = query_of(request, LettersQuery)
        if query.cursor and not is_entry(query.cursor):
            detail = "cursor: expected the next_cursor of a page"
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field="cursor")
        found, following = await self._endpoints.letters(endpoint.id, query.limit, query.cursor)
        rows = [
            LetterShown(
                one.entry,
                one.event_id,
                one.reason,
                timestamp(int(one.entry.partition("-")[0])),
                msgspec.Raw(one.event or b"{}"),
            )
            for one in found
        ]
        return encoded(EndpointLettersBody(rows, following))

    @describe(
        "Discard a dead letter of an endpoint",
        answers={204: Answer("Discarded.", None)},
        errors=(404,),
    )
    async def discard(self, request: Request) -> Response:
        """It is not kept any more."""
        identity = await self._authenticate(request, ADMINS)
        endpoint, entry = await self._found(request), request.path_params["entry"]
        if not is_entry(entry) or not await self._endpoints.discard(endpoint.id, entry):
            raise SyncBridgeError(ErrorCode.NOT_FOUND, "there is no dead letter with this entry")
        _log.info("dead_letter_discarded", endpoint=endpoint.id, entry=entry, by=identity.user_id)
        return Response(status_code=204)

    @describe(
        "Replay events",
        answers={200: ReplayAnswer},
        body=ReplayBody,
        errors=(404,),
    )
    async def replay(self, request: Request) -> Response:
        """Dead letters by `entries`, events by `ids`, or what the log still has of a time.

        At most 1,000 at once; `after` with the `cursor` of the answer goes on.
        """
        identity = await self._authenticate(request, ADMINS)
        endpoint = await self._with_room(request)
        body = await read_json(request, ReplayBody, BODY_BYTES)
        _check_replay(body)
        if body.entries:
            done = await self._endpoints.replay_letters(endpoint.id, body.entries)
            answer = ReplayAnswer(done, False)
        elif body.ids:
            answer = await self._replay_ids(endpoint, set(body.ids))
        else:
            answer = await self._replay_time(endpoint, body)
        self._switch.endpoints_changed()
        _log.info(
            "events_replayed", endpoint=endpoint.id, events=answer.replayed, by=identity.user_id
        )
        return encoded(answer)

    async def _replay_ids(self, endpoint: Endpoint, wanted: set[str]) -> ReplayAnswer:
        entries = await self._letters_of(endpoint, wanted)
        done = await self._endpoints.replay_letters(endpoint.id, list(entries.values()))
        left = wanted.difference(entries)
        found = await find_events(self._events, left)
        events = [event for event in found if endpoint.selection.wants(event)]
        await self._endpoints.replay(endpoint.id, _items(endpoint, events))
        missing = left.difference(event.id for event in events)
        return ReplayAnswer(done + len(events), False, sorted(missing))

    async def _letters_of(self, endpoint: Endpoint, ids: set[str]) -> dict[str, str]:
        """The entries of the newest dead letters with these ids."""
        entries: dict[str, str] = {}
        cursor, seen = "", 0
        while seen < LETTERS_MOST:
            letters, cursor = await self._endpoints.letters(endpoint.id, LETTERS_PART, cursor)
            for one in letters:
                if one.event_id in ids:
                    entries.setdefault(one.event_id, one.entry)
            seen += LETTERS_PART
            if not cursor:
                break
        return entries

    async def _replay_time(self, endpoint: Endpoint, body: ReplayBody) -> ReplayAnswer:
        start = Cursor(max((body.since or 0) - 1, 0), 2**62)
        cursor = parse_cursor(body.after) if body.after else start
        until = 2**53 if body.until is None else body.until
        events, rest = await self._selected(endpoint.selection, cursor, until)
        await self._endpoints.replay(endpoint.id, _items(endpoint, events))
        more = rest is not None
        return ReplayAnswer(len(events), more, cursor=str(rest) if more else UNSET)

    async def _selected(
        self, selection: Selection, cursor: Cursor, until: int
    ) -> tuple[list[Event], Cursor | None]:
        """Events of the log behind a cursor, and the one behind which there are more."""
        events: list[Event] = []
        while part := await self._events.read(cursor, LOG_PART):
            for place, text in part:
                if place.ms > until:
                    return events, None
                event = _event(place, text)
                if event is not None and selection.wants(event):
                    if len(events) == REPLAY_MOST:
                        return events, cursor
                    events.append(event)
                cursor = place
        return events, None

    async def _changeable(self, request: Request) -> Endpoint:
        endpoint = await self._found(request)
        if endpoint.configured:
            detail = "it stands in a file of `syncbridge deliver`: change it there"
            raise SyncBridgeError(ErrorCode.ENDPOINT_CONFIGURED, detail)
        return endpoint

    async def _found(self, request: Request) -> Endpoint:
        endpoint = await self._endpoints.find(request.path_params["endpoint_id"])
        if endpoint is None:
            raise _no_endpoint()
        return endpoint

    async def _with_room(self, request: Request) -> Endpoint:
        """One to which more may be sent again: what waits for it is bounded."""
        endpoint = await self._found(request)
        if await self._endpoints.held_count(endpoint.id) >= HELD_MOST:
            detail = f"{HELD_MOST} events wait for this endpoint already"
            raise SyncBridgeError(ErrorCode.OVERLOADED, detail, retry_after=HELD_SECONDS)
        return endpoint

    async def _checked(self, request: Request) -> EndpointBody:
        body: EndpointBody = await read_json(request, EndpointBody, BODY_BYTES)
        if body.secret is not None:
            check_secret(body.secret)
        check_spec(body, self._guard)
        return body

    async def _shown(self, endpoint: Endpoint) -> EndpointShown:
        status: Status = await self._endpoints.status(endpoint.id)
        held = await self._endpoints.held_count(endpoint.id)
        selection = endpoint.selection
        return EndpointShown(
            endpoint.id,
            endpoint.url,
            list(selection.kinds),
            selection.session_id,
            selection.user_id,
            selection.channel_id,
            selection.waddle_id,
            selection.values,
            endpoint.description,
            endpoint.batch_events,
            endpoint.batch_ms,
            endpoint.configured,
            not endpoint.disabled,
            endpoint.disabled,
            timestamp(endpoint.created_at),
            _time(endpoint.rotated_at),
            status.cursor or endpoint.start,
            status.delivered,
            status.failed,
            status.dead,
            held,
            status.late_ms,
            _time(status.delivered_at),
            _time(status.failed_at),
            _time(status.failing_since),
            status.last_error,
        )


def encoded_as(status: int, body: object) -> Response:
    """Like `encoded`, with another status."""
    answer = encoded(body)
    answer.status_code = status
    return answer


def new_secret() -> str:
    """A secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _items(endpoint: Endpoint, events: Sequence[Event]) -> list[Item]:
    """What is sent for events, together where the endpoint wants them so."""
    told = events if endpoint.selection.values else [without_values(event) for event in events]
    if endpoint.batch_events == 1:
        return [Item(lane_of(one), event_id=one.id, text=encode(one)) for one in told]
    pairs = [(one.id, encode(one)) for one in told]
    size = endpoint.batch_events
    batches = [batch_of(pairs[at : at + size]) for at in range(0, len(pairs), size)]
    return [Item(LANE, event_id=name, text=text) for name, text in batches]


def _event(place: Cursor, text: bytes) -> Event | None:
    """An event of the log; None for what cannot be read."""
    try:
        return _decode(text)
    except msgspec.DecodeError:
        _log.error("event_unreadable", entry=str(place))
        return None


def _check_replay(body: ReplayBody) -> None:
    """Raise INVALID_FIELD for what names nothing, or two things."""
    timed = (body.since is not None) + bool(body.after)
    if 1 != bool(body.entries) + bool(body.ids) + timed:
        raise _refused("entries", "one of entries, ids, since and after is expected")
    if any(not is_entry(entry) for entry in body.entries):
        raise _refused("entries", "entries of dead letters are expected")
    if body.until is not None and (not timed or body.until < (body.since or 0)):
        raise _refused("until", "a time after since is expected, and only with since or after")


def _refused(field: str, why: str) -> SyncBridgeError:
    return SyncBridgeError(ErrorCode.INVALID_FIELD, f"{field}: {why}", field=field)


def _no_endpoint() -> SyncBridgeError:
    return SyncBridgeError(ErrorCode.NOT_FOUND, "there is no endpoint with this id")


def _time(ms: int) -> str | None:
    return timestamp(ms) if ms else None


def _now() -> int:
    return round(time.time() * 1000)
