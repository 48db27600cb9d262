"""Verification keys of another issuer, fetched from its JWKS URL (RFC 7517).

The URL is configured, or found by OpenID Connect Discovery 1.0: `jwks_uri` of the document at
`{issuer}/.well-known/openid-configuration`, or `{issuer}/.well-known/jwks.json` without such a
document.

The keys are read at the start, again every 15 minutes, at most once a minute when a token names an
unknown key, and sooner after a failure. A failed fetch changes nothing: known keys stay valid. Only
callers with an unknown key wait for a fetch, MAX_WAITING of them at a time; further ones are asked
to retry. Bounds: 5 seconds, 64 KiB, 64 keys, no redirects.
"""

import json
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

import httpx
import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.addresses import is_safe_url
from syncbridge_server.auth.keys import Key, UnknownKey, jwk_key
from syncbridge_server.log import get_logger

MAX_BYTES = 65_536
MAX_KEYS = 64
MAX_WAITING = 64
FETCH_SECONDS = 5.0
LEAST_INTERVAL = 60.0
FIRST_RETRY = 1.0
MAX_AGE = 900.0
DISCOVERY = "/.well-known/openid-configuration"
CONVENTIONAL = "/.well-known/jwks.json"

_log = get_logger("AUTH")


class JwksKeys:
    """A `KeySource` over a JWKS URL.

    Args:
        url: URL of the key set; empty: found by discovery. algorithms: accepted ones; each key is
            used with one of them. issuer: the `iss` of its tokens.
        on_change: called when the set of keys changes.
        client: for tests; by default one client for each fetch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        algorithms: tuple[str, ...],
        issuer: str = "",
        on_change: Callable[[], None] = lambda: None,
        client: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.algorithms = algorithms
        self.on_change = on_change
        self._url = url
        self._issuer = issuer
        self._client = client
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._raw: list[Any] | None = None
        self._next = -math.inf
        self._pause = FIRST_RETRY
        self._waiting = 0
        self._lock = trio.Lock()
        self._wanted = trio.Event()

    def find(self, kid: str) -> Key:
        """The key of that id; without an id, the only key. Asks for a fetch when unknown."""
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(kid)
        if key is None:
            self._wanted.set()
            undecided = self._raw is None or self._clock() >= self._next or self._lock.locked()
            raise UnknownKey("it is signed with an unknown key", self if undecided else None)
        return key

    async def refresh(self) -> bool:
        """Fetch now, unless that was just tried. True when keys were read.

        Raises OVERLOADED when too many already wait for the fetch.
        """
        if self._waiting >= MAX_WAITING:
            raise SyncBridgeError(
                ErrorCode.OVERLOADED,
                "the token issuer's keys are still being read",
                retry_after=1.0,
            )
        self._waiting += 1
        try:
            return await self._read()
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        """Refresh the keys, for ever."""
        while True:
            await self._read()
            self._wanted = trio.Event()
            with trio.move_on_after(MAX_AGE if self._raw is not None else 0.0):
                await self._wanted.wait()
            await trio.sleep(max(0.0, self._next - self._clock()))

    async def _read(self) -> bool:
        async with self._lock:
            if self._clock() < self._next:
                return False
            self._next = math.inf  # who asks meanwhile waits for this fetch
            try:
                with trio.fail_after(FETCH_SECONDS):
                    self._take(_key_list(await self._fetch()))
                self._pause = FIRST_RETRY
                self._next = self._clock() + LEAST_INTERVAL
            except (httpx.HTTPError, trio.TooSlowError, ValueError, RecursionError) as error:
                self._failed(error)
                return False
            except BaseException:
                self._next = -math.inf
                raise
            return True

    def _failed(self, error: Exception) -> None:
        self._next = self._clock() + self._pause
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        _log.warning(
            "jwks_unavailable",
            issuer=self._issuer or self._url,
            reason=reason,
            again_in=self._pause,
        )
        self._pause = min(2 * self._pause, LEAST_INTERVAL)

    async def _fetch(self) -> bytes:
        async with self._client() as client:
            return await _get(client, self._url or await self._discover(client))

    async def _discover(self, client: httpx.AsyncClient) -> str:
        """Where the issuer's keys are (OpenID Connect Discovery 1.0, sections 4 and 4.3)."""
        base = self._issuer.rstrip("/")
        try:
            document = json.loads(await _get(client, base + DISCOVERY))
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            return base + CONVENTIONAL
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise ValueError("its discovery document names another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_safe_url(url):
            raise ValueError("its jwks_uri is neither https:// nor on this machine")
        return url

    def _take(self, entries: list[Any]) -> None:
        known = {}
        for entry in entries:
            for algorithm in self.algorithms:
                key = jwk_key(algorithm, entry) if isinstance(entry, dict) else None
                if key is not None:
                    known[str(entry.get("kid", ""))] = key
        if entries != self._raw:
            self._keys, self._raw = known, entries
            self.on_change()


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    body = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        stream = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("key set too large")
    return bytes(body)


def _key_list(body: bytes) -> list[Any]:
    document = json.loads(body)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError("not a key set")
    return keys
