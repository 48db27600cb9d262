"""`GET /events`: what happened, read behind a cursor, by services."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge.events.cursor import Cursor, parse_cursor
from syncbridge.events.kinds import Event
from syncbridge.events.selection import Selection, parse_kinds
from syncbridge.identity import SERVICES
from syncbridge.ids import session_id
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.events.reading import EventReader
from syncbridge_server.http.support.answers import encoded
from syncbridge_server.http.support.pages import query_of
from syncbridge_server.openapi.describe import RawObject, Timestamp, describe

LATEST = "latest"


class EventsQuery(msgspec.Struct):
    """Query of `GET /events`."""

    after: Annotated[
        str,
        Meta(
            max_length=64,
            description="`cursor` of an answer or of an event; `latest`: only what comes; without"
            " it, from the oldest that is left.",
        ),
    ] = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    wait: Annotated[
        float, Meta(ge=0, le=60, description="Seconds to wait for the first event.")
    ] = 0.0
    kind: Annotated[
        str,
        Meta(max_length=1_024, description="Kinds, separated by commas; `session.*`: a family."),
    ] = ""
    session: Annotated[str, Meta(max_length=64)] = ""
    user: Annotated[str, Meta(max_length=256)] = ""
    channel: Annotated[str, Meta(max_length=256)] = ""
    waddle: Annotated[str, Meta(max_length=256)] = ""
    values: bool = False


class EventRow(msgspec.Struct):
    """One event. `cursor` is the place behind it.

    `id` is the same however often it is told. Of `session_id`, `user_id`, `channel_id` and its
    `waddle_id` those stand that it is about. `data` is what `docs/events.schema.json` says of its
    type and number.
    """

    id: str
    type: str
    type_version: int
    timestamp: Timestamp
    cursor: str
    data: RawObject
    session_id: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    channel_id: str | UnsetType = UNSET
    waddle_id: str | UnsetType = UNSET


class EventsBody(msgspec.Struct):
    """Events in order. `cursor`: go on with it, also when there is none. `more`: there are now."""

    events: list[EventRow]
    cursor: str
    more: bool


class EventRoutes:
    """The route."""

    def __init__(self, reader: EventReader, authenticate: BearerAuth) -> None:
        self._reader = reader
        self._authenticate = authenticate

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [Route("/events", self.events, methods=["GET"])]

    @describe(
        "Read events",
        answers={200: EventsBody},
        query=EventsQuery,
        errors=(410,),
    )
    async def events(self, request: Request) -> Response:
        """Events behind a cursor, in order; with `wait`, as soon as there is one.

        Each comes at least once, with the same `id` each time. Events are written from the first
        reading until a day after the last one. 410: events behind the cursor are gone; `oldest` is
        the cursor before those that are left.
        """
        await self._authenticate(request, SERVICES)
        query = query_of(request, EventsQuery)
        page = await self._reader.read(
            after=await self._place(query.after),
            limit=query.limit,
            wait=query.wait,
            wanted=selection_of(query),
        )
        rows = [row_of(place, event) for place, event in page.events]
        return encoded(EventsBody(rows, str(page.cursor), page.more))

    async def _place(self, after: str) -> Cursor | None:
        """Where reading begins; None: behind what there is now. Raises INVALID_FIELD."""
        if after == LATEST:
            return None
        return parse_cursor(after) if after else await self._reader.oldest()


def selection_of(query: EventsQuery) -> Selection:
    """What a query asks for. Raises INVALID_FIELD."""
    names = [name.strip() for name in query.kind.split(",") if name.strip()]
    kinds = parse_kinds("kind", names or [query.kind] * bool(query.kind))
    session = query.session and session_id(query.session, "session")
    return Selection(kinds, session, query.user, query.channel, query.values, query.waddle)


def row_of(place: Cursor, event: Event) -> EventRow:
    """An event as it is shown."""
    return EventRow(
        event.id,
        event.type,
        event.type_version,
        event.timestamp,
        str(place),
        Raw(event.data),
        event.session_id or UNSET,
        event.user_id or UNSET,
        event.channel_id or UNSET,
        event.waddle_id or UNSET,
    )
