"""Notes in Redis of registered webhook addresses: `registration.Notes`, one key per address."""

from hashlib import blake2b

from syncbridge_server.redis.link.client import RedisIO


class RedisNotes:
    """Implements `syncbridge_server.voice.provider.registration.Notes`."""

    def __init__(self, io: RedisIO) -> None:
        self._io = io

    async def registered(self, url: str) -> bool:
        """See `Notes.registered`."""
        return bool(await self._io.execute("EXISTS", key_of(url)))

    async def note(self, url: str, seconds: float) -> None:
        """See `Notes.note`."""
        await self._io.execute("SET", key_of(url), "1", "PX", round(seconds * 1000))


def key_of(url: str) -> str:
    """The key of an address."""
    return f"voice:h:{blake2b(url.encode(), digest_size=16).hexdigest()}"
