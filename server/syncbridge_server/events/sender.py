"""Posts an event to an endpoint, once. Redirects are not followed.

Requests go to httpcore, on which httpx is built and which takes two thirds of its CPU. What one
costs there rises with the connections of its pool (1.0 ms with one, 1.3 with 8, 4.2 with 32 under
way), so the connections of an endpoint are shared out among small pools.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import httpcore
import httpx
import trio

from syncbridge_server.events.guard import Guard, NotAllowed

SECONDS = 15.0
"""A whole attempt, at most."""

AGAIN_SECONDS = 60.0
"""How long an address is used before the name is resolved again."""

KEPT_SECONDS = 5.0
"""How long a connection is kept for the next request, as httpx does."""

ANSWER_MOST = 16_384
"""Bytes of an answer that are read, so that the connection can be used again."""

ERROR_MOST = 200
POOLS, CONNECTIONS = 4, 8
"""So many pools of so many connections an endpoint."""

TIMES = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)}
RESOLVERS = 2
"""Threads of one endpoint that wait for a name server."""

FAILURES = (
    NotAllowed,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
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


class Pool:
    """Some connections, and how many requests are under way on them."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.http = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS,
            keepalive_expiry=KEPT_SECONDS,
        )
        self.under_way = 0

    @contextmanager
    def borrowed(self) -> Iterator[httpcore.AsyncConnectionPool]:
        """For one request."""
        self.under_way += 1
        try:
            yield self.http
        finally:
            self.under_way -= 1


class Sender:
    """Posts to one endpoint: connections are not shared between endpoints."""

    def __init__(self, url: str, guard: Guard) -> None:
        self._text = url
        self._guard = guard
        self._resolving = trio.Lock()
        self._threads = trio.CapacityLimiter(RESOLVERS)
        self._address = ""
        self._until = 0.0
        self._pools: list[Pool] = []

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in self._pools:
            await pool.http.aclose()

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
        request = httpcore.Request(
            "POST",
            httpcore.URL(
                scheme=url.raw_scheme,
                host=address.encode("ascii"),
                port=url.port,
                target=url.raw_path,
            ),
            headers=[
                (b"host", url.netloc),
                (b"user-agent", b"SyncBridge"),
                (b"content-length", b"%d" % len(body)),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
            content=body,
            extensions={**TIMES, "sni_hostname": url.host},
        )
        with self._pool(url).borrowed() as http:
            answer = await http.handle_async_request(request)
            try:
                await _read(answer)
            finally:
                await answer.aclose()
        found = {name.lower(): value for name, value in answer.headers}
        status = answer.status
        asked = _seconds(found.get(b"retry-after", b"").decode("latin-1"))
        return Answer(status, "" if 200 <= status < 300 else f"status {status}", asked)

    def _pool(self, url: httpx.URL) -> Pool:
        """The pool with the fewest requests under way."""
        if not self._pools:
            tls = httpx.create_ssl_context(trust_env=False) if url.scheme == "https" else None
            self._pools = [Pool(tls) for _ in range(POOLS)]
        return min(self._pools, key=lambda pool: pool.under_way)

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
    return f"{name}: {error}"[:ERROR_MOST] if isinstance(error, httpcore.ConnectError) else name


async def _read(answer: httpcore.Response) -> None:
    """Read a short answer; a long one is left, and its connection with it."""
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > ANSWER_MOST:
            return


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
