"""Call sessions over HTTP: gateways create them, move them on, and ask who is talking.

Paths, members and statuses are those that the gateways were written for: what is wrong with a
request is a 400 here, where other routes say 422. Services and admins only: a call has no owner.
Each write is one line in the log and one notice to the admins' sockets; neither shows details,
which may hold numbers of persons.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import encode
from syncbridge.calls import (
    Call,
    CallState,
    CallType,
    check_id,
    check_state,
    check_type,
    cursor_of,
    is_id,
    parse_cursor,
    parse_details,
    refused_step,
)
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import SERVICES, Identity
from syncbridge.kernels import render_pairs
from syncbridge.records.calls import CallReply, CallResult
from syncbridge_server.admin.administration import Administration
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.answers import timestamp
from syncbridge_server.http.support.pages import query_of
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import Answer, RawObject, Timestamp, describe
from syncbridge_server.ports.calls import Calls

JSON = "application/json"
STATE_BODY = 4_096
ENVELOPE = 4_096
"""Bytes that a body may have beside its details."""
IDEMPOTENCY_HEADER = "idempotency-key"
MAX_KEY = 255
NULL = b"null"

_log = get_logger("SESSION_MANAGER")

Texts = Annotated[
    Any,
    Meta(extra_json_schema={"type": "object", "additionalProperties": {"type": "string"}}),
]
StateName = Annotated[str, Meta(extra_json_schema={"enum": [*CallState]})]
TypeName = Annotated[str, Meta(extra_json_schema={"enum": [*CallType]})]
CallId = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]


class CreateBody(msgspec.Struct):
    """Body of `POST /sessions`. `details`: texts under names."""

    id: CallId
    type: TypeName
    details: RawObject | UnsetType = UNSET


class StateBody(msgspec.Struct):
    """Body of `PUT /sessions/{id}/state`."""

    state: StateName


class DetailsBody(msgspec.Struct):
    """Body of `PUT /sessions/{id}/details`."""

    details: RawObject


class CallBody(msgspec.Struct, rename="camel"):
    """A call session. Without details the member is left out."""

    id: str
    type: CallType
    state: CallState
    created_at: Timestamp
    updated_at: Timestamp
    details: Texts = UNSET


class ChangeBody(msgspec.Struct):
    """A call came into a state, by the caller `by`."""

    state: CallState
    at: Timestamp
    by: str


class HistoryBody(msgspec.Struct, rename="camel"):
    """Answer of `GET /sessions/{id}/history`, oldest change first.

    `deleted_at`, `deleted_by`: of a call that was deleted, and left out of one that was not.
    """

    id: str
    history: list[ChangeBody]
    deleted_at: Timestamp | UnsetType = UNSET
    deleted_by: str | UnsetType = UNSET


class CallsBody(msgspec.Struct):
    """A page of call sessions. `next_cursor` is empty on the last page; others may be short."""

    sessions: list[CallBody]
    next_cursor: str


class CallsQuery(msgspec.Struct):
    """Query of `GET /sessions`. `state`, `type`: only those."""

    cursor: Annotated[str, Meta(max_length=300)] = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 100
    state: CallState | None = None
    type: CallType | None = None


class CallRoutes:
    """The routes. `max_bytes`: largest details of a call."""

    def __init__(
        self,
        calls: Calls,
        administration: Administration,
        authenticate: BearerAuth,
        max_bytes: int,
    ) -> None:
        self._calls = calls
        self._administration = administration
        self._authenticate = authenticate
        self._max_bytes = max_bytes

    def routes(self) -> list[BaseRoute]:
        """For the application's router. Ids may hold slashes, so the order matters."""
        return [
            Route("/sessions", self.create_session, methods=["POST"]),
            Route("/sessions", self.list_sessions, methods=["GET"]),
            Route("/sessions/{id:path}/history", self.session_history, methods=["GET"]),
            Route("/sessions/{id:path}/state", self.update_state, methods=["PUT"]),
            Route("/sessions/{id:path}/details", self.update_details, methods=["PUT"]),
            Route("/sessions/{id:path}", self.get_session, methods=["GET"]),
            Route("/sessions/{id:path}", self.delete_session, methods=["DELETE"]),
        ]

    @describe(
        "Create a call session",
        body=CreateBody,
        answers={201: Answer("Created, pending.", CallBody)},
        headers={"Idempotency-Key": "Repeating the request with it answers 201 again."},
        errors=(409,),
    )
    async def create_session(self, request: Request) -> Response:
        """Pending from the start. 409 when the id is taken."""
        identity = await self._authorized(request)
        body = await read_call(request, CreateBody, self._max_bytes + ENVELOPE)
        call_id, call_type = check_id(body.id), check_type(body.type)
        details = self._details(body)
        key = request_key(request)
        reply = await self._calls.create(call_id, call_type, details, identity.user_id, key)
        call = accepted(reply, call_id)
        if reply.result is CallResult.DONE:
            _log.info("Session created", session_id=call_id, type=call_type, by=identity.user_id)
            self._tell("call_created", f"{call_type} call {call_id} was created", call)
        return answer(call, 201)

    @describe("List call sessions", answers={200: CallsBody}, query=CallsQuery)
    async def list_sessions(self, request: Request) -> Response:
        """Newest first. One that exists during the whole walk is listed once."""
        await self._authorized(request)
        query = query_of(request, CallsQuery)
        page = await self._calls.page(
            query.limit, parse_cursor(query.cursor), query.state, query.type
        )
        following = cursor_of(page.following) if page.following else ""
        body = CallsBody([body_of(call) for call in page.calls], following)
        return Response(encode.to_json(body), media_type=JSON)

    @describe("A call session", answers={200: CallBody}, errors=(404,))
    async def get_session(self, request: Request) -> Response:
        """One call session by its id."""
        return answer(await self._named(request))

    @describe("Changes of a call session's state", answers={200: HistoryBody}, errors=(404,))
    async def session_history(self, request: Request) -> Response:
        """When it came into each of its states, and who brought it there; also after its deletion,
        for as long as the call would have been kept."""
        await self._authorized(request)
        call_id = path_call(request)
        call = await self._calls.read(call_id) or await self._calls.read_deleted(call_id)
        if call is None:
            raise not_found()
        return Response(encode.to_json(history_of(call)), media_type=JSON)

    @describe(
        "Bring a call session into a state",
        body=StateBody,
        answers={200: CallBody},
        errors=(404, 409),
    )
    async def update_state(self, request: Request) -> Response:
        """pending, active, terminated, in this order; the state that it has changes nothing."""
        identity = await self._authorized(request)
        call_id = path_call(request)
        state = check_state((await read_call(request, StateBody, STATE_BODY)).state)
        reply = await self._calls.set_state(call_id, state, identity.user_id)
        if reply.result is CallResult.REFUSED and reply.call is not None:
            _log.warning("Step refused", session_id=call_id, state=reply.call.state, asked=state)
            raise refused_step(reply.call, state)
        call = accepted(reply, call_id)
        if reply.result is CallResult.DONE:
            _log.info("State updated", session_id=call_id, state=state, previous=reply.previous)
            text = f"{call.type} call {call_id} is {state}"
            self._tell("call_state", text, call, previous=reply.previous)
        return answer(call)

    @describe(
        "Add to a call session's details",
        body=DetailsBody,
        answers={200: CallBody},
        errors=(404,),
    )
    async def update_details(self, request: Request) -> Response:
        """The named details are set, the others stay."""
        await self._authorized(request)
        call_id = path_call(request)
        body = await read_call(request, DetailsBody, self._max_bytes + ENVELOPE)
        details = parse_details(body.details, self._max_bytes)
        reply = await self._calls.merge_details(call_id, details)
        if reply.result is CallResult.TOO_LARGE:
            raise SyncBridgeError(
                ErrorCode.TOO_LARGE,
                f"details: {self._max_bytes} bytes in all are allowed",
                field="details",
                limit=self._max_bytes,
            )
        call = accepted(reply, call_id)
        _log.info("Details updated", session_id=call_id, names=len(details) // 2)
        self._tell("call_details", f"details of {call.type} call {call_id} were updated", call)
        return answer(call)

    @describe(
        "Delete a call session",
        answers={204: Answer("Deleted. Its history can still be read.", None)},
        errors=(404,),
    )
    async def delete_session(self, request: Request) -> Response:
        """In any state."""
        identity = await self._authorized(request)
        call_id = path_call(request)
        call = accepted(await self._calls.delete(call_id, identity.user_id), call_id)
        _log.info("Session deleted", session_id=call_id, state=call.state, by=identity.user_id)
        self._tell("call_deleted", f"{call.type} call {call_id} was deleted", call)
        return Response(status_code=204)

    async def _authorized(self, request: Request) -> Identity:
        return await self._authenticate(request, SERVICES)

    def _details(self, body: CreateBody) -> list[bytes]:
        """What a call begins with; null stands for nothing, as absence does."""
        if body.details is UNSET or bytes(body.details) == NULL:
            return []
        return parse_details(body.details, self._max_bytes)

    async def _named(self, request: Request) -> Call:
        """The call that the path names. Raises CALL_NOT_FOUND."""
        await self._authorized(request)
        call_id = path_call(request)
        call = await self._calls.read(call_id)
        if call is None:
            raise not_found()
        return call

    def _tell(self, name: str, text: str, call: Call, **more: object) -> None:
        data = {"id": call.id, "type": call.type, "state": call.state, **more}
        self._administration.notice(name, text, **data)


async def read_call(request: Request, kind: type[Any], limit: int) -> Any:
    """The body as a `kind`. Raises as `read_json`, and INVALID_CALL for the wrong members."""
    try:
        return await read_json(request, kind, limit)
    except SyncBridgeError as error:
        if error.code is ErrorCode.INVALID_FIELD:
            raise SyncBridgeError(ErrorCode.INVALID_CALL, error.detail, **error.fields) from None
        raise


def request_key(request: Request) -> str:
    """The Idempotency-Key; empty without one. Raises INVALID_CALL."""
    key = request.headers.get(IDEMPOTENCY_HEADER, "")
    if len(key) > MAX_KEY:
        detail = f"Idempotency-Key: at most {MAX_KEY} characters are expected"
        raise SyncBridgeError(ErrorCode.INVALID_CALL, detail, field="Idempotency-Key")
    return key


def path_call(request: Request) -> str:
    """The id in the path. Raises CALL_NOT_FOUND for one that no call can have."""
    call_id: str = request.path_params["id"]
    if not is_id(call_id):
        raise not_found()
    return call_id


def accepted(reply: CallReply, call_id: str) -> Call:
    """The call of an answer. Raises CALL_NOT_FOUND, CALL_EXISTS."""
    if reply.result is CallResult.EXISTS:
        _log.warning("Session exists", session_id=call_id)
        raise SyncBridgeError(ErrorCode.CALL_EXISTS, "there is a call session with this id")
    if reply.call is None:
        _log.warning("Session not found", session_id=call_id)
        raise not_found()
    return reply.call


def not_found() -> SyncBridgeError:
    """What is said of an id that no call has."""
    return SyncBridgeError(ErrorCode.CALL_NOT_FOUND, "there is no call session with this id")


def history_of(call: Call) -> HistoryBody:
    """A call's history as it is shown."""
    body = HistoryBody(call.id, [ChangeBody(c.state, timestamp(c.at), c.by) for c in call.history])
    if call.deleted_at:
        body.deleted_at, body.deleted_by = timestamp(call.deleted_at), call.deleted_by
    return body


def body_of(call: Call) -> CallBody:
    """A call as it is shown."""
    return CallBody(
        call.id,
        call.type,
        call.state,
        timestamp(call.created_at),
        timestamp(call.updated_at),
        msgspec.Raw(render_pairs(call.details)) if call.details else UNSET,
    )


def answer(call: Call, status: int = 200) -> Response:
    """A call as an answer."""
    return Response(encode.to_json(body_of(call)), status, media_type=JSON)
