"""The HTTP calls of a server, with typed answers and typed errors; on Trio and asyncio.

Numbers are Python's; ids and times are text as the server writes them (RFC 3339).
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import anyio
import httpx
import msgspec

from syncbridge_client.catalogue import ErrorCode
from syncbridge_client.errors import ApiError, RequestFailed
from syncbridge_client.tokens import NoToken, Refresh, TokenKeeper
from syncbridge_client.values import to_text

T = TypeVar("T")


def without_handoff_token(record: logging.LogRecord) -> bool:
    """A log filter: httpx logs URLs, and the URL of a redemption holds a secret."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            HANDOFF_TOKEN.sub(r"\1...", str(arg)) if isinstance(arg, httpx.URL) else arg
            for arg in record.args
        )
    return True


HANDOFF_TOKEN = re.compile(r"(/handoff/)[^/?]+")
logging.getLogger("httpx").addFilter(without_handoff_token)
Strategy = Literal["server_wins", "client_wins", "merge"]


class Written(msgspec.Struct):
    """Answer to a snapshot that was stored. `created`: it made the session."""

    session_id: str
    version: int
    epoch: str
    created_at: str
    updated_at: str
    expires_at: str
    created: bool = False


class StoredSession(msgspec.Struct):
    """A session as the server has it. `etag`: give it to `get_session` the next time."""

    session_id: str
    user_id: str
    version: int
    epoch: str
    state_data: dict[str, Any]
    created_at: str
    updated_at: str
    expires_at: str
    device_id: str = ""
    app_version: str = ""
    etag: str = ""


class Applied(msgspec.Struct):
    """Answer to an incremental update. `conflicts`: as in the protocol."""

    session_id: str
    version: int
    epoch: str
    applied: list[str]
    conflicts: list[dict[str, Any]] = []


class Resolved(msgspec.Struct):
    """Answer to a resolved conflict."""

    session_id: str
    version: int
    epoch: str
    state_data: dict[str, Any]
    resolution_strategy: str
    conflicts: list[Any] = []


class DeviceStatus(msgspec.Struct):
    """One registered device."""

    device_id: str
    device_type: str = ""
    device_name: str = ""
    os_version: str = ""
    status: str = "offline"
    connected_at: Any = None
    last_seen: Any = None
    in_call: str = ""
    waddle_id: str = ""


class DeviceList(msgspec.Struct):
    """The devices of a session."""

    session_id: str
    devices: list[DeviceStatus]
    total: int


class Handoff(msgspec.Struct):
    """A handoff that was begun. `token` is a secret for the target device."""

    token: str
    session_id: str
    source_device: str
    target_device: str
    expires_at: str

    def __repr__(self) -> str:
        return f"Handoff({self.source_device!r} -> {self.target_device!r}, {self.expires_at})"


class Redeemed(msgspec.Struct):
    """What the target device of a handoff receives."""

    valid: bool
    session_id: str
    source_device: str
    target_device: str
    version: int
    epoch: str
    state_data: dict[str, Any]


class TokenPair(msgspec.Struct):
    """Tokens and their lives in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int

    def __repr__(self) -> str:
        return f"TokenPair(expires_in={self.expires_in})"


class RestClient:
    """`async with RestClient("http://127.0.0.1:8080", token=...) as rest: ...`

    Every call raises ApiError for an answer that is none of the expected, and RequestFailed
    (`timeout`, `disconnected`) when there is no answer; then it is not known whether a write was
    done. A call that the server refuses because the token has expired is repeated once with a new
    token, if `token` is a callable.

    Args:
        base_url: of the server. token: access token, an async callable that returns one, or None.
        timeout: seconds for one call. transport: another way to send, for tests.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Refresh | None = None,
        *,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._keeper = None if token is None else TokenKeeper(token, timeout)
        self._timeout = timeout
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    # Session state

    async def put_snapshot(
        self,
        session_id: str,
        user_id: str,
        state_data: Mapping[str, Any],
        *,
        version: int = 0,
        device_id: str = "",
        app_version: str = "",
    ) -> Written:
        """Create a session or replace its state. `version`: the one believed to be current."""
        body = {
            "session_id": session_id,
            "user_id": user_id,
            "state_data": dict(state_data),
            "version": version,
            "device_id": device_id,
            "app_version": app_version,
        }
        response = await self._call("POST", "/session/snapshot", body)
        written = decode(response, Written)
        written.created = response.status_code == 201
        return written

    async def get_session(self, session_id: str, etag: str = "") -> StoredSession | None:
        """A session's state; None when it still is the one of `etag`."""
        headers = {"If-None-Match": etag} if etag else {}
        response = await self._call("GET", path("session", session_id), headers=headers)
        if response.status_code == 304:
            return None
        session = decode(response, StoredSession)
        session.etag = response.headers.get("etag", "")
        return session

    async def incremental(
        self,
        session_id: str,
        user_id: str,
        changes: Mapping[str, Any],
        *,
        base_version: int,
        deleted_keys: Sequence[str] = (),
        device_id: str = "",
    ) -> Applied:
        """Change some keys; ApiError `version_conflict` when one changed after `base_version`."""
        body = {
            "session_id": session_id,
            "user_id": user_id,
            "base_version": base_version,
            "changes": dict(changes),
            "deleted_keys": list(deleted_keys),
        }
        if device_id:
            body["device_id"] = device_id
        return decode(await self._call("POST", "/session/incremental", body), Applied)

    async def resolve(
        self,
        session_id: str,
        client_state: Mapping[str, Any],
        *,
        client_version: int,
        strategy: Strategy = "merge",
        changed_keys: Sequence[str] | None = None,
        complete: bool | None = None,
    ) -> Resolved:
        """Settle a conflict over the whole state."""
        body: dict[str, Any] = {
            "session_id": session_id,
            "client_version": client_version,
            "client_state": dict(client_state),
            "resolution_strategy": strategy,
        }
        if changed_keys is not None:
            body["changed_keys"] = list(changed_keys)
        if complete is not None:
            body["complete"] = complete
        return decode(await self._call("POST", "/session/conflict/resolve", body), Resolved)

    # Devices

    async def devices(self, session_id: str) -> DeviceList:
        """The devices that a session knows, online or not."""
        return decode(await self._call("GET", path("session", session_id, "devices")), DeviceList)

    async def remove_device(self, session_id: str, device_id: str) -> None:
        """Take a device out of a session and close its socket."""
        await self._call("DELETE", path("session", session_id, "device", device_id))

    async def handoff_create(
        self, session_id: str, source_device: str, target_device: str
    ) -> Handoff:
        """Begin to hand the session over to another device."""
        body = {"source_device": source_device, "target_device": target_device}
        return decode(
            await self._call("POST", path("session", session_id, "handoff"), body), Handoff
        )

    async def handoff_redeem(
        self, session_id: str, handoff_token: str, device_id: str = ""
    ) -> Redeemed:
        """Take the session over, on the target device; works once."""
        headers = {"X-Device-ID": device_id} if device_id else {}
        target = path("session", session_id, "handoff", handoff_token)
        return decode(await self._call("GET", target, headers=headers), Redeemed)

    # Tokens

    async def refresh_tokens(self, refresh_token: str) -> TokenPair:
        """A new pair; the refresh token is spent by it."""
        body = {"refresh_token": refresh_token}
        return decode(await self._call("POST", "/auth/refresh", body, authorized=False), TokenPair)

    async def mint_tokens(self, user_id: str, **claims: Any) -> TokenPair:
        """A pair for a user; role service or admin. `claims`: as in `POST /auth/token`."""
        return decode(
            await self._call("POST", "/auth/token", {"user_id": user_id, **claims}), TokenPair
        )

    # Sending

    async def _call(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        authorized: bool = True,
    ) -> httpx.Response:
        keeper = self._keeper if authorized else None
        response = await self._send(method, target, body, headers, keeper)
        if is_expired(response) and keeper is not None and keeper.renewable:
            keeper.spent()
            response = await self._send(method, target, body, headers, keeper)
        if response.is_success or response.status_code == 304:
            return response
        raise error_of(response)

    async def _send(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        keeper: TokenKeeper | None,
    ) -> httpx.Response:
        sent = dict(headers or {})
        if keeper is not None:
            sent["Authorization"] = f"Bearer {await token_of(keeper)}"
        content = None if body is None else to_text(body)
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            with anyio.fail_after(self._timeout):
                return await self._http.request(method, target, content=content, headers=sent)
        except (httpx.TimeoutException, TimeoutError):
            raise RequestFailed("timeout", f"no answer in {self._timeout} s") from None
        except httpx.TransportError as error:
            raise RequestFailed("disconnected", type(error).__name__) from error


async def token_of(keeper: TokenKeeper) -> str:
    """The token to send; raises RequestFailed when there is none."""
    try:
        return await keeper.current()
    except NoToken as error:
        raise RequestFailed("no_token", str(error)) from error


def path(*parts: str) -> str:
    """A path out of parts that may hold anything."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def decode(response: httpx.Response, kind: type[T]) -> T:
    """The body as a `kind`; ApiError `unexpected_answer` when it is something else."""
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("unexpected_answer", response.status_code, str(error)) from None


def is_expired(response: httpx.Response) -> bool:
    """Whether the token was too old."""
    return response.status_code == 401 and error_of(response).code == ErrorCode.TOKEN_EXPIRED.wire


def error_of(response: httpx.Response) -> ApiError:
    """A problem document as an exception; whatever else a proxy may answer, too."""
    try:
        body = msgspec.json.decode(response.content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = {}
    status = response.status_code
    known = ("type", "title", "status", "detail", "code", "instance")
    return ApiError(
        str(body.get("code") or f"http_{status}"),
        status,
        str(body.get("detail") or body.get("title") or ""),
        seconds(response.headers.get("retry-after")),
        {name: value for name, value in body.items() if name not in known},
    )


def seconds(text: str | None) -> float | None:
    """A Retry-After header that is a number of seconds."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
