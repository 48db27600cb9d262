"""Carries out a channel's tasks at the provider: ends retired rooms, starts recordings, and removes
users who were removed before and came back without a new token.

Each write that leaves a task wakes the writing node. If it fails, the channel becomes due again
(`timers`) on any node. One node at a time works on a channel. A completed task is confirmed in the
channel. A failure delays the channel's tasks, longer each time (`Channel.postpone`), so that one
node sends few requests to a failing provider.

A retired room without a session id may exist at the provider. It is requested again under its key
to learn its id, and then ended. A room that cannot be ended within a day is abandoned with an error
in the log.
"""

from collections.abc import Callable
from functools import partial

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice import announcements
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import (
    InvalidRequest,
    NetworkFailed,
    PermissionDenied,
    ProviderError,
    SessionNotFound,
)
from syncbridge.voice.records import Room
from syncbridge_server.isolation import BUSY, Busy
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.rooms.leaving import put_out
from syncbridge_server.voice.rooms.opening import Opening, failed

log = structlog.get_logger("voice")

CHORES = "chores"
"""Purpose of the lock under which one node works on a channel."""
AT_ONCE = 4
WAITING_MOST = 4096
"""Maximum number of channels in this node's queue; further ones are found when they are due."""
MARGIN = 5.0
GIVE_UP_MS = 86_400_000


class ProviderTasks:
    """Carries out provider tasks.

    Args:
        patience: seconds for all tasks of one channel.
        count_recording: called with `started` or `refused`.
    """

    def __init__(
        self,
        provider: VoiceProvider,
        writer: ChannelWriter,
        opening: Opening,
        patience: float,
        count_recording: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._provider = provider
        self._writer = writer
        self._opening = opening
        self._patience = patience
        self._count_recording = count_recording
        self._waiting: dict[str, None] = {}
        self._idle = trio.lowlevel.ParkingLot()
        writer.on_tasks(self.wake)

    def wake(self, channel_id: str) -> None:
        """Queue a channel with tasks. Does not block."""
        if len(self._waiting) < WAITING_MOST:
            self._waiting[channel_id] = None
            self._idle.unpark()

    async def run(self) -> None:
        """Work on queued channels for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work)

    async def do(self, channel_id: str) -> Busy | None:
        """Carry out a channel's tasks; BUSY when another node does. Raises StoreError."""
        life_ms = round((self._patience + MARGIN) * 1000)
        async with self._writer.channels.lock(channel_id, CHORES, life_ms, 0) as got:
            if not got:
                return BUSY
            with trio.move_on_after(self._patience):
                await self._do(channel_id)
        return None

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                await self._idle.park()
            channel_id = next(iter(self._waiting))
            del self._waiting[channel_id]
            try:
                await self._writer.isolation.run(
                    "provider", channel_id, partial(self.do, channel_id), None
                )
            except StoreError as error:
                log.info("voice_tasks_wait", channel_id=channel_id, reason=error.detail)

    async def _do(self, channel_id: str) -> None:
        channel = await self._writer.read(channel_id)
        if channel.record.retry_at > self._writer.now():
            return
        try:
            for user_id in list(channel.record.unwelcome):
                await self._send_away(channel, user_id)
            for room in list(channel.record.retired):
                await self._end(channel, room)
            if channel.record.recording == "wanted" and channel.call and channel.call.users:
                await self._start_recording(channel)
        except ProviderError as error:
            log.warning(
                "voice_task_failed",
                channel_id=channel_id,
                code=error.code.value,
                reason=error.detail,
            )
            await self._writer.change(channel_id, partial(failed, error=error))

    async def _end(self, channel: Channel, room: Room) -> None:
        """End a retired room, and confirm it."""
        channel_id = channel.record.channel_id
        try:
            session_id = room.session_id or await self._identify(channel, room)
            await self._provider.end_session(session_id)
        except (SessionNotFound, InvalidRequest):
            log.info("voice_room_gone", channel_id=channel_id, key=room.key)
        except ProviderError:
            if self._writer.now() - max(room.asked_at, room.opened_at) < GIVE_UP_MS:
                raise
            log.error("voice_room_given_up", channel_id=channel_id, key=room.key)
        await self._writer.change(channel_id, partial(confirmed, room=room))
        log.info("voice_room_ended", channel_id=channel_id, session_id=room.session_id)

    async def _send_away(self, channel: Channel, user_id: str) -> None:
        """Remove a user who came back without a new token, and confirm that."""
        record, connections = channel.record, tuple[str, ...]()
        if channel.call is not None and record.room is not None:
            connections = channel.call.connections(user_id)
            for room in (record.room, record.previous):
                if room is not None:
                    await self._provider.kick(room.session_id, user_id)
        rule = partial(sent_away, user_id=user_id, connections=connections)
        await self._writer.change(record.channel_id, rule)
        log.info("voice_sent_away_again", channel_id=record.channel_id, user_id=user_id)

    async def _identify(self, channel: Channel, room: Room) -> str:
        """Learn and store the session id of a room that may have been opened."""
        channel_id = channel.record.channel_id
        async with self._opening.locked(channel_id):
            session_id = await self._opening.ask(channel.record, room)
        rule = partial(identified, room=room, session_id=session_id)
        await self._writer.change(channel_id, rule)
        return session_id

    async def _start_recording(self, channel: Channel) -> None:
        """Start the recording of a room once. A refusal is final."""
        record = channel.record
        if record.room is None:
            return
        session_id = record.room.session_id
        try:
            recording = await self._provider.start_recording(session_id)
            state = "started"
            log.info("voice_recording", channel_id=record.channel_id, recording_id=recording.id)
        except (InvalidRequest, SessionNotFound, PermissionDenied) as error:
            # After a lost answer, a refusal means that the recording is running.
            state = "started" if record.last_error == NetworkFailed.code.value else "failed"
            log.warning("voice_recording_refused", channel_id=record.channel_id, state=state)
            log.debug("voice_recording_refused", reason=error.detail)
        self._count_recording("started" if state == "started" else "refused")
        await self._writer.change(
            record.channel_id, partial(recorded, session_id=session_id, state=state)
        )


def confirmed(channel: Channel, now: int, *, room: Room) -> None:
    """Confirm that a retired room was ended."""
    channel.confirm_ended(room)
    channel.succeeded()


def sent_away(channel: Channel, now: int, *, user_id: str, connections: tuple[str, ...]) -> None:
    """Confirm that a removed user who came back was removed again, with these connections."""
    channel.sent_away(user_id)
    channel.succeeded()
    put_out(channel, now, user_id=user_id, connections=connections, removed=True, at=now)


def identified(channel: Channel, now: int, *, room: Room, session_id: str) -> None:
    """Store the provider's id of a retired room."""
    channel.record.retired = [
        msgspec.structs.replace(one, session_id=session_id) if one.key == room.key else one
        for one in channel.record.retired
    ]


def recorded(channel: Channel, now: int, *, session_id: str, state: str) -> None:
    """Store whether the recording of a room started or failed."""
    record = channel.record
    current = record.room is not None and record.room.session_id == session_id
    if current and record.recording == "wanted":
        record.recording = state
        if state == "failed":
            channel.news.append(announcements.recording_failed(record.channel_id, ""))
    channel.succeeded()
