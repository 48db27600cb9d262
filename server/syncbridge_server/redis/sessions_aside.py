"""Sessions that are set aside, because a background task failed on them repeatedly.

What leaves is the session's entry in the list by which the chore finds it (the chore itself lets
it go); the session stays, and its next use enters it again. Nothing of a session is ever discarded
with its letter: it is a user's state.
"""

from zlib import crc32

from syncbridge.errors import StoreError
from syncbridge_server.isolation import KeepsLetters
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.stores import cold
from syncbridge_server.redis.stores.keys import held_key, meta_key
from syncbridge_server.redis.stores.node_codec import NODES


def cold_index(sid: str) -> str:
    """The part of the index of cold sessions that has a session."""
    return cold.bucket_keys(crc32(sid.encode(errors="surrogateescape")) % cold.BUCKETS, "")[0]


class SessionsAside:
    """Implements `isolation.Aside`, but for how a chore finds a session again."""

    kind = ""

    def __init__(self, io: RedisIO, letters: KeepsLetters) -> None:
        self._io = io
        self._letters = letters

    async def set_aside(self, record: str, reason: str) -> bool:
        """See `Aside`."""
        await self._letters.keep(self.kind, record, reason)
        return True

    async def replay(self, record: str) -> None:
        """See `Aside`."""
        raise NotImplementedError

    async def discard(self, record: str) -> None:
        """See `Aside`."""


class FreezeAside(SessionsAside):
    """Sessions that could not be packed."""

    kind = "freeze"

    async def replay(self, record: str) -> None:
        """See `Aside`."""
        await self._io.script("index", [cold_index(record)], [0, record], repeatable=True)


class PresenceAside(SessionsAside):
    """Sessions in which devices of a dead node could not be taken offline."""

    kind = "presence"

    async def replay(self, record: str) -> None:
        """See `Aside`. The nodes that the session names get it, and the dead of them are listed as
        nodes again, where they will be seen to stand still."""
        named = await self._io.execute("HGET", meta_key(record), "s")
        nodes = [name.decode(errors="surrogateescape") for name in (named or b"").split()]
        commands = [plain("HSETNX", NODES, node, "0", repeatable=True) for node in nodes]
        commands += [
            plain("SADD", held_key(record, node), record, repeatable=True) for node in nodes
        ]
        for reply in await self._io.request(commands) if commands else []:
            if isinstance(reply, StoreError):
                raise reply
