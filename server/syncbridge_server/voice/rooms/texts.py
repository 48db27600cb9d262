"""Fetches transcripts and summaries before their URLs expire, and stores their text.

The channel lists the ids to fetch; the URLs are secrets and are stored with the recordings. Any
node retries a failed download after 10 seconds, then at longer intervals up to 5 minutes, until the
URL expires. The channel's provider tasks do not wait for it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from syncbridge.voice.channel import Channel
from syncbridge.voice.recordings import Recorded
from syncbridge_server.ports.recordings import Recordings
from syncbridge_server.voice.channel_writer import ChannelWriter

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger("voice")

TEXTS = "texts"
"""Purpose of the lock for downloads."""
MOST_BYTES = 1_048_576
SECONDS = 10.0
LIFE_MS = 30_000
GONE = (401, 403, 404, 410)
Download = Callable[[str], Awaitable[bytes]]
"""URL -> content. Raises NotFetched."""


class NotFetched(Exception):
    """The download failed. `final`: a retry is useless."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Texts:
    """Fetches texts. `count`: called with `fetched` or `lost`."""

    def __init__(
        self,
        writer: ChannelWriter,
        recordings: Recordings,
        download: Download,
        count: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._recordings = recordings
        self._download = download
        self._count = count

    async def fetch(self, channel_id: str) -> None:
        """Fetch the texts that a channel lists, unless another node does. Raises StoreError."""
        async with self._writer.channels.lock(channel_id, TEXTS, LIFE_MS, 0) as got:
            if not got:
                return
            wanted = (await self._writer.read(channel_id)).record.texts
            listed = {
                one.recording_id: one for one in await self._recordings.of_channel(channel_id)
            }
            for recording_id in list(wanted):
                done = await self._fetch(channel_id, listed.get(recording_id))
                rule = partial(fetched, recording_id=recording_id, done=done)
                await self._writer.change(channel_id, rule)
                if not done:
                    return

    async def _fetch(self, channel_id: str, one: Recorded | None) -> bool:
        """Fetch one text; True when it was fetched or is lost."""
        if one is None or 0 < one.expires_at <= self._writer.now():
            return self._lost(channel_id, "the URL has expired")
        try:
            text = await self._download(one.url)
        except NotFetched as error:
            if error.final:
                return self._lost(channel_id, str(error))
            log.warning("voice_text_not_fetched", channel_id=channel_id, reason=str(error))
            return False
        await self._recordings.keep_text(channel_id, one.recording_id, text)
        self._count("fetched")
        log.info("voice_text_fetched", channel_id=channel_id, bytes=len(text))
        return True

    def _lost(self, channel_id: str, reason: str) -> bool:
        self._count("lost")
        log.error("voice_text_lost", channel_id=channel_id, reason=reason)
        return True


def fetched(channel: Channel, now: int, *, recording_id: str, done: bool) -> None:
    """Note that a text is done, or schedule the next attempt."""
    record, limits = channel.record, channel.limits
    if done:
        record.texts = [one for one in record.texts if one != recording_id]
        record.texts_at = record.texts_failed = 0
        return
    pause = min(limits.retry_ms << min(record.texts_failed, 16), limits.retry_most_ms)
    record.texts_failed += 1
    record.texts_at = now + pause


def downloads(client: "httpx.AsyncClient") -> Download:
    """Downloads in one attempt, at most `MOST_BYTES`, without following redirects."""
    import httpx

    async def download(url: str) -> bytes:
        try:
            with trio.fail_after(SECONDS):
                async with client.stream("GET", url, follow_redirects=False) as answer:
                    return await _body(answer)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            raise NotFetched(type(error).__name__) from None

    return download


async def _body(answer: "httpx.Response") -> bytes:
    if answer.status_code != 200:
        raise NotFetched(f"status {answer.status_code}", final=answer.status_code in GONE)
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise NotFetched("the text is too large", final=True)
    return bytes(body)
