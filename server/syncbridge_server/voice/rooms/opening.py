"""Opens rooms at the provider: on demand, ahead of an event, and to replace a lost room.

Theory of operation. The channel stores the room and its idempotency key before the provider is
asked. So after a lost answer, a failure or the death of a node, the next attempt uses the same key
and gets the same room. A lock lets one node at a time ask, because some providers do not support
keys; concurrent callers on one node share one attempt. After acquiring the lock, the stored channel
decides whether anything is left to do: of many callers who find no room, or a lost one, the first
opens it and the others find it open.

An attempt ends before its lock expires. The channel of a session is stored before any token is
issued, because the session's webhooks can arrive before our own answer.
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
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.provider.errors import NetworkFailed, ProviderError, ProviderUnavailable
from syncbridge.voice.provider.records import SessionRequest
from syncbridge.voice.records import ChannelConfig, ChannelRecord, Room
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter

log = structlog.get_logger("voice")

OPEN = "open"
"""Purpose of the lock for opening rooms."""
MARGIN = 5.0
"""Seconds by which the lock outlives the attempt."""
MAX_RETIRED = 16
"""Maximum number of retired rooms of a channel; above it, no further room is opened."""


class NotLive(Exception):
    """The channel has no call; nothing is written."""


class OtherWaddle(SyncBridgeError):
    """The channel of this key is another waddle's; nothing is written."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.FORBIDDEN, "waddleId: the channel belongs to another waddle")


class AlreadyOpen(Exception):
    """The room is already open; nothing is written."""

    def __init__(self, room: Room) -> None:
        super().__init__(room.key)
        self.room = room


class RoomRequest(NamedTuple):
    """A room to request from the provider. `origin`: the session that migrates to it."""

    room: Room
    waddle_id: str
    config: ChannelConfig
    origin: str = ""


class SharedAttempt:
    """One attempt that the callers on this node share."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.room: Room | None = None
        self.error: Exception | None = None


class Opening:
    """Opens rooms.

    Args:
        default: configuration of rooms without an explicit one.
        patience: deadline of an attempt, and of waiting for another node's attempt, in seconds.
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
        """The room of a channel with a call; opens one if there is none.

        Raises ProviderError, StoreError, and OtherWaddle for a channel of another waddle.
        """
        channel = await self._writer.read(channel_id)
        require_waddle(channel, waddle_id)
        if channel.live and channel.record.room is not None:
            return channel.record.room
        action = partial(self._open, channel_id, waddle_id, config)
        return await self._together((OPEN, channel_id), action)

    async def recreate(self, channel_id: str, lost_session_id: str) -> Room:
        """Replace a room that the provider has lost; participants are asked to rejoin.

        Concurrent calls replace it once: if the channel already has another session, the result is
        that room. Raises as `room`, and ProviderUnavailable during an earlier migration.
        """
        action = partial(self._recreate, channel_id, lost_session_id)
        try:
            return await self._together((LOST, channel_id), action)
        except NotLive:
            record = (await self._writer.read(channel_id)).record
            return await self.room(channel_id, record.waddle_id)

    async def coming(self, channel_id: str) -> Room | None:
        """Open the coming room of a migration and move the call into it.

        None when the channel has no coming room. Raises as `room`.
        """
        try:
            return await self._together(("coming", channel_id), partial(self._come, channel_id))
        except NotLive:
            return None

    async def ask(self, record: ChannelRecord, room: Room) -> str:
        """The provider's id of a room, by its key. Call it inside `locked`.

        Raises ProviderError, StoreError.
        """
        return await self._ask(
            record.channel_id, RoomRequest(room, record.waddle_id, record.config)
        )

    @asynccontextmanager
    async def locked(self, channel_id: str) -> AsyncIterator[None]:
        """Hold the lock for opening rooms of a channel during one attempt.

        Raises ProviderUnavailable if the lock stays taken, NetworkFailed if the attempt times out.
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

    # Shared attempts

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
        """Make the attempt for all waiting callers; when cancelled, one of them makes it."""
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
        """Open the coming room and make it the current room. Raises NotLive if there is none."""
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
        """Ask the provider. A failure is stored in the channel and raised."""
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
            id_of_key(channel_id),
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
    """Note that the provider opened a room. Raises ProviderUnavailable if the call has ended."""
    room = channel.record.room
    if room is None or room.key != key:
        raise ProviderUnavailable("the call was ended while it was opened", retry_after=1.0)
    channel.opened(session_id, now)
    return channel.record.room or room


def moved(channel: Channel, now: int, *, key: str, session_id: str) -> Room:
    """Note that the provider opened the coming room. Raises NotLive if it is no longer wanted."""
    record = channel.record
    if record.coming is None or record.coming.key != key:
        raise NotLive
    channel.moved(session_id, now)
    if record.room is None or record.room.key != key:
        raise NotLive
    return record.room


def failed(channel: Channel, now: int, *, error: ProviderError) -> None:
    """Note a failure of the provider and the time of the next attempt."""
    channel.failed(error.code.value)
    channel.postpone(now, round((error.retry_after or 0.0) * 1000))


def require_waddle(channel: Channel, waddle_id: str) -> None:
    """Raise OtherWaddle for a channel of another waddle."""
    if waddle_id and not channel.belongs_to(waddle_id):
        raise OtherWaddle
