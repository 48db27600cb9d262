"""A user over HTTP: their sessions, and whether they are online, on any device.

The index of a user's sessions is written beside the sessions and may be behind; each session that
is shown has been looked at, and what is not there any more is dropped from the index. One that is
damaged stays there, is left out of the answer, and counted.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncbridge import ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import authorize
from syncbridge.records.devices import Forget, ListSessions, Peek, Peeked, SessionList
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.gateway.presence import COMPARE_SECONDS, TOUCH_SECONDS
from syncbridge_server.gateway.sweeper import ask_all
from syncbridge_server.gateway.users import PERIOD, is_of
from syncbridge_server.http.support.answers import timestamp
from syncbridge_server.http.support.pages import Cursor, PageSize, query_of
from syncbridge_server.isolation import Isolation
from syncbridge_server.openapi.describe import Timestamp, Uuid, VersionNumber, describe
from syncbridge_server.ports.store import Store

log = structlog.get_logger("http")

JSON = "application/json"
PAGE = 256
ONLINE_WITHIN_MS = int(1000 * (TOUCH_SECONDS + 2 * COMPARE_SECONDS + PERIOD))
"""A session with a device online has been noted as active within this time."""

MAX_LOOKED_AT = 1_024
"""Most sessions read to tell whether a user is online: those with the newest activity."""

Found = tuple[str, int, Peeked]
"""Session id, last activity in Unix ms, and what the session is."""


class SessionsQuery(msgspec.Struct):
    """Query of `GET /users/{user_id}/sessions`."""

    cursor: Cursor = ""
    limit: PageSize = 50


class UserSession(msgspec.Struct):
    """A session of a user; version 0 while it is only joined and not yet written."""

    session_id: Uuid
    version: VersionNumber
    epoch: str
    updated_at: Timestamp | None
    last_activity: Timestamp
    devices_online: int


class UserSessionsBody(msgspec.Struct):
    """Newest activity first, to within a minute. `next_cursor` is empty on the last page.

    `damaged`: sessions of the page that cannot be read and are left out here.
    """

    user_id: str
    sessions: list[UserSession]
    next_cursor: str
    damaged: int


class UserStatusBody(msgspec.Struct):
    """A device that is online in several sessions counts once."""

    user_id: str
    status: Literal["online", "offline"]
    devices_online: int
    sessions_online: int


class UserRoutes:
    """The routes. `isolation`: in which sessions are listed. `clock`: Unix seconds."""

    def __init__(
        self,
        store: Store,
        authenticate: BearerAuth,
        id_bytes: int,
        isolation: Isolation | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._isolation = isolation or Isolation()
        self._authenticate = authenticate
        self._id_bytes = id_bytes
        self._clock = clock

    def routes(self) -> list[Route]:
        """For the application's router."""
        return [
            Route("/users/{user_id}/sessions", self.sessions, methods=["GET"]),
            Route("/users/{user_id}/status", self.status, methods=["GET"]),
        ]

    @describe("A user's sessions", answers={200: UserSessionsBody}, query=SessionsQuery)
    async def sessions(self, request: Request) -> Response:
        """One page. It may be shorter than the limit although another follows."""
        user_id = await self._user(request)
        query = query_of(request, SessionsQuery)
        after = parse_cursor(query.cursor)
        listed = await self._listed(ListSessions(user_id, query.limit, after))
        looked, damaged = await self._look(user_id, listed)
        shown = [
            UserSession(
                sid,
                peeked.version,
                peeked.epoch,
                timestamp(peeked.updated_at) if peeked.exists else None,
                timestamp(activity),
                len(peeked.online),
            )
            for sid, activity, peeked in looked
        ]
        cursor = "{1}-{0}".format(*listed.sessions[-1]) if listed.more else ""
        return Response(
            msgspec.json.encode(UserSessionsBody(user_id, shown, cursor, damaged)), media_type=JSON
        )

    @describe(
        "Whether a user is online on any device", answers={200: UserStatusBody}, errors=(422,)
    )
    async def status(self, request: Request) -> Response:
        """Counts the devices of the sessions with recent activity."""
        user_id = await self._user(request)
        devices: set[str] = set()
        sessions = 0
        async for peeked in self._recent(user_id):
            devices.update(peeked.online)
            sessions += bool(peeked.online)
        status: Literal["online", "offline"] = "online" if devices else "offline"
        body = UserStatusBody(user_id, status, len(devices), sessions)
        return Response(msgspec.json.encode(body), media_type=JSON)

    async def _user(self, request: Request) -> str:
        """The user in the path, if the caller may see that user."""
        identity = await self._authenticate(request)
        user_id = ids.short_id("user_id", request.path_params["user_id"], self._id_bytes)
        authorize(identity, user_id=user_id)
        return user_id

    async def _recent(self, user_id: str) -> AsyncIterator[Peeked]:
        since, after, looked_at = self._clock() * 1000 - ONLINE_WITHIN_MS, None, 0
        while looked_at < MAX_LOOKED_AT:
            listed = await self._listed(ListSessions(user_id, PAGE, after))
            for _, activity, peeked in (await self._look(user_id, listed))[0]:
                if activity >= since:
                    yield peeked
            if not listed.more or listed.sessions[-1][1] < since:
                return
            sid, activity = listed.sessions[-1]
            after, looked_at = (activity, sid), looked_at + PAGE

    async def _listed(self, question: ListSessions) -> SessionList:
        """A page of the index. What is no id of a session is dropped from it, and the page is asked
        for again: each round drops something."""
        while True:
            listed: SessionList = await self._store.call(question)
            strange = [sid for sid, _ in listed.sessions if not is_session(sid)]
            if not strange:
                return listed
            log.warning(
                "user_index_entries_dropped", user_id=question.user_id, entries=len(strange)
            )
            await self._store.call(Forget(question.user_id, strange))

    async def _look(self, user_id: str, listed: SessionList) -> tuple[list[Found], int]:
        """The sessions of a page that are there and are the user's, and how many are damaged; the
        others are dropped."""
        answers: Sequence[Any] = []
        if listed.sessions:
            answers = await ask_all(self._store, [Peek(sid) for sid, _ in listed.sessions])
        found = [
            (sid, answer if isinstance(answer, Exception) else (sid, activity, answer))
            for (sid, activity), answer in zip(listed.sessions, answers, strict=True)
        ]
        read = await self._isolation.each("list", found, found_session)
        shown = [one for one in read if is_of(one[2], user_id)]
        gone = [one[0] for one in read if not is_of(one[2], user_id)]
        if gone:
            await self._store.call(Forget(user_id, gone))
        return shown, len(found) - len(read)


def found_session(found: Found) -> Found:
    """A session of the index as it was looked at."""
    return found


def is_session(sid: str) -> bool:
    """Whether an entry of the index could be a session."""
    try:
        return ids.session_id(sid) == sid
    except SyncBridgeError:
        return False


def parse_cursor(text: str) -> tuple[int, str] | None:
    """(activity, session id) of the last entry of the page before. Raises INVALID_FIELD."""
    if not text:
        return None
    activity, dash, sid = text.partition("-")
    if dash and activity.isascii() and activity.isdigit() and len(activity) < 16:
        return int(activity), ids.session_id(sid)
    raise SyncBridgeError(
        ErrorCode.INVALID_FIELD, "cursor: expected the next_cursor of a page", field="cursor"
    )
