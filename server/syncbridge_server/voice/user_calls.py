"""The index of a user's calls, written after the channels in which they come and go.

A channel and its users are in different slots of a cluster, so the index is not written in the step
of the change. What changed is kept here until it is written, in the background; what is lost with
this node, or finds no place, is mended: each comparison of a call with the provider notes everybody
who is in it, and whoever reads the index looks at the channels.
"""

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.call_records import What
from syncbridge.voice.channel import Channel
from syncbridge.voice.timeline import TOKEN
from syncbridge_server.ports.evidence import CallEvidence
from syncbridge_server.voice.channel_writer import ChannelWriter

log = structlog.get_logger("voice")

WAITING_MOST = 16_384
"""Notes that wait; the oldest makes room."""
BATCH = 256
GATHER_SECONDS = 0.25
"""Between two batches: notes that come soon after each other cost less together."""
PAUSE_SECONDS = 1.0
"""After trouble of the store."""
MOVES = (What.JOINED, What.LEFT, TOKEN)
"""Who has a voice token may come at any moment."""


class UserCalls:
    """Notes who was in which call."""

    def __init__(self, writer: ChannelWriter, evidence: CallEvidence) -> None:
        self._writer = writer
        self._evidence = evidence
        self._waiting: dict[tuple[str, str], int] = {}
        self._more = trio.Event()
        writer.on_written(self.written)

    def written(self, channel: Channel) -> None:
        """A channel was written here. Does not wait."""
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
        """Write the index, for ever."""
        while True:
            while not self._waiting:
                self._more = trio.Event()
                await self._more.wait()
            await self.write()
            await trio.sleep(GATHER_SECONDS)

    async def write(self) -> None:
        """Write what waits, at most a batch; what the store does not take waits on."""
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
