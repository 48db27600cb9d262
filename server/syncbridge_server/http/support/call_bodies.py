"""Bodies and queries of call sessions, as `syncbridge_server.http.calls` takes and gives them."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from syncbridge.call_rules.billing import durations
from syncbridge.call_rules.events import EventKind
from syncbridge.call_rules.listing import MOST_QUERY, CallFilter, parse_moment
from syncbridge.calls import Call, CallState, CallType
from syncbridge.kernels import render_pairs
from syncbridge_server.http.support.answers import timestamp
from syncbridge_server.openapi.describe import RawObject, Timestamp

Texts = Annotated[
    Any,
    Meta(extra_json_schema={"type": "object", "additionalProperties": {"type": "string"}}),
]
StateName = Annotated[str, Meta(extra_json_schema={"enum": [*CallState]})]
TypeName = Annotated[str, Meta(extra_json_schema={"enum": [*CallType]})]
KindName = Annotated[str, Meta(extra_json_schema={"enum": [*EventKind]})]
CallId = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sessions`. `details`: texts under names.

    `parent`: id of the call that it is a leg of. `channel`: the voice channel it is linked to.
    """

    id: CallId
    type: TypeName
    details: RawObject | UnsetType = UNSET
    parent: str = ""
    channel: str = ""


class StateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /sessions/{id}/state`. `cause`: why the call ends, with `terminated`."""

    state: StateName
    cause: str | UnsetType = UNSET


class EventBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sessions/{id}/events`. Each kind has the one member that it is about."""

    kind: KindName
    to: str | UnsetType = UNSET
    leg: str | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    channel: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET


class DetailsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `PUT /sessions/{id}/details`. A value that is null takes the detail away."""

    details: RawObject


class CallBody(msgspec.Struct, rename="camel"):
    """A call session. Without details the member is left out, and so is what never was.

    `held`: it is on hold. `lease_until`: it ends then, unless a heartbeat comes before.
    """

    id: str
    type: CallType
    state: CallState
    created_at: Timestamp
    updated_at: Timestamp
    details: Texts = UNSET
    held: bool | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    channel: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    lease_until: Timestamp | UnsetType = UNSET


class ChangeBody(msgspec.Struct):
    """A call came into a state, by the caller `by`."""

    state: CallState
    at: Timestamp
    by: str


class EventShown(msgspec.Struct):
    """An event of a call, reported by the caller `by`; `value`: what it is about."""

    kind: str
    at: Timestamp
    by: str
    value: str | UnsetType = UNSET


class DurationsBody(msgspec.Struct, rename="camel"):
    """How long a call rang, was active and was on hold, in ms; `seconds`: the active ones, begun
    ones counted. Of a call that goes on: until its last write."""

    ring_ms: int
    active_ms: int
    held_ms: int
    seconds: int


class LifeBody(msgspec.Struct, rename="camel"):
    """What became of a call, oldest change first.

    `deleted_at`, `deleted_by`: of a call that was deleted, and left out of one that was not.
    `cause`: why it ended, if known.
    """

    history: list[ChangeBody]
    events: list[EventShown]
    durations: DurationsBody
    cause: str | UnsetType = UNSET
    deleted_at: Timestamp | UnsetType = UNSET
    deleted_by: str | UnsetType = UNSET


class HistoryBody(LifeBody, kw_only=True, rename="camel"):
    """Answer of `GET /sessions/{id}/history`. `earlier`: deleted calls of the id, latest first."""

    id: str
    earlier: list[LifeBody]


class CallsBody(msgspec.Struct):
    """A page of call sessions. `next_cursor` is empty on the last page; others may be short.

    `damaged`: what cannot be read and is left out here, if there is any.
    """

    sessions: list[CallBody]
    next_cursor: str
    damaged: int | UnsetType = UNSET


class CallsQuery(msgspec.Struct):
    """Query of `GET /sessions`: only calls of which all of it holds.

    `since`, `until`: made from then on, and before. `q`: text in the id or a detail, in any case of
    letters. `parent`, `channel`: legs of a call, calls linked to a voice channel.
    """

    cursor: Annotated[str, Meta(max_length=300)] = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 100
    state: CallState | None = None
    type: CallType | None = None
    since: Annotated[str, Meta(max_length=40)] = ""
    until: Annotated[str, Meta(max_length=40)] = ""
    q: Annotated[str, Meta(max_length=MOST_QUERY)] = ""
    parent: Annotated[str, Meta(max_length=MOST_QUERY)] = ""
    channel: Annotated[str, Meta(max_length=MOST_QUERY)] = ""

    def wanted(self) -> CallFilter:
        """As the store is asked. Raises INVALID_FIELD."""
        return CallFilter(
            self.state,
            self.type,
            parse_moment("since", self.since),
            parse_moment("until", self.until),
            self.q,
            self.parent,
            self.channel,
        )


def lives_of(call_id: str, calls: list[Call]) -> HistoryBody:
    """The histories of the calls with an id as they are shown, the latest first."""
    latest, *earlier = [life_of(call) for call in calls]
    return HistoryBody(
        id=call_id,
        earlier=earlier,
        **{name: getattr(latest, name) for name in LifeBody.__struct_fields__},
    )


def life_of(call: Call) -> LifeBody:
    """A call's history as a body."""
    lasted = durations(call, call.updated_at)
    body = LifeBody(
        [ChangeBody(c.state, timestamp(c.at), c.by) for c in call.history],
        [EventShown(e.kind, timestamp(e.at), e.by, e.value or UNSET) for e in call.events],
        DurationsBody(lasted.ring_ms, lasted.active_ms, lasted.held_ms, lasted.seconds),
        call.cause or UNSET,
    )
    if call.deleted_at:
        body.deleted_at, body.deleted_by = timestamp(call.deleted_at), call.deleted_by
    return body


def body_of(call: Call) -> CallBody:
    """A call as a body."""
    return CallBody(
        call.id,
        call.type,
        call.state,
        timestamp(call.created_at),
        timestamp(call.updated_at),
        msgspec.Raw(render_pairs(call.details)) if call.details else UNSET,
        call.held or UNSET,
        call.parent or UNSET,
        call.channel or UNSET,
        call.cause or UNSET,
        timestamp(call.lease_until) if call.lease_until else UNSET,
    )
