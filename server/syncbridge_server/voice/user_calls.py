"""The index of each user's calls, written asynchronously after the channels.

A channel and its users are in different slots of a cluster, so one script cannot write both.
Changes wait here until a background task writes them. Lost entries are repaired: each comparison of
a call with the provider notes all its participants, and readers of the index check the channels.
"""

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.call_records import What
from syncbridge.voice.channel import Channel
from syncbridge.voice.timeline import TOKEN
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.ports.evidence import CallEvidence
from syncbridge_server.voice.channel_writer import ChannelWriter

log = structlog.get_logger("voice")

WAITING_MOST = 16_384
"""Maximum number of pending entries; the oldest is dropped."""
BATCH = 256
GATHER_SECONDS = 0.25
"""Pause between batches; entries of one batch cost less together."""
PAUSE_SECONDS = 1.0
"""Pause after a store error."""
MOVES = (What.JOINED, What.LEFT, TOKEN)
"""A holder of a voice token can join at any moment, so tokens are indexed as well."""


class UserCalls:
    """Maintains the index of calls by user."""

    def __init__(self, writer: ChannelWriter, evidence: CallEvidence) -> None:
        self._writer = writer
        self._evidence = evidence
        self._waiting: dict[tuple[str, str], int] = {}
        self._more = AutoResetEvent()
        writer.on_written(self.written)

    def written(self, channel: Channel) -> None:
        """Queue the users of a channel that this node wrote. Does not block."""
        now, channel_id = self._writer.now(), channel.record.channel_id
        entries = channel.timeline.entries
        users = {entry.user_id for entry in entries if entry.what in MOVES}
        if channel.compared and channel.call is not None:
            users.update(channel.call.users)
        for user_id in users:
            self._waiting.pop((user_id, channel_id), None)
            self._waiting[user_id, channel_id] = now
        while len(self._waiting) > WAITING_MOST:
            del self._waiting[next(iter(self._waiting))]
        if users:
            self._more.set()

    async def run(self) -> None:
        """Write queued entries for ever."""
        while True:
            while not self._waiting:
                await self._more.wait()
            await self.write()
            await trio.sleep(GATHER_SECONDS)

    async def write(self) -> None:
        """Write at most one batch of queued entries. They stay queued on a store error."""
        taken = [(*key, self._waiting[key]) for key in list(self._waiting)[:BATCH]]
        try:
            await self._evidence.note_calls(taken)
        except StoreError as error:
            log.info("voice_user_calls_wait", reason=error.detail)
            await trio.sleep(PAUSE_SECONDS)
            return
        for user_id, channel_id, at in taken:
            if self._waiting.get((user_id, channel_id)) == at:
                del self._waiting[user_id, channel_id]
