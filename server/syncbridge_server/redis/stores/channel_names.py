"""Names of voice channels in Redis: `syncbridge_server.ports.channels.ChannelNames`.

Theory of operation. An id has an owner, whose channel has the id as its key, and waddles with
qualified keys (`syncbridge.voice.naming`). Both are kept in the id's slot, and one script decides,
so of several waddles that open an id at once, one becomes its owner. A waddle keeps its kind of key
for longer than any data under that key, so no waddle reads another's data.

A record of an earlier version is found under its id and adopted at its first opening.
"""

from collections.abc import Collection

from syncbridge.errors import StoreError
from syncbridge.voice.naming import may_be_plain, qualified_key
from syncbridge.voice.stored import Stored
from syncbridge_server.ports.channels import Named
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.stores.voice import bucket_of, channel_key, id_of, stored_of

FOUND_MOST = 64
"""Most waddles of an id that are read when none is named: the latest to open it."""


class RedisChannelNames:
    """Implements `syncbridge_server.ports.channels.ChannelNames`. `ttl`: seconds."""

    def __init__(self, io: RedisIO, ttl: float) -> None:
        self._io = io
        self._ttl_ms = round(ttl * 1000)

    async def claim(self, waddle_id: str, channel_id: str, *, contested: bool = False) -> str:
        """See `ChannelNames.claim`. One round trip."""
        plain_form = may_be_plain(channel_id)
        args: list[bytes | str | int] = [waddle_id, self._ttl_ms, int(plain_form), int(contested)]
        keys = [channel_key(channel_id), owner_key(channel_id), waddles_key(channel_id)]
        owned = await self._io.script("voice_name", keys, args, repeatable=True)
        return channel_id if owned else qualified_key(waddle_id, channel_id)

    async def named(self, channel_id: str, waddles: Collection[str] | None) -> list[Named]:
        """See `ChannelNames.named`. Two round trips; one where no waddle has a qualified key."""
        owner, record, apart = await self._names(channel_id, waddles)
        found = []
        if may_be_plain(channel_id) and _wanted(owner, waddles):
            found.append(Named(channel_id, owner, record))
        keys = [qualified_key(waddle_id, channel_id) for waddle_id in apart]
        for waddle_id, key, stored in zip(apart, keys, await self._records(keys), strict=True):
            if not _intruder(stored, waddle_id):
                found.append(Named(key, waddle_id, stored))
        return found

    async def _names(
        self, channel_id: str, waddles: Collection[str] | None
    ) -> tuple[str, Stored | StoreError, list[str]]:
        """The id's owner, the record under the id, and the waddles with qualified keys."""
        listed = waddles_key(channel_id)
        asked = list(waddles or ())
        look = plain("ZREVRANGE", listed, 0, FOUND_MOST - 1, repeatable=True)
        if waddles is not None:
            look = plain("ZMSCORE", listed, *asked, repeatable=True)
        commands = [
            plain("HMGET", channel_key(channel_id), "r", "d", repeatable=True),
            plain("GET", owner_key(channel_id), repeatable=True),
            *([look] if asked or waddles is None else []),
        ]
        held, kept, *rest = await self._io.request(commands)
        for reply in (kept, *rest):
            if isinstance(reply, StoreError):
                raise reply
        record = stored_of(channel_id, held)
        owner = record.record.waddle_id if isinstance(record, Stored) else ""
        apart = [id_of(one) for one in rest[0]] if waddles is None else []
        if asked:
            apart = [one for one, score in zip(asked, rest[0], strict=True) if score is not None]
        return owner or (id_of(kept) if kept is not None else ""), record, apart

    async def _records(self, keys: list[str]) -> list[Stored | StoreError]:
        commands = [plain("HMGET", channel_key(key), "r", "d", repeatable=True) for key in keys]
        replies = await self._io.request(commands) if commands else []
        return [stored_of(key, reply) for key, reply in zip(keys, replies, strict=True)]


def _intruder(stored: Stored | StoreError, waddle_id: str) -> bool:
    """Whether a node of an earlier version took a waddle's qualified key for the id of another."""
    return isinstance(stored, Stored) and stored.record.waddle_id not in ("", waddle_id)


def _wanted(owner: str, waddles: Collection[str] | None) -> bool:
    return waddles is None or owner == "" or owner in waddles


def owner_key(channel_id: str) -> str:
    """The waddle whose channel has the id as its key."""
    return f"voice:{{{bucket_of(channel_id)}}}:o:{channel_id}"


def waddles_key(channel_id: str) -> str:
    """The waddles that have a qualified key of an id."""
    return f"voice:{{{bucket_of(channel_id)}}}:w:{channel_id}"
