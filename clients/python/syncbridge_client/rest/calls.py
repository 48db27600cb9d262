"""The client of gateways: call sessions, with calls that are repeated until they are answered.

Every request may be repeated: a creation carries an Idempotency-Key, a state and details that are
set twice are as they were, and a call that is gone when its deletion is repeated was deleted. So
429, 503 and a lost answer are tried again, with full jitter (`backoff`) and not before the server's
Retry-After, within bounds of attempts and time.
"""

import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import httpx
import msgspec

from syncbridge_client.backoff import Backoff
from syncbridge_client.catalogue import ErrorCode
from syncbridge_client.errors import (
    ApiError,
    CallExists,
    CallNotFound,
    CallStateRefused,
    RequestFailed,
)
from syncbridge_client.rest import RestClient, decode, path
from syncbridge_client.tokens import Refresh

CallType = Literal["SIP", "WebRTC"]
CallState = Literal["pending", "active", "terminated"]
EventKind = Literal[
    "ring", "hold", "resume", "transfer", "leg", "parent", "link", "unlink", "hangup"
]
EVENT_MEMBERS = {
    "transfer": "to",
    "leg": "leg",
    "parent": "parent",
    "link": "channel",
    "hangup": "cause",
}
"""Kind of an event -> member of its body that says what it is about."""

BUSY = frozenset({429, 503})
LOST = frozenset({"timeout", "disconnected"})
ERRORS: dict[str, type[ApiError]] = {
    ErrorCode.CALL_NOT_FOUND.wire: CallNotFound,
    ErrorCode.CALL_EXISTS.wire: CallExists,
    ErrorCode.CALL_TERMINATED.wire: CallStateRefused,
    ErrorCode.CALL_TRANSITION.wire: CallStateRefused,
}


class CallSession(msgspec.Struct, rename="camel"):
    """A call session as the server has it. Times are RFC 3339 text; what never was is empty."""

    id: str
    type: CallType
    state: CallState
    created_at: str
    updated_at: str
    details: dict[str, str] = {}
    held: bool = False
    parent: str = ""
    channel: str = ""
    cause: str = ""
    lease_until: str = ""


class CallChange(msgspec.Struct):
    """The call came into a state, by the caller `by`."""

    state: CallState
    at: str
    by: str


class CallHistory(msgspec.Struct):
    """The changes of a call's state, oldest first."""

    id: str
    history: list[CallChange]


class CallPage(msgspec.Struct):
    """A page of calls; `next_cursor` is empty on the last one."""

    sessions: list[CallSession]
    next_cursor: str = ""


class SessionManagerClient:
    """`async with SessionManagerClient("http://127.0.0.1:8080", token=...) as calls: ...`

    Every call raises ApiError (CallNotFound, CallExists and CallStateRefused among them) for a
    refusal, and RequestFailed when there was no answer in the end.

    Args:
        base_url: of the server. token: of role service or admin, as for `RestClient`.
        timeout: seconds for one attempt. within: seconds after which no other attempt begins.
        attempts: at most so many for one call.
        backoff_base, backoff_cap: see `Backoff`, seconds. draw: uniform in [0, 1).
        transport: another way to send, for tests.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Refresh | None = None,
        *,
        timeout: float = 10.0,
        within: float = 30.0,
        attempts: int = 6,
        backoff_base: float = 0.25,
        backoff_cap: float = 5.0,
        draw: Callable[[], float] = random.random,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._rest = RestClient(base_url, token, timeout=timeout, transport=transport)
        self._within = within
        self._attempts = attempts
        self._waits = partial(Backoff, backoff_base, backoff_cap, draw)

    async def __aenter__(self) -> Self:
        await self._rest.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._rest.__aexit__(kind, error, trace)

    async def create(
        self,
        call_id: str,
        call_type: CallType,
        details: Mapping[str, str] | None = None,
        *,
        idempotency_key: str = "",
    ) -> CallSession:
        """Create a call, pending. Raises CallExists.

        `idempotency_key`: give the same one to repeat a creation after a restart.
        """
        body = {"id": call_id, "type": call_type, "details": dict(details or {})}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return decode(await self._send("POST", "/sessions", body, headers), CallSession)

    async def get(self, call_id: str) -> CallSession:
        """A call. Raises CallNotFound."""
        return decode(await self._send("GET", path("sessions", call_id)), CallSession)

    async def set_state(self, call_id: str, state: CallState, cause: str = "") -> CallSession:
        """Bring a call into a state. Raises CallNotFound, CallStateRefused.

        `cause`: why it ends, with `terminated`.
        """
        target = path("sessions", call_id, "state")
        body = {"state": state} | ({"cause": cause} if cause else {})
        return decode(await self._send("PUT", target, body), CallSession)

    async def add_event(self, call_id: str, kind: EventKind, value: str = "") -> CallSession:
        """Note an event of a call; `value`: what it is about. `hangup` ends the call.

        Raises CallNotFound, CallStateRefused (it does not fit the call as it is).
        """
        body = {"kind": kind} | ({EVENT_MEMBERS.get(kind, "value"): value} if value else {})
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        target = path("sessions", call_id, "events")
        return decode(await self._send("POST", target, body, headers), CallSession)

    async def heartbeat(self, call_id: str) -> CallSession:
        """Begin or renew a call's lease. Raises CallNotFound, CallStateRefused (it ended)."""
        return decode(await self._send("POST", path("sessions", call_id, "heartbeat")), CallSession)

    async def set_details(self, call_id: str, details: Mapping[str, str | None]) -> CallSession:
        """Set these details, remove those that are None, and keep the others.

        Raises CallNotFound.
        """
        target = path("sessions", call_id, "details")
        return decode(await self._send("PUT", target, {"details": dict(details)}), CallSession)

    async def delete(self, call_id: str) -> None:
        """Delete a call. Raises CallNotFound, unless an attempt before may have deleted it."""
        await self._send("DELETE", path("sessions", call_id))

    async def history(self, call_id: str) -> list[CallChange]:
        """The changes of a call's state, oldest first; also of one that was deleted.

        Raises CallNotFound when it has never been, or is forgotten.
        """
        answer = await self._send("GET", path("sessions", call_id, "history"))
        return decode(answer, CallHistory).history

    async def page(
        self,
        cursor: str = "",
        limit: int = 100,
        *,
        state: CallState | None = None,
        call_type: CallType | None = None,
    ) -> CallPage:
        """One page of calls, newest first."""
        query = {"cursor": cursor, "limit": str(limit)}
        query |= {"state": state} if state else {}
        query |= {"type": call_type} if call_type else {}
        answer = await self._send("GET", f"/sessions?{httpx.QueryParams(query)}")
        return decode(answer, CallPage)

    async def all(
        self, *, state: CallState | None = None, call_type: CallType | None = None
    ) -> AsyncIterator[CallSession]:
        """Every call, newest first, page by page."""
        cursor = ""
        while True:
            page = await self.page(cursor, state=state, call_type=call_type)
            for call in page.sessions:
                yield call
            cursor = page.next_cursor
            if not cursor:
                return

    async def _send(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One request, until it is answered or given up."""
        waits, until = self._waits(), anyio.current_time() + self._within
        lost = False
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._rest._call(method, target, body, headers=headers)
            except (ApiError, RequestFailed) as error:
                if lost and method == "DELETE" and _is_gone(error):
                    return httpx.Response(204)
                wait = waits.next(getattr(error, "retry_after", None) or 0.0)
                late = anyio.current_time() + wait > until
                if not _passes(error) or late or attempt == self._attempts:
                    raise typed(error) from None
                lost = lost or isinstance(error, RequestFailed) or error.status == 503
            await anyio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def _passes(error: ApiError | RequestFailed) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ApiError):
        return error.status in BUSY
    return error.code in LOST


def _is_gone(error: ApiError | RequestFailed) -> bool:
    return error.code == ErrorCode.CALL_NOT_FOUND.wire


def typed(error: ApiError | RequestFailed) -> ApiError | RequestFailed:
    """The same error as the class that its code has."""
    kind = ERRORS.get(error.code)
    if kind is None or not isinstance(error, ApiError):
        return error
    return kind(error.code, error.status, error.detail, error.retry_after, error.fields)
