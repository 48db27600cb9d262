"""Opens rooms at the provider: on demand, ahead of an event, and in the place of one that is lost.

Theory of operation. What is to be opened is noted in the channel before the provider is asked, with
the key under which it is asked. So whoever comes after a lost answer, a failure or a dead node asks
under the same key, and gets the same room. A lock makes one node at a time ask (the provider may
not know keys), and callers of this node wait for one attempt together. Whether there is something
to do is decided after the lock was got, from what is stored then: of many who find a channel
without a room, or with a lost one, the first acts and the others find it done.

An attempt ends before its lock does. Which channel a session belongs to is stored before anybody is
let in: its webhooks may be faster than our own answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NamedTuple

import structlog
import trio

from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.voice.ahead import wanted_config
from syncbridge.voice.channel import LOST, Channel
from syncbridge.voice.provider.errors import NetworkFailed, ProviderError, ProviderUnavailable
from syncbridge.voice.provider.records import SessionRequest
from syncbridge.voice.records import ChannelConfig, ChannelRecord, Room
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter

log = structlog.get_logger("voice")

OPEN = "open"
"""Purpose of the lock under which the provider is asked for rooms."""
MARGIN = 5.0
"""Seconds that a lock outlives the attempt."""
MAX_RETIRED = 16
"""Rooms of a channel that wait to be ended; with so many, no other one is opened."""


class NotLive(Exception):
    """There is no call in the channel; nothing is to be written."""


class AlreadyOpen(Exception):
    """There is nothing to change: this is the room."""

    def __init__(self, room: Room) -> None:
        super().__init__(room.key)
        self.room = room


class RoomRequest(NamedTuple):
    """A room that the provider is to be asked for. `origin`: the session that migrates to it."""

    room: Room
    waddle_id: str
    config: ChannelConfig
    origin: str = ""


class SharedAttempt:
    """What callers of one node wait for together."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.room: Room | None = None
        self.error: Exception | None = None


class Opening:
    """Opens rooms.

    Args:
        default: how rooms are opened that nobody said anything about.
        patience: seconds for an attempt; waiting for one of another node takes as long at most.
    """

    def __init__(
        self,
        provider: VoiceProvider,
        writer: ChannelWriter,
        default: ChannelConfig,
        patience: float,
    ) -> None:
        self._provider = provider
        self._writer = writer
        self._default = default
        self._patience = patience
        self._attempts: dict[tuple[str, str], SharedAttempt] = {}

    async def room(
        self, channel_id: str, waddle_id: str, config: ChannelConfig | None = None
    ) -> Room:
        """The room of a channel, with a call in it; opened when there is none.

        Raises ProviderError, StoreError, and FORBIDDEN for a channel of another waddle.
        """
        channel = await self._writer.read(channel_id)
        require_waddle(channel, waddle_id)
        if channel.live and channel.record.room is not None:
            return channel.record.room
        action = partial(self._open, channel_id, waddle_id, config)
        return await self._together((OPEN, channel_id), action)

    async def recreate(self, channel_id: str, lost_session_id: str) -> Room:
        """Replace a room that the provider does not know any more; participants are told to rejoin.

        Once, however many ask: where another session is the channel's by now, that is the answer.
        Raises as `room`, and ProviderUnavailable while an earlier migration is under way.
        """
        action = partial(self._recreate, channel_id, lost_session_id)
        try:
            return await self._together((LOST, channel_id), action)
        except NotLive:
            record = (await self._writer.read(channel_id)).record
            return await self.room(channel_id, record.waddle_id)

    async def coming(self, channel_id: str) -> Room | None:
        """Open the room that a migration has noted, and move the call into it.

        None when none is noted, or not any more. Raises as `room`.
        """
        try:
            return await self._together(("coming", channel_id), partial(self._come, channel_id))
        except NotLive:
            return None

    async def ask(self, record: ChannelRecord, room: Room) -> str:
        """The id of a room at the provider, by its key. Hold `locked` around it.

        Raises ProviderError, StoreError.
        """
        return await self._ask(
            record.channel_id, RoomRequest(room, record.waddle_id, record.config)
        )

    @asynccontextmanager
    async def locked(self, channel_id: str) -> AsyncIterator[None]:
        """The right to ask the provider for rooms of a channel, for one attempt.

        Raises ProviderUnavailable when others have it for too long, NetworkFailed when the attempt
        takes too long.
        """
        life_ms, wait_ms = (round(s * 1000) for s in (self._patience + MARGIN, self._patience))
        async with self._writer.channels.lock(channel_id, OPEN, life_ms, wait_ms) as got:
            if not got:
                raise ProviderUnavailable("the room is being opened elsewhere", retry_after=1.0)
            try:
                with trio.fail_after(self._patience):
                    yield
            except trio.TooSlowError:
                raise NetworkFailed(
                    "the room was not opened in time", retry_after=1.0, outcome_unknown=True
                ) from None

    # One attempt for all callers of this node

    async def _together(self, key: tuple[str, str], action: Callable[[], Awaitable[Room]]) -> Room:
        while True:
            attempt = self._attempts.get(key)
            if attempt is None:
                return await self._lead(key, action)
            await attempt.over.wait()
            if attempt.error is not None:
                raise attempt.error
            if attempt.room is not None:
                return attempt.room

    async def _lead(self, key: tuple[str, str], action: Callable[[], Awaitable[Room]]) -> Room:
        """Act for those who wait; when we are cancelled, one of them does."""
        attempt = self._attempts[key] = SharedAttempt()
        try:
            attempt.room = await action()
            return attempt.room
        except Exception as error:
            attempt.error = error
            raise
        finally:
            del self._attempts[key]
            attempt.over.set()

    # Actions

    async def _open(self, channel_id: str, waddle_id: str, config: ChannelConfig | None) -> Room:
        def note(channel: Channel, now: int) -> RoomRequest:
            require_waddle(channel, waddle_id)
            record = channel.record
            if channel.live and record.room is not None:
                raise AlreadyOpen(record.room)
            if record.room is None and len(record.retired) >= MAX_RETIRED:
                raise ProviderUnavailable("earlier rooms have to be ended first", retry_after=30.0)
            chosen = config or wanted_config(channel, now, self._default)
            room = channel.opening(now, chosen, waddle_id)
            if room.session_id:
                channel.opened(room.session_id, now)
            return RoomRequest(channel.record.room or room, record.waddle_id, record.config)

        async with self.locked(channel_id):
            try:
                request = await self._writer.change(channel_id, note)
            except AlreadyOpen as open_already:
                return open_already.room
            if request.room.session_id:
                return request.room
            session_id = await self._ask_or_note(channel_id, request)
            return await self._writer.change(
                channel_id, partial(opened, key=request.room.key, session_id=session_id)
            )

    async def _recreate(self, channel_id: str, lost_session_id: str) -> Room:
        def note(channel: Channel, now: int) -> None:
            room, record = channel.record.room, channel.record
            if not channel.live or room is None:
                raise NotLive
            if room.session_id != lost_session_id:
                raise AlreadyOpen(room)
            if channel.migrate(now, LOST) is None:
                wait = self._writer.limits.call.migration_ms / 1000
                raise ProviderUnavailable("a migration is under way", retry_after=wait)
            record.lost = 0

        async with self.locked(channel_id):
            try:
                await self._writer.change(channel_id, note)
            except AlreadyOpen as open_already:
                return open_already.room
            log.warning("voice_room_lost", channel_id=channel_id, session_id=lost_session_id)
            return await self._move(channel_id)

    async def _come(self, channel_id: str) -> Room:
        async with self.locked(channel_id):
            return await self._move(channel_id)

    async def _move(self, channel_id: str) -> Room:
        """Ask for the coming room, and make it the room. Raises NotLive when there is none."""
        record = (await self._writer.read(channel_id)).record
        if record.coming is None:
            raise NotLive
        origin = record.room.session_id if record.room is not None else ""
        request = RoomRequest(record.coming, record.waddle_id, record.config, origin)
        session_id = await self._ask_or_note(channel_id, request)
        return await self._writer.change(
            channel_id, partial(moved, key=request.room.key, session_id=session_id)
        )

    # The provider

    async def _ask_or_note(self, channel_id: str, request: RoomRequest) -> str:
        """Ask the provider; its failure is noted in the channel, and raised."""
        try:
            return await self._ask(channel_id, request)
        except ProviderError as error:
            log.warning(
                "voice_room_not_opened",
                channel_id=channel_id,
                key=request.room.key,
                code=error.code.value,
                reason=error.detail,
            )
            with suppress(StoreError):
                await self._writer.change(channel_id, partial(failed, error=error))
            raise

    async def _ask(self, channel_id: str, request: RoomRequest) -> str:
        config, room = request.config, request.room
        session_request = SessionRequest(
            channel_id,
            request.waddle_id,
            config.max_participants,
            config.recording,
            config.transcription,
            config.features,
            room.asked_at,
            request.origin,
            room.reason if request.origin else "",
        )
        session = await self._provider.create_session(session_request, room.key)
        await self._writer.channels.note_session(session.id, channel_id)
        log.info(
            "voice_room_opened",
            channel_id=channel_id,
            session_id=session.id,
            generation=room.generation,
        )
        return session.id


def opened(channel: Channel, now: int, *, key: str, session_id: str) -> Room:
    """The provider has the room of that key. Raises ProviderUnavailable when it is not wanted."""
    room = channel.record.room
    if room is None or room.key != key:
        raise ProviderUnavailable("the call was ended while it was opened", retry_after=1.0)
    channel.opened(session_id, now)
    return channel.record.room or room


def moved(channel: Channel, now: int, *, key: str, session_id: str) -> Room:
    """The provider has the coming room of that key. Raises NotLive when it is not wanted."""
    record = channel.record
    if record.coming is None or record.coming.key != key:
        raise NotLive
    channel.moved(session_id, now)
    if record.room is None or record.room.key != key:
        raise NotLive
    return record.room


def failed(channel: Channel, now: int, *, error: ProviderError) -> None:
    """The provider failed: note it, and when to try again."""
    channel.failed(error.code.value)
    channel.postpone(now, round((error.retry_after or 0.0) * 1000))


def require_waddle(channel: Channel, waddle_id: str) -> None:
    """Raise FORBIDDEN for a channel that was opened for another waddle."""
    if waddle_id and not channel.belongs_to(waddle_id):
        raise SyncBridgeError(
            ErrorCode.FORBIDDEN, "waddleId: the channel belongs to another waddle"
        )
