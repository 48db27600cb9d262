"""Posts an event to an endpoint, once. Redirects are not followed."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import httpx
import trio

from syncbridge_server.events.guard import Guard, NotAllowed

SECONDS = 15.0
"""A whole attempt, at most."""

AGAIN_SECONDS = 60.0
"""How long an address is used before the name is resolved again."""

ANSWER_MOST = 16_384
"""Bytes of an answer that are read, so that the connection can be used again."""

ERROR_MOST = 200
CONNECTIONS = 32
RESOLVERS = 2
"""Threads of one endpoint that wait for a name server."""

FAILURES = (
    NotAllowed,
    httpx.HTTPError,
    httpx.InvalidURL,
    OSError,
    trio.TooSlowError,
    UnicodeError,
)
"""What an attempt may end with."""


class Answer(NamedTuple):
    """What became of an attempt. `status` 0: no answer. `asked`: seconds of Retry-After."""

    status: int
    error: str = ""
    asked: float = 0.0

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


class Sender:
    """Posts to one endpoint: connections are not shared between endpoints."""

    def __init__(self, url: str, guard: Guard) -> None:
        self._text = url
        self._guard = guard
        self._resolving = trio.Lock()
        self._threads = trio.CapacityLimiter(RESOLVERS)
        self._address = ""
        self._until = 0.0
        self._http = httpx.AsyncClient(
            timeout=SECONDS,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @cached_property
    def _url(self) -> httpx.URL:
        """Raises httpx.InvalidURL: that is the endpoint's own trouble, with each attempt."""
        return httpx.URL(self._text)

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """One attempt; never raises for what the endpoint does."""
        try:
            with trio.fail_after(SECONDS):
                return await self._post(headers, body)
        except FAILURES as error:
            self._until = 0.0
            return Answer(0, _told(error))

    async def _post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        url = self._url
        address = await self._where(url)
        request = self._http.build_request(
            "POST",
            url.copy_with(host=address),
            headers={**headers, "host": url.netloc.decode("ascii"), "user-agent": "SyncBridge"},
            content=body,
            extensions={"sni_hostname": url.host},
        )
        answer = await self._http.send(request, stream=True)
        try:
            await _read(answer)
        finally:
            await answer.aclose()
        status = answer.status_code
        asked = _seconds(answer.headers.get("retry-after", ""))
        return Answer(status, "" if 200 <= status < 300 else f"status {status}", asked)

    async def _where(self, url: httpx.URL) -> str:
        """The address to connect to. Attempts that begin together ask for it once."""
        if trio.current_time() < self._until:
            return self._address
        async with self._resolving:
            now = trio.current_time()
            if now >= self._until:
                port = url.port or (443 if url.scheme == "https" else 80)
                asked = (url.host, port, url.scheme, self._threads)
                self._address = await self._guard.resolve(*asked)
                self._until = now + AGAIN_SECONDS
            return self._address


def _told(error: BaseException) -> str:
    """What is shown of a failure: of a refused connection or a bad certificate, also why."""
    if isinstance(error, NotAllowed):
        return str(error)
    name = type(error).__name__
    return f"{name}: {error}"[:ERROR_MOST] if isinstance(error, httpx.ConnectError) else name


async def _read(answer: Any) -> None:
    """Read a short answer; a long one is left, and its connection with it."""
    size = 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > ANSWER_MOST:
            return


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
