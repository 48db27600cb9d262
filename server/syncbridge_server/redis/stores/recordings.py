"""Recordings in Redis: `syncbridge_server.ports.recordings.Recordings`, in two keys a channel."""

import msgspec
import structlog

from syncbridge.voice.recordings import Recorded
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

    async def of_channel(self, channel_id: str) -> list[Recorded]:
        """See `Recordings.of_channel`. One that cannot be read is left out."""
        kept = await self._io.execute("HVALS", keys_of(channel_id)[0])
        found = []
        for stored in kept:
            try:
                found.append(_decoder.decode(stored))
            except (msgspec.DecodeError, UnicodeDecodeError):
                log.warning("recording_unreadable", channel_id=channel_id)
        return sorted(found, key=lambda recorded: -recorded.ready_at)


def keys_of(channel_id: str) -> list[str]:
    """The hash and the order of a channel's recordings."""
    bucket = bucket_of(channel_id)
    return [f"voice:{{{bucket}}}:rh:{channel_id}", f"voice:{{{bucket}}}:rz:{channel_id}"]
