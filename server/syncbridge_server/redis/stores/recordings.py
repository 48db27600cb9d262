"""Recordings in Redis: `syncbridge_server.ports.recordings.Recordings`, in two keys a channel."""

import msgspec
import structlog

from syncbridge.integrity import UNREADABLE
from syncbridge.voice.recordings import Recorded, is_address
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.voice import bucket_of

log = structlog.get_logger("voice")

MOST = 50
_decoder = msgspec.json.Decoder(Recorded)


class RedisRecordings:
    """Implements `syncbridge_server.ports.recordings.Recordings`.

    Args:
        ttl: seconds for which the recordings of a channel are kept after its latest one.
    """

    def __init__(self, io: RedisIO, ttl: float) -> None:
        self._io = io
        self._ttl_ms = round(ttl * 1000)

    async def add(self, channel_id: str, recorded: Recorded) -> bool:
        """See `Recordings.add`."""
        args: list[bytes | str | int] = [
            recorded.recording_id,
            msgspec.json.encode(recorded),
            recorded.ready_at,
            self._ttl_ms,
            MOST,
        ]
        keys = keys_of(channel_id)
        # Not repeatable: the second answer would say that it was known.
        return bool(await self._io.script("voice_recording", keys, args))

    async def keep_text(self, channel_id: str, recording_id: str, text: bytes) -> None:
        """See `Recordings.keep_text`. Deletes texts of recordings that are no longer listed."""
        key = text_key(channel_id)
        listed = {one.recording_id for one in await self.of_channel(channel_id)}
        kept = [
            bytes(name).decode(errors="replace") for name in await self._io.execute("HKEYS", key)
        ]
        if gone := [name for name in kept if name not in listed]:
            await self._io.execute("HDEL", key, *gone)
        await self._io.execute("HSET", key, recording_id, text)
        await self._io.execute("PEXPIRE", key, self._ttl_ms)

    async def text(self, channel_id: str, recording_id: str) -> bytes | None:
        """See `Recordings.text`."""
        found = await self._io.execute("HGET", text_key(channel_id), recording_id)
        return None if found is None else bytes(found)

    async def of_channel(self, channel_id: str) -> list[Recorded]:
        """See `Recordings.of_channel`. Unreadable or unfetchable ones are left out."""
        kept = await self._io.execute("HVALS", keys_of(channel_id)[0])
        found = []
        for stored in kept:
            try:
                recorded = _decoder.decode(stored)
            except UNREADABLE:
                log.warning("recording_unreadable", channel_id=channel_id)
                continue
            if recorded.url and not is_address(recorded.url):
                log.warning("recording_address_refused", channel_id=channel_id)
                continue
            found.append(recorded)
        return sorted(found, key=lambda recorded: -recorded.ready_at)


def text_key(channel_id: str) -> str:
    """The key of the texts of a channel."""
    return f"voice:{{{bucket_of(channel_id)}}}:rt:{channel_id}"


def keys_of(channel_id: str) -> list[str]:
    """The hash and the order of a channel's recordings."""
    bucket = bucket_of(channel_id)
    return [f"voice:{{{bucket}}}:rh:{channel_id}", f"voice:{{{bucket}}}:rz:{channel_id}"]
