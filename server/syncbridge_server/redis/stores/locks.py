"""Locks in Redis: one holder at a time, over all nodes.

Theory of operation. A lock is a key with an expiry that holds its holder's token. A script acquires
and releases it, and compares the token. A caller that does not wait first reads the key, and the
holder renews it with `GETEX`, which returns the token: so a lock that one node keeps costs no
script, on any node. If the token is another's, its expiry was renewed, which is harmless: the other
works, or its lock expires a little later.
"""

import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain

log = structlog.get_logger("voice")

POLL_SECONDS = (0.01, 0.25)
"""Sleep between two attempts to acquire a lock: at first, and at most."""


class HeldLock:
    """A held lock. Implements `syncbridge_server.ports.channels.Lock`."""

    def __init__(self, io: RedisIO, key: str) -> None:
        self.token = secrets.token_hex(16)
        self._io = io
        self._key = key

    async def keep(self, life_ms: int) -> bool:
        """See `Lock.keep`."""
        return await self._asked("GETEX", self._key, "PX", life_ms) == self.token.encode()

    async def taken(self) -> bool:
        """Whether the lock is held."""
        return await self._asked("GET", self._key) is not None

    async def acquire(self, life_ms: int, wait_ms: int) -> bool:
        """Acquire the lock within a time; False when others hold it."""
        if not wait_ms and await self.taken():
            return False
        deadline = trio.current_time() + wait_ms / 1000
        pause, longest = POLL_SECONDS
        while not await self._compared(life_ms):
            left = deadline - trio.current_time()
            if left <= 0:
                return False
            await trio.sleep(min(pause * random.uniform(0.5, 1.5), left))  # noqa: S311
            pause = min(2 * pause, longest)
        return True

    async def release(self) -> None:
        """Release the lock, also when cancelled."""
        try:
            with trio.CancelScope(shield=True):
                await self._compared(0)
        except StoreError as error:
            log.info("voice_lock_kept", reason=error.detail)

    async def _asked(self, *words: str | int) -> bytes | None:
        (reply,) = await self._io.request([plain(*words, repeatable=True)])
        if isinstance(reply, StoreError):
            raise reply
        holder: bytes | None = reply
        return holder

    async def _compared(self, life_ms: int) -> bool:
        args: list[bytes | str | int] = [self.token, life_ms]
        return bool(await self._io.script("voice_lock", [self._key], args, repeatable=True))


@asynccontextmanager
async def locked(
    io: RedisIO, key: str, life_ms: int, wait_ms: int
) -> AsyncIterator[HeldLock | None]:
    """Hold a lock around a block; None when it is not acquired. Raises StoreError."""
    lock = HeldLock(io, key)
    got = True  # Also when we are cancelled while we ask for it.
    try:
        got = await lock.acquire(life_ms, wait_ms)
        yield lock if got else None
    finally:
        if got:
            await lock.release()
