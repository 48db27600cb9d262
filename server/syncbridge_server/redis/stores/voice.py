"""Voice channels in Redis: `syncbridge_server.ports.channels.Channels` over the scripts `voice_*`.

Theory of operation. Channels are spread over `BUCKETS` by their id, and a bucket is one slot of a
cluster. A channel is a hash of its revision and its record; its bucket has a sorted set of the
times at which channels are due, and one of live channels. One script writes all of them and
publishes the news: the indexes always agree with the records, and every node gets the news in the
order of revisions.

A write carries a token, which the hash keeps. So a write whose answer was lost with the connection
is sent again, and recognised if it was done the first time.

Due channels are claimed in two steps: the earliest of each bucket are read, and the earliest of
all are claimed by comparing again. A bucket is read when its earliest channel may be due, as far as
known: again after each news of it, and in any case after `LOOK_MS`. Buckets without due channels,
nearly always all, cost nothing.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any
from zlib import crc32

import msgspec
import structlog

from syncbridge import ids
from syncbridge.errors import StoreError, StoreRejected, SyncBridgeError
from syncbridge.events.voice import voice_events
from syncbridge.integrity import UNREADABLE
from syncbridge.records.sessions import Notice
from syncbridge.voice.records import ChannelRecord, Final, decode_record, encode_record
from syncbridge.voice.stored import ChannelNews, Due, Stored
from syncbridge.voice.timeline import TimelineEntry, encode_entry
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.bus.messages import common_channel, encode_notice
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.stores.cold import StateDamaged
from syncbridge_server.redis.stores.locks import HeldLock, locked
from syncbridge_server.telemetry.tracing import TRACING

log = structlog.get_logger("voice")

BUCKETS = 16
LOOK_MS = 120_000
NONE_LIVE_SECONDS = 300.0
"""How long "no channel is live" is believed without news."""
NEWS = "voice"
"""Kind of the notices that carry news."""
PAGE = 256
FINALS_MOST = 100
SHOWN_MOST = 65_536
"""Bytes of a record that a dead letter shows."""
FINALS_TTL_MS = 30 * 86_400_000
TIMELINE_MOST = 512
"""Entries kept for a channel; trimming keeps up to about 100 more (one stream node)."""
TIMELINE_TTL_MS = 7 * 86_400_000
"""After the last entry."""
LATEST = 1e15
"""ms; a damaged index may hold an infinite time."""
WRITE = "voice_write"
_PLACE = 9_999_999_999_999_999
"""Placeholder of the revision in the news; it has as many digits."""

Argument = bytes | str | int
_news_decoder = msgspec.json.Decoder(ChannelNews)
_final_decoder = msgspec.json.Decoder(Final)


class ChannelDamaged(StateDamaged):
    """A channel's record cannot be read. It stays as it is."""


class RedisChannels:
    """Implements `syncbridge_server.ports.channels.Channels`.

    Args:
        io: running client.
        bus: delivers the news. node: id of this node, named in the news of its writes. ttl:
            lifetime of a channel after its last write or claim, in seconds; also of the mapping of
            a provider's session after its last use.
    """

    def __init__(self, io: RedisIO, bus: Bus, node: str, ttl: float) -> None:
        self._io = io
        self._bus = bus
        self._node = node
        self._ttl_ms = round(ttl * 1000)
        self._failed = 0
        self._look_at = [0] * BUCKETS
        self._none_live_until = 0.0
        self._news = 0
        bus.on_notice(NEWS, self._noticed)
        bus.on_resync(self._missed)

    async def read(self, channel_id: str) -> Stored:
        """See `Channels.read`. Raises ChannelDamaged."""
        found = (await self.read_many([channel_id]))[0]
        if isinstance(found, StoreError):
            raise found
        return found

    async def read_many(self, channel_ids: Sequence[str]) -> list[Stored | StoreError]:
        """See `Channels.read_many`; ChannelDamaged for one that cannot be read."""
        commands = [plain("HMGET", channel_key(i), "r", "d", repeatable=True) for i in channel_ids]
        replies = await self._io.request(commands) if commands else []
        return [stored_of(i, reply) for i, reply in zip(channel_ids, replies, strict=True)]

    async def write(
        self,
        stored: Stored,
        record: ChannelRecord,
        *,
        due_at: int | None,
        live: bool,
        news: Sequence[dict[str, Any]] = (),
        finals: Sequence[Final] = (),
        timeline: Sequence[TimelineEntry] = (),
    ) -> int | None:
        """See `Channels.write`."""
        channel_id = record.channel_id
        args: list[Argument] = [
            stored.revision,
            secrets.token_hex(8),
            encode_record(record),
            channel_id,
            "" if due_at is None else due_at,
            int(live),
            self._ttl_ms,
            FINALS_TTL_MS,
            FINALS_MOST,
            *self._told(channel_id, news),
            TIMELINE_MOST,
            TIMELINE_TTL_MS,
            len(timeline),
            *map(encode_entry, timeline),
            *map(msgspec.json.encode, finals),
        ]
        if WRITE in self._io.scripts.telling:
            args += _events(record, news)
        keys = [*keys_of(channel_id), finals_key(channel_id), timeline_key(channel_id)]
        self._changed(bucket_of(channel_id))
        return await self._io.script(WRITE, keys, args, repeatable=True) or None

    async def delete(self, stored: Stored) -> bool:
        """See `Channels.delete`. Its news have the next revision and no events."""
        channel_id = stored.record.channel_id
        args = [stored.revision, channel_id, *self._told(channel_id, ())]
        # Not repeatable: the second answer would say that somebody else has written.
        return bool(await self._io.script("voice_delete", keys_of(channel_id), args))

    async def claim_due(self, now: int, lease_ms: int, limit: int) -> list[Due]:
        """See `Channels.claim_due`. O(BUCKETS + limit)."""
        buckets = [bucket for bucket in range(BUCKETS) if self._look_at[bucket] <= now]
        for bucket in buckets:
            self._look_at[bucket] = now + LOOK_MS
        early = (0, limit, "WITHSCORES")
        looks = [
            plain("ZRANGE", bucket_keys(bucket)[0], *early, repeatable=True) for bucket in buckets
        ]
        try:
            found = list(due_of(await self._any(looks)))
        except StoreError:
            self._missed()
            raise
        for due in found:
            bucket = bucket_of(due.channel_id)
            self._look_at[bucket] = min(self._look_at[bucket], due.due_at)
        waiting = sorted((due for due in found if due.due_at <= now), key=_by_time)[:limit]
        by_bucket: dict[int, list[str]] = {}
        for due in waiting:
            by_bucket.setdefault(bucket_of(due.channel_id), []).append(due.channel_id)
        claims = [self._claim(b, ids, now, lease_ms) for b, ids in by_bucket.items()]
        return sorted(due_of(await self._any(claims)), key=_by_time)

    def _changed(self, bucket: int) -> None:
        """A channel of a bucket was written: it may be live, and due earlier than others."""
        self._look_at[bucket] = 0
        self._none_live_until = 0.0
        self._news += 1

    def _noticed(self, notice: Notice) -> None:
        try:
            self._changed(bucket_of(_news_decoder.decode(notice.data).channel_id))
        except UNREADABLE:
            self._missed()

    def _missed(self) -> None:
        """News may be missing: read every bucket next time."""
        for bucket in range(BUCKETS):
            self._changed(bucket)

    def _claim(self, bucket: int, ids: Sequence[str], now: int, lease_ms: int) -> Command:
        keys = [*bucket_keys(bucket), *map(channel_key, ids)]
        args: list[Argument] = [now, now + lease_ms, self._ttl_ms, *ids]
        return self._io.script_command("voice_claim", keys, args)

    async def shown(self, channel_id: str) -> bytes:
        """See `Channels.shown`."""
        try:
            record = await self._io.execute("HGET", channel_key(channel_id), "d")
        except StoreRejected:
            return b""
        return record[:SHOWN_MOST] if record is not None else b""

    async def indexed(self, channel_id: str) -> bool:
        """See `Channels.indexed`."""
        keys = bucket_keys(bucket_of(channel_id))
        looks = [plain("ZSCORE", key, channel_id, repeatable=True) for key in keys]
        return any(score is not None for score in await self._io.request_all(looks))

    async def withdraw(self, channel_id: str) -> None:
        """See `Channels.withdraw`."""
        keys = bucket_keys(bucket_of(channel_id))
        await self._io.request_all([plain("ZREM", k, channel_id, repeatable=True) for k in keys])

    async def bring_back(self, channel_id: str) -> None:
        """See `Channels.bring_back`."""
        due, live = bucket_keys(bucket_of(channel_id))
        self._changed(bucket_of(channel_id))
        forgotten = round(time.time() * 1000) + self._ttl_ms
        await self._io.request_all(
            [
                plain("ZADD", live, "NX", forgotten, channel_id, repeatable=True),
                plain("ZADD", due, 0, channel_id, repeatable=True),
            ]
        )

    async def erase(self, channel_id: str) -> bool:
        """See `Channels.erase`."""
        return bool(await self._io.script("voice_erase", keys_of(channel_id), [channel_id]))

    def live(self) -> "LivePages":
        """See `Channels.live`. A channel that stays live is in at least one page."""
        return LivePages(self._io, BUCKETS if self._none_live else 0)

    async def live_page(self, limit: int, after: str = "") -> list[str]:
        """See `Channels.live_page`. O(live channels of the buckets that the page is in)."""
        found: list[str] = []
        first = bucket_of(after) if after else 0
        for bucket in range(first, BUCKETS):
            key = bucket_keys(bucket)[1]
            try:
                held = sorted(_texts(await self._io.execute("ZRANGE", key, 0, -1)))
            except StoreRejected as error:
                log.error("voice_bucket_failed", reason=error.detail, bucket=bucket)
                continue
            last = after if bucket == first else ""
            found += [channel_id for channel_id in held if channel_id > last]
            if len(found) >= limit:
                break
        return found[:limit]

    async def live_count(self) -> int:
        """See `Channels.live_count`."""
        if self._none_live:
            return 0
        news = self._news
        keys = [bucket_keys(bucket)[1] for bucket in range(BUCKETS)]
        reads = [plain("ZCARD", k, repeatable=True) for k in keys]
        counts: list[Any] = await self._any(reads)
        if not any(counts) and len(counts) == BUCKETS and news == self._news:
            self._none_live_until = time.monotonic() + NONE_LIVE_SECONDS
        return sum(counts)

    @property
    def _none_live(self) -> bool:
        return time.monotonic() < self._none_live_until

    async def finals(self, channel_id: str, limit: int) -> list[Final]:
        """See `Channels.finals`. One that cannot be read is left out."""
        if limit <= 0:
            return []
        kept = await self._io.execute("LRANGE", finals_key(channel_id), 0, limit - 1)
        found = []
        for final in kept:
            try:
                found.append(_final_decoder.decode(final))
            except UNREADABLE:
                log.warning("final_unreadable", channel_id=channel_id)
        return found

    async def channel_of(self, session_id: str) -> str | None:
        """See `Channels.channel_of`. Renews its expiry."""
        held = await self._io.execute("GETEX", session_key(session_id), "PX", self._ttl_ms)
        return None if held is None else id_of(held)

    async def note_session(self, session_id: str, channel_id: str) -> None:
        """See `Channels.note_session`."""
        args = (session_key(session_id), channel_id, "PX", self._ttl_ms)
        await self._io.request_all([plain("SET", *args, repeatable=True)])

    def lock(
        self, channel_id: str, purpose: str, life_ms: int, wait_ms: int
    ) -> AbstractAsyncContextManager[HeldLock | None]:
        """See `Channels.lock`."""
        return locked(self._io, lock_key(channel_id, purpose), life_ms, wait_ms)

    def on_news(self, handler: Callable[[ChannelNews], None]) -> None:
        """See `Channels.on_news`."""

        def receive(notice: Notice) -> None:
            try:
                news = _news_decoder.decode(notice.data)
            except UNREADABLE:
                log.warning("voice_news_unreadable", size=len(notice.data))
                return
            with TRACING.child("frames", news.trace if TRACING.on else ""):
                handler(news)

        self._bus.on_notice(NEWS, receive)

    def _told(self, channel_id: str, events: Sequence[dict[str, Any]]) -> list[Argument]:
        """The channel of the news, and their bytes before and after the revision."""
        news = ChannelNews(channel_id, _PLACE, self._node, list(events), TRACING.current())
        payload = encode_notice(Notice(NEWS, "", msgspec.json.encode(news)))
        # Inside of the id its quotes would be escaped: the first place is the revision's.
        before, place, after = payload.partition(b'"revision":%d' % _PLACE)
        head = before + place[: -len(str(_PLACE))]
        tag = str(bucket_of(channel_id))
        return [common_channel(tag, self._io.endpoint.database), head, after]

    async def _any(self, commands: Sequence[Command]) -> list[list[Any]]:
        """The valid answers: a damaged bucket does not stop the others."""
        replies = await self._io.request(commands) if commands else []
        failed = [reply for reply in replies if isinstance(reply, StoreError)]
        if failed and len(failed) == len(replies):
            raise failed[0]
        if len(failed) > self._failed:
            log.error("voice_bucket_failed", reason=failed[0].detail, buckets=len(failed))
        self._failed = len(failed)
        return [reply for reply in replies if not isinstance(reply, StoreError)]


class LivePages:
    """Pages of live channels, bucket by bucket. A walk may stop at any time.

    A damaged bucket has none; the others are not affected.
    """

    def __init__(self, io: RedisIO, first: int = 0) -> None:
        self._io = io
        self._bucket = first
        self._cursor = b"0"

    def __aiter__(self) -> "LivePages":
        return self

    async def __anext__(self) -> list[str]:
        """The next page that is not empty. Raises StoreError; asked again it reads that page."""
        while self._bucket < BUCKETS:
            key = bucket_keys(self._bucket)[1]
            try:
                cursor, found = await self._io.execute("ZSCAN", key, self._cursor, "COUNT", PAGE)
            except StoreRejected as error:
                log.error("voice_bucket_failed", reason=error.detail, bucket=self._bucket)
                cursor, found = b"0", []
            self._cursor = cursor
            self._bucket += cursor == b"0"
            if found:
                return [id_of(raw) for raw in found[::2]]
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Does nothing; for `contextlib.aclosing`."""


def _events(record: ChannelRecord, news: Sequence[dict[str, Any]]) -> list[Argument]:
    """Arguments of `voice_write` for the events of a write."""
    told = voice_events(record, news)
    parts = [(event.kind, event.user_id, msgspec.json.encode(event.data)) for event in told]
    return [*(part for event in parts for part in event), record.waddle_id, len(told)]


def id_of(raw: bytes) -> str:
    """A stored id; bytes that are not UTF-8 become surrogates."""
    return raw.decode(errors="surrogateescape")


def _texts(raw: Iterable[bytes]) -> Iterable[str]:
    """Ids that are text; others are nobody's."""
    for one in raw:
        with suppress(UnicodeDecodeError):
            yield one.decode()


def bucket_of(channel_id: str) -> int:
    """The bucket of a channel."""
    return crc32(channel_id.encode(errors="surrogateescape")) % BUCKETS


def bucket_keys(bucket: int) -> list[str]:
    """The sorted sets of a bucket: due, live."""
    return [f"voice:{{{bucket}}}:due", f"voice:{{{bucket}}}:live"]


def channel_key(channel_id: str) -> str:
    """The hash of a channel."""
    return f"voice:{{{bucket_of(channel_id)}}}:c:{channel_id}"


def finals_key(channel_id: str) -> str:
    """The list of a channel's calls that have ended."""
    return f"voice:{{{bucket_of(channel_id)}}}:f:{channel_id}"


def timeline_key(channel_id: str) -> str:
    """The key of the timeline of a channel's calls."""
    return f"voice:{{{bucket_of(channel_id)}}}:t:{channel_id}"


def lock_key(channel_id: str, purpose: str) -> str:
    """The key of a lock for one purpose."""
    return f"voice:{{{bucket_of(channel_id)}}}:l:{purpose}:{channel_id}"


def session_key(session_id: str) -> str:
    """The channel of a provider's session."""
    return f"voice:s:{session_id}"


def keys_of(channel_id: str) -> list[str]:
    """The keys of a channel: itself and those of its bucket, as the scripts want them."""
    return [channel_key(channel_id), *bucket_keys(bucket_of(channel_id))]


def stored_of(channel_id: str, reply: list[bytes | None] | StoreError) -> Stored | StoreError:
    """Decode a channel's hash, or return ChannelDamaged. Raises StoreError."""
    if isinstance(reply, StoreRejected):
        return ChannelDamaged(f"a voice channel is damaged: {reply.detail}")
    if isinstance(reply, StoreError):
        raise reply
    revision, record = reply
    try:
        ids.channel_key("channelId", channel_id)
        if revision is None and record is None:
            return Stored(ChannelRecord(channel_id), 0)
        held = Stored(decode_record(record or b""), int(revision or b""))
    except SyncBridgeError:
        return ChannelDamaged("a voice channel is damaged: its id is no text of ours")
    except (*UNREADABLE, ValueError) as error:
        return ChannelDamaged(f"a voice channel is damaged: {type(error).__name__}")
    if held.record.channel_id != channel_id:
        return ChannelDamaged("a voice channel is damaged: it is another one's")
    return held


def due_of(replies: Iterable[list[bytes]]) -> Iterable[Due]:
    """`[id, ms, ...]` of each bucket as due channels."""
    for flat in replies:
        for channel_id, at in zip(flat[::2], flat[1::2], strict=True):
            yield Due(id_of(channel_id), round(min(max(float(at), 0.0), LATEST)))


def _by_time(due: Due) -> tuple[int, str]:
    return due.due_at, due.channel_id
