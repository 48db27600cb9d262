"""Sessions that are set aside: a chore on them failed again and again.

What leaves is the session's entry in the index by which the chore finds it (the chore itself lets
it go); the session stays, and its next use enters it again. Nothing of a session is ever discarded
with its letter: it is a user's state.
"""

from collections.abc import Callable
from zlib import crc32

from syncbridge.records import devices as device_ports
from syncbridge_server.isolation import KeepsLetters
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores import cold


def presence_index(sid: str) -> str:
    """The part of the presence index that has a session."""
    return f"px:{{{crc32(sid.encode(errors='surrogateescape')) % device_ports.BUCKETS}}}"


def cold_index(sid: str) -> str:
    """The part of the index of cold sessions that has a session."""
    return cold.bucket_keys(crc32(sid.encode(errors="surrogateescape")) % cold.BUCKETS, "")[0]


class SessionsAside:
    """Implements `isolation.Aside`. `index_of`: the key of the index that has a session."""

    def __init__(
        self, io: RedisIO, letters: KeepsLetters, kind: str, index_of: Callable[[str], str]
    ) -> None:
        self._io = io
        self._letters = letters
        self._kind = kind
        self._index_of = index_of

    @property
    def kind(self) -> str:
        """See `Aside`."""
        return self._kind

    async def set_aside(self, record: str, reason: str) -> bool:
        """See `Aside`."""
        await self._letters.keep(self._kind, record, reason)
        return True

    async def replay(self, record: str) -> None:
        """See `Aside`."""
        await self._io.script("index", [self._index_of(record)], [0, record], repeatable=True)

    async def discard(self, record: str) -> None:
        """See `Aside`."""
