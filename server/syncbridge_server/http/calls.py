"""Call sessions over HTTP: gateways create them, change their state, and list them.

Paths, members and statuses are those that existing gateways expect: an invalid request is a 400
here, where other routes answer 422. Services and admins only: a call has no owner. Each write is
one line in the log and one notice to the admins' sockets; neither shows details, which may hold
numbers of persons.
"""

from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import encode
from syncbridge.call_rules.events import (
    EventKind,
    check_kind,
    check_value,
    refused_event,
    value_of,
)
from syncbridge.call_rules.listing import parse_match, tag_of
from syncbridge.calls import (
    NULL,
    Call,
    CallState,
    NewCall,
    check_id,
    check_state,
    check_type,
    cursor_of,
    invalid,
    is_id,
    parse_cursor,
    parse_details,
    refused_step,
)
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import SERVICES, Identity
from syncbridge.records.calls import CallReply, CallResult
from syncbridge_server.admin.administration import Administration
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.call_bodies import (
    CallBody,
    CallsBody,
    CallsQuery,
    CreateBody,
    DetailsBody,
    EventBody,
    HistoryBody,
    StateBody,
    body_of,
    lives_of,
)
from syncbridge_server.http.support.pages import query_of
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import Answer, describe
from syncbridge_server.ports.calls import Calls

JSON = "application/json"
STATE_BODY = 4_096
ENVELOPE = 4_096
"""Most bytes of a body beside its details."""
IDEMPOTENCY_HEADER = "idempotency-key"
MAX_KEY = 255

IF_MATCH = {"If-Match": "ETag of the call that the write is for; 412 when it was changed since."}

_log = get_logger("SESSION_MANAGER")


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
            Route("/sessions/{id:path}/events", self.add_event, methods=["POST"]),
            Route("/sessions/{id:path}/heartbeat", self.heartbeat, methods=["POST"]),
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
        new = NewCall(
            call_type,
            self._details(body),
            check_value("parent", body.parent) if body.parent else "",
            check_value("channel", body.channel) if body.channel else "",
        )
        reply = await self._calls.create(call_id, new, identity.user_id, request_key(request))
        call = accepted(reply, call_id)
        if reply.result is CallResult.DONE:
            _log.info("session_created", session_id=call_id, type=call_type, by=identity.user_id)
            self._tell("call_created", f"{call_type} call {call_id} was created", call)
        return answer(call, 201)

    @describe("List call sessions", answers={200: CallsBody}, query=CallsQuery)
    async def list_sessions(self, request: Request) -> Response:
        """Newest first. One that exists during the whole walk is listed once."""
        await self._authorized(request)
        query = query_of(request, CallsQuery)
        page = await self._calls.page(query.limit, parse_cursor(query.cursor), query.wanted())
        following = cursor_of(page.following) if page.following else ""
        body = CallsBody([body_of(call) for call in page.calls], following, page.damaged or UNSET)
        return Response(encode.to_json(body), media_type=JSON)

    @describe("A call session", answers={200: CallBody}, errors=(404,))
    async def get_session(self, request: Request) -> Response:
        """One call session by its id."""
        return answer(await self._named(request))

    @describe("Changes of a call session's state", answers={200: HistoryBody}, errors=(404,))
    async def session_history(self, request: Request) -> Response:
        """The time of each state, the events, and the duration. Available after deletion too, for
        as long as the call would have been kept."""
        await self._authorized(request)
        call_id = path_call(request)
        call = await self._calls.read(call_id)
        calls = [call] if call is not None else []
        calls += await self._calls.read_deleted(call_id)
        if not calls:
            raise not_found()
        return Response(encode.to_json(lives_of(call_id, calls)), media_type=JSON)

    @describe(
        "Change the state of a call session",
        body=StateBody,
        answers={200: CallBody},
        headers=IF_MATCH,
        errors=(404, 409, 412),
    )
    async def update_state(self, request: Request) -> Response:
        """pending, active, terminated, in this order; the state that it has changes nothing."""
        identity = await self._authorized(request)
        call_id = path_call(request)
        body = await read_call(request, StateBody, STATE_BODY)
        state = check_state(body.state)
        cause = "" if body.cause is UNSET else check_value("cause", body.cause)
        if cause and state is not CallState.TERMINATED:
            raise invalid("cause", "only terminated is allowed with it")
        return await self._bring(request, identity, call_id, state, cause)

    async def _bring(
        self, request: Request, identity: Identity, call_id: str, state: CallState, cause: str
    ) -> Response:
        """Change the state of a call, and announce it."""
        tag = match_of(request)
        reply = await self._calls.set_state(call_id, state, identity.user_id, cause, tag)
        if reply.result is CallResult.REFUSED and reply.call is not None:
            _log.warning(
                "state_change_refused", session_id=call_id, state=reply.call.state, asked=state
            )
            raise refused_step(reply.call, state)
        call = accepted(reply, call_id)
        if reply.result is CallResult.DONE:
            tell_state(self._administration, call, reply.previous)
        return answer(call)

    @describe(
        "Record an event of a call session",
        body=EventBody,
        answers={200: CallBody},
        headers={"Idempotency-Key": "Repeating the request with it changes nothing.", **IF_MATCH},
        errors=(404, 409, 412),
    )
    async def add_event(self, request: Request) -> Response:
        """It rings, is held or resumed, is transferred, gets a leg, a parent or a voice channel, or
        is hung up: then it is terminated."""
        identity = await self._authorized(request)
        call_id = path_call(request)
        body = await read_call(request, EventBody, STATE_BODY)
        kind = check_kind(body.kind)
        members = {name: getattr(body, name) for name in body.__struct_fields__[1:]}
        value = value_of(kind, {n: text for n, text in members.items() if text is not UNSET})
        if kind is EventKind.HANGUP:
            return await self._bring(request, identity, call_id, CallState.TERMINATED, value)
        key, tag = request_key(request), match_of(request)
        reply = await self._calls.note_event(call_id, kind, value, identity.user_id, key, tag)
        if reply.result is CallResult.LATE and reply.call is not None:
            raise refused_event(reply.call, kind)
        call = accepted(reply, call_id)
        if reply.result is CallResult.DONE:
            _log.info("call_event_recorded", session_id=call_id, kind=kind, by=identity.user_id)
            self._tell("call_event", f"{call.type} call {call_id}: {kind}", call, kind=kind)
        return answer(call)

    @describe("Keep a call session alive", answers={200: CallBody}, errors=(404, 409))
    async def heartbeat(self, request: Request) -> Response:
        """The first one starts a lease: the call ends when the next one does not come in time."""
        await self._authorized(request)
        call_id = path_call(request)
        reply = await self._calls.beat(call_id)
        if reply.result is CallResult.REFUSED and reply.call is not None:
            raise refused_step(reply.call, CallState.ACTIVE)
        return answer(accepted(reply, call_id))

    @describe(
        "Add to a call session's details",
        body=DetailsBody,
        answers={200: CallBody},
        headers=IF_MATCH,
        errors=(404, 412),
    )
    async def update_details(self, request: Request) -> Response:
        """The named details are set, those that are null are removed, the others stay."""
        await self._authorized(request)
        call_id = path_call(request)
        body = await read_call(request, DetailsBody, self._max_bytes + ENVELOPE)
        details = parse_details(body.details, self._max_bytes, removals=True)
        reply = await self._calls.merge_details(call_id, details, match_of(request))
        if reply.result is CallResult.TOO_LARGE:
            raise SyncBridgeError(
                ErrorCode.TOO_LARGE,
                f"details: at most {self._max_bytes} bytes in total",
                field="details",
                limit=self._max_bytes,
            )
        call = accepted(reply, call_id)
        _log.info("session_details_updated", session_id=call_id, names=len(details) // 2)
        self._tell("call_details", f"details of {call.type} call {call_id} were updated", call)
        return answer(call)

    @describe(
        "Delete a call session",
        answers={204: Answer("Deleted. Its history can still be read.", None)},
        headers=IF_MATCH,
        errors=(400, 404, 412),
    )
    async def delete_session(self, request: Request) -> Response:
        """In any state."""
        identity = await self._authorized(request)
        call_id = path_call(request)
        reply = await self._calls.delete(call_id, identity.user_id, match_of(request))
        call = accepted(reply, call_id)
        _log.info("session_deleted", session_id=call_id, state=call.state, by=identity.user_id)
        self._tell("call_deleted", f"{call.type} call {call_id} was deleted", call)
        return Response(status_code=204)

    async def _authorized(self, request: Request) -> Identity:
        return await self._authenticate(request, SERVICES)

    def _details(self, body: CreateBody) -> list[bytes]:
        """The initial values of a call; null means the same as absence."""
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


def match_of(request: Request) -> str:
    """The tag that the call must have; empty for any. Raises INVALID_CALL."""
    return parse_match(request.headers.get("if-match", ""))


def tell_state(administration: Administration, call: Call, previous: CallState | None) -> None:
    """A call came into its state: a line in the log, and a notice to the admins."""
    _log.info(
        "session_state_updated",
        session_id=call.id,
        state=call.state,
        previous=previous,
        **({"cause": call.cause} if call.cause else {}),
    )
    data = {"id": call.id, "type": call.type, "state": call.state, "previous": previous}
    text = f"{call.type} call {call.id} is {call.state}"
    administration.notice("call_state", text, **data)


def path_call(request: Request) -> str:
    """The id in the path. Raises CALL_NOT_FOUND for one that no call can have."""
    call_id: str = request.path_params["id"]
    if not is_id(call_id):
        raise not_found()
    return call_id


def accepted(reply: CallReply, call_id: str) -> Call:
    """The call of an answer. Raises CALL_NOT_FOUND, CALL_EXISTS."""
    if reply.result is CallResult.EXISTS:
        _log.warning("session_exists", session_id=call_id)
        raise SyncBridgeError(ErrorCode.CALL_EXISTS, "a call session with this id exists")
    if reply.result is CallResult.CHANGED and reply.call is not None:
        raise SyncBridgeError(
            ErrorCode.CALL_CHANGED,
            "If-Match: the call has changed since; read it again",
            etag=f'"{tag_of(reply.call)}"',
        )
    if reply.call is None:
        _log.warning("session_not_found", session_id=call_id)
        raise not_found()
    return reply.call


def not_found() -> SyncBridgeError:
    """The error for an unknown id."""
    return SyncBridgeError(ErrorCode.CALL_NOT_FOUND, "there is no call session with this id")


def answer(call: Call, status: int = 200) -> Response:
    """A call as an answer."""
    headers = {"ETag": f'"{tag_of(call)}"'}
    return Response(encode.to_json(body_of(call)), status, headers, JSON)
