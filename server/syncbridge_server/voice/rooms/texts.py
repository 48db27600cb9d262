"""Fetches transcripts and summaries before their addresses expire, and keeps what they say.

What is to be fetched is noted in the channel, by id; the address, which is a secret, is with the
recordings. A failure is tried again after 10 seconds, then longer each time, up to 5 minutes, by
whichever node finds it due, until the address is worth nothing. The provider's other work in the
channel does not wait for it.
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
"""Purpose of the lock under which one node fetches."""
MOST_BYTES = 1_048_576
SECONDS = 10.0
LIFE_MS = 30_000
GONE = (401, 403, 404, 410)
Download = Callable[[str], Awaitable[bytes]]
"""Address -> what is there. Raises NotFetched."""


class NotFetched(Exception):
    """There was no answer, or not the right one. `final`: nor will there be."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Texts:
    """Fetches texts. `count`: gets `fetched` or `lost`."""

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
        """Fetch what a channel wants, unless another node does. Raises StoreError."""
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
        """Whether there is nothing to be done about a text any more."""
        if one is None or 0 < one.expires_at <= self._writer.now():
            return self._lost(channel_id, "it has expired")
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
    """A text was fetched, or is to be asked for again later."""
    record, limits = channel.record, channel.limits
    if done:
        record.texts = [one for one in record.texts if one != recording_id]
        record.texts_at = record.texts_failed = 0
        return
    pause = min(limits.retry_ms << min(record.texts_failed, 16), limits.retry_most_ms)
    record.texts_failed += 1
    record.texts_at = now + pause


def downloads(client: "httpx.AsyncClient") -> Download:
    """Downloads with a client, in one attempt, of `MOST_BYTES` at most; no redirect is followed."""
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
            raise NotFetched("it is too large", final=True)
    return bytes(body)
