"""Asks the application who may join which session, if that is configured.

`SYNCBRIDGE_CONNECT_URL` gets a POST for each token and session that is new here:

    {"user_id": "ann", "session_id": "…", "device_id": "phone", "role": "user"}

It answers 200 with `{"allow": true}`, or with `{"allow": false, "reason": "…"}`; 403 also refuses.
The decision is kept for the life of the token, so a reconnect does not ask again. Without a
decision (another status, an unreadable or late answer, more than AT_ONCE requests) nobody joins,
and the client is asked to retry. Services and administrators join without a request.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import msgspec
import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.integrity import UNREADABLE
from syncbridge_server.log import Occasionally, get_logger
from syncbridge_server.settings import Settings

if TYPE_CHECKING:
    import httpx

AT_ONCE = 50
KEPT = 65_536
MOST_BYTES = 4_096
RETRY_SECONDS = 1.0
LOG_SECONDS = 10.0

_log = get_logger("AUTH")

Key = tuple[str, str]
Done = Callable[[SyncBridgeError | None], None]


class GateDecision(msgspec.Struct, frozen=True):
    """The application's answer. `reason` is sent to the client."""

    allow: bool
    reason: str = ""


class GateRequest(msgspec.Struct, frozen=True):
    """The request to the application."""

    user_id: str
    session_id: str
    device_id: str
    role: str


class ConnectGate:
    """The application's decisions on joins.

    Args:
        key: sent as a bearer token unless empty. timeout: seconds for an answer. clock: Unix
            seconds.
    """

    def __init__(self, url: str, key: str, timeout: float, clock: Callable[[], float]) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout
        self._clock = clock
        self._known: OrderedDict[Key, tuple[GateDecision, float]] = OrderedDict()
        self._asked: dict[Key, list[Done]] = {}
        self._nursery: trio.Nursery | None = None
        self._client: httpx.AsyncClient | None = None
        self._occasionally = Occasionally(LOG_SECONDS, trio.current_time)

    def is_open(self, identity: Identity, session_id: str) -> bool:
        """Whether a join is already allowed. Raises FORBIDDEN for a refused one. O(1)."""
        if identity.privileged:
            return True
        key = identity.jti, session_id
        verdict, until = self._known.get(key, (None, 0.0))
        if verdict is None or until < self._clock():
            return False
        self._known.move_to_end(key)
        if not verdict.allow:
            raise refused(verdict)
        return True

    def ask(self, identity: Identity, session_id: str, device_id: str, done: Done) -> None:
        """Ask, and call `done` with an error or None. Equal requests share one answer.

        Raises:
            SyncBridgeError: OVERLOADED when too many requests are open.
        """
        key = identity.jti, session_id
        waiting = self._asked.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        if self._nursery is None or len(self._asked) >= AT_ONCE:
            raise unavailable()
        self._asked[key] = [done]
        question = GateRequest(identity.user_id, session_id, device_id, identity.role)
        self._nursery.start_soon(self._answer, key, question, identity.expires_at)

    async def require(self, identity: Identity, session_id: str, device_id: str = "") -> None:
        """As `ask`, and wait for the answer. Raises FORBIDDEN, OVERLOADED."""
        if self.is_open(identity, session_id):
            return
        answered, errors = trio.Event(), list[SyncBridgeError | None]()

        def done(error: SyncBridgeError | None) -> None:
            errors.append(error)
            answered.set()

        self.ask(identity, session_id, device_id, done)
        await answered.wait()
        if errors[0] is not None:
            raise errors[0]

    async def run(self) -> None:
        """Send requests until cancelled."""
        import httpx

        limits = httpx.Limits(max_connections=AT_ONCE)
        async with (
            httpx.AsyncClient(timeout=None, limits=limits) as client,  # noqa: S113
            trio.open_nursery() as nursery,
        ):
            self._client, self._nursery = client, nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _answer(self, key: Key, question: GateRequest, expires_at: float) -> None:
        error: SyncBridgeError | None = unavailable()
        try:
            verdict = await self._judged(question)
            if verdict is not None:
                error = None if verdict.allow else refused(verdict)
                self._keep(key, verdict, expires_at)
        finally:
            for done in self._asked.pop(key):
                done(error)

    def _keep(self, key: Key, verdict: GateDecision, expires_at: float) -> None:
        self._known[key] = verdict, expires_at
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    async def _judged(self, question: GateRequest) -> GateDecision | None:
        """The application's decision, or None."""
        why = "no answer in time"
        with trio.move_on_after(self._timeout):
            try:
                return await self._post(msgspec.json.encode(question))
            except UNREADABLE:
                why = "the answer is not {allow: true} or {allow: false}"
            except Exception as error:  # of the HTTP client, in any of its forms
                why = type(error).__name__
        if self._occasionally.due():
            _log.warning("connect_gate_unavailable", reason=why)
        return None

    async def _post(self, body: bytes) -> GateDecision:
        assert self._client is not None
        text = b""
        async with self._client.stream(
            "POST", self._url, content=body, headers=self._headers
        ) as answer:
            if answer.status_code == ErrorCode.FORBIDDEN.status:
                return GateDecision(False)
            answer.raise_for_status()
            if int(answer.headers.get("Content-Length", 0)) > MOST_BYTES:
                raise msgspec.DecodeError("too long")
            parts = cast(AsyncGenerator[bytes, None], answer.aiter_bytes())
            async with aclosing(parts):
                async for part in parts:
                    text += part
                    if len(text) > MOST_BYTES:
                        raise msgspec.DecodeError("too long")
        return msgspec.json.decode(text, type=GateDecision)


def refused(verdict: GateDecision) -> SyncBridgeError:
    """The error for a refused join."""
    detail = verdict.reason[:200] or "the application does not let this user into the session"
    return SyncBridgeError(ErrorCode.FORBIDDEN, detail)


def unavailable() -> SyncBridgeError:
    """The error without a decision."""
    return SyncBridgeError(
        ErrorCode.OVERLOADED,
        "the application did not say whether you may join",
        retry_after=RETRY_SECONDS,
    )


def build_gate(settings: Settings, clock: Callable[[], float] = time.time) -> ConnectGate | None:
    """The configured gate, or None."""
    if not settings.connect_url:
        return None
    key = settings.connect_key.get_secret_value()
    return ConnectGate(settings.connect_url, key, settings.connect_timeout, clock)


async def kept_open(gate: ConnectGate | None) -> None:
    """Run a gate, if any."""
    if gate is not None:
        await gate.run()
