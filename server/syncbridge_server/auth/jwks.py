"""Verification keys of somebody else's issuer, fetched from its JWKS URL (RFC 7517).

The keys are read at the start, again every 15 minutes, and at most once a minute when a token
names a key that is not known. A fetch that fails changes nothing: the keys that are known stay.
Bounds: 5 seconds, 64 KiB, 64 keys, no redirects.
"""

import json
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

import httpx
import trio

from syncbridge_server.auth.keys import Key, UnknownKey, jwk_key
from syncbridge_server.log import get_logger

MAX_BYTES = 65_536
MAX_KEYS = 64
FETCH_SECONDS = 5.0
LEAST_INTERVAL = 60.0
MAX_AGE = 900.0

_log = get_logger("AUTH")


class JwksKeys:
    """A `KeySource` over a JWKS URL.

    Args:
        url: where the key set is. algorithm: the only one that is accepted.
        on_change: called when the set of keys is another one than before.
        client: for tests; by default one client a fetch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        algorithm: str,
        on_change: Callable[[], None] = lambda: None,
        client: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.algorithm = algorithm
        self.on_change = on_change
        self._url = url
        self._client = client
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._raw: list[Any] = []
        self._last_try = -math.inf
        self._lock = trio.Lock()
        self._wanted = trio.Event()

    def find(self, kid: str) -> Key:
        """The key of that id; without an id, the only key. Asks for a fetch when unknown."""
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(kid)
        if key is None:
            self._wanted.set()
            raise UnknownKey("its key is not known")
        return key

    async def refresh(self) -> bool:
        """Fetch now, unless that was tried less than a minute ago. True when keys were read."""
        async with self._lock:
            if self._clock() - self._last_try < LEAST_INTERVAL:
                return False
            self._last_try = self._clock()
            try:
                with trio.fail_after(FETCH_SECONDS):
                    self._take(_key_list(await self._fetch()))
            except (httpx.HTTPError, trio.TooSlowError, ValueError) as error:
                _log.warning("The token issuer's keys cannot be read", reason=type(error).__name__)
                return False
            return True

    async def run(self) -> None:
        """Keep the keys fresh, for ever."""
        while True:
            await self.refresh()
            self._wanted = trio.Event()
            with trio.move_on_after(MAX_AGE):
                await self._wanted.wait()
                await trio.sleep(max(0.0, self._last_try + LEAST_INTERVAL - self._clock()))

    async def _fetch(self) -> bytes:
        body = bytearray()
        async with self._client() as client, client.stream("GET", self._url) as response:
            response.raise_for_status()
            stream = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise ValueError("key set too large")
        return bytes(body)

    def _take(self, entries: list[Any]) -> None:
        known = {}
        for entry in entries:
            key = jwk_key(self.algorithm, entry) if isinstance(entry, dict) else None
            if key is not None:
                known[str(entry.get("kid", ""))] = key
        if entries != self._raw:
            self._keys, self._raw = known, entries
            self.on_change()


def _key_list(body: bytes) -> list[Any]:
    document = json.loads(body)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError("not a key set")
    return keys
