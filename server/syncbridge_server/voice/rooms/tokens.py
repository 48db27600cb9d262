"""Lets users into calls: a seat in the channel, then a token from the provider.

The seat comes first, under the same rules on every node, so that a channel does not get more
participants than it has seats while tokens are on their way; whoever gets no token gives it back.
A room that the provider has lost is replaced, once, and a token that is over is asked for again,
once. Where we sign tokens ourselves, we look whether the room is still there (`room_check`). Who is
in the call and gets other permissions has them at once, where the provider can do that.
Nothing waits for a provider that is in trouble: the client is told when to come back.

A token opens the way into the media, and no more: it does not end a connection when it is over.
`expires_at` is our word for how long it should be used; a provider whose tokens live longer (100
days at RealTimeKit) lets its holder come back until the room is closed, when the call ends.
"""

from functools import partial
from typing import NamedTuple

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice import holding
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import (
    NetworkFailed,
    ProviderError,
    ProviderTokenExpired,
    ProviderUnavailable,
    SessionNotFound,
)
from syncbridge.voice.provider.records import IssuedToken, Permissions, TokenHolder
from syncbridge.voice.records import Room
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.checks.room_check import RoomCheck
from syncbridge_server.voice.rooms.opening import NotLive, Opening, require_waddle

log = structlog.get_logger("voice")

ATTEMPTS = 3
"""Rooms that are tried: calls end and move while tokens are on their way."""
RELEASE_SECONDS = 2.0
"""Time to give a seat back."""


class VoiceToken(msgspec.Struct, frozen=True):
    """A way into the session `session_id`. `expires_at` in Unix seconds."""

    token: str
    session_id: str
    expires_at: float
    generation: int

    def __repr__(self) -> str:
        return f"VoiceToken(session_id={self.session_id!r}, generation={self.generation})"


class Seat(NamedTuple):
    """A seat in a room.

    Attributes:
        doubtful: nobody is known to be there, or it was not found lately.
        changed: its user is in the call, and had other permissions.
        transcribed: what is said there is to be written down.
    """

    room: Room
    doubtful: bool
    changed: bool = False
    transcribed: bool = False


class Tokens:
    """Issues voice tokens.

    Args:
        life: seconds after which a token should not be used any more.
        patience: seconds for everything that one token takes.
        check: where tokens are signed here: whether the provider still has a room.
    """

    def __init__(
        self,
        provider: VoiceProvider,
        writer: ChannelWriter,
        opening: Opening,
        life: float,
        patience: float,
        check: RoomCheck | None = None,
    ) -> None:
        self._provider = provider
        self._writer = writer
        self._opening = opening
        self._life = life
        self._patience = patience
        self._check = check

    async def issue(
        self,
        user_id: str,
        name: str,
        waddle_id: str,
        channel_id: str,
        permissions: Permissions,
        *,
        device_id: str = "",
        sid: str = "",
        logins: tuple[str, ...] = (),
    ) -> VoiceToken:
        """A token for a user whose permission was checked; opens the channel's room if need be.

        Args:
            device_id, sid: the device that asks, and its session, if they are known.
            logins: token id and login with which it asks; see `revoking`.

        Raises:
            SessionFull: there is no seat left.
            ProviderError: the provider did not do it; `retry_after` says when to come back.
            SyncBridgeError: FORBIDDEN for a channel of another waddle.
            StoreError: the channel cannot be read or written.
        """
        seat = partial(
            seated,
            user_id=user_id,
            waddle_id=waddle_id,
            permissions=permissions,
            device=(device_id, sid),
            logins=logins,
            began=self._writer.now(),
        )
        who = TokenHolder(user_id, name, device_id)
        try:
            with trio.fail_after(self._patience):
                return await self._issue(channel_id, waddle_id, who, permissions, seat)
        except trio.TooSlowError:
            raise NetworkFailed("the voice provider is slow", retry_after=2.0) from None

    async def _issue(
        self,
        channel_id: str,
        waddle_id: str,
        who: TokenHolder,
        permissions: Permissions,
        seat: "partial[Seat]",
    ) -> VoiceToken:
        for _ in range(ATTEMPTS):
            try:
                got = await self._writer.change(channel_id, seat)
            except NotLive:
                await self._opening.room(channel_id, waddle_id)
                continue
            try:
                issued = await self._ask(channel_id, got, who, permissions)
            except SessionNotFound:
                await self._opening.recreate(channel_id, got.room.session_id)
                continue
            if got.changed:
                await self._change(channel_id, got.room.session_id, who.user_id, permissions)
            expires_at = min(issued.expires_at, self._writer.now() / 1000 + self._life)
            return VoiceToken(issued.token, got.room.session_id, expires_at, got.room.generation)
        raise ProviderUnavailable("the channel's call changes all the time", retry_after=2.0)

    async def _ask(
        self, channel_id: str, seat: Seat, who: TokenHolder, permissions: Permissions
    ) -> IssuedToken:
        """Ask for a token, once more when it is over already; without one the seat is free."""
        issued, session_id = None, seat.room.session_id
        who = msgspec.structs.replace(who, transcribed=seat.transcribed)
        try:
            if self._check is not None and seat.doubtful:
                await self._require(self._check, channel_id, session_id)
            try:
                issued = await self._provider.issue_token(session_id, who, permissions)
            except ProviderTokenExpired:
                issued = await self._provider.issue_token(session_id, who, permissions)
            return issued
        except ProviderError as error:
            log.info("voice_token_refused", channel_id=channel_id, code=error.code.value)
            raise
        finally:
            if issued is None:
                await self._release(channel_id, who.user_id)

    async def _change(
        self, channel_id: str, session_id: str, user_id: str, permissions: Permissions
    ) -> None:
        """Let what a user may do hold for the connections that there are, where that is offered.

        Where it fails, it holds from the next connection on.
        """
        if not self._provider.capabilities.permissions_live:
            return
        try:
            await self._provider.set_permissions(session_id, user_id, permissions)
            log.info("voice_permissions_changed", channel_id=channel_id)
        except ProviderError as error:
            log.warning("voice_permissions_kept", channel_id=channel_id, code=error.code.value)

    async def _require(self, check: RoomCheck, channel_id: str, session_id: str) -> None:
        """Raise SessionNotFound when the provider does not know the session."""
        if await check.lost(channel_id, session_id):
            raise SessionNotFound("the provider does not know the session any more")

    async def _release(self, channel_id: str, user_id: str) -> None:
        """Give the seat back, also when the caller has gone; it is over by itself otherwise."""
        with trio.move_on_after(RELEASE_SECONDS) as scope:
            scope.shield = True
            try:
                await self._writer.change(channel_id, partial(unseated, user_id=user_id))
            except StoreError as error:
                log.info("voice_seat_kept", channel_id=channel_id, reason=error.detail)


def seated(
    channel: Channel,
    now: int,
    *,
    user_id: str,
    waddle_id: str,
    permissions: Permissions,
    device: tuple[str, str],
    began: int,
    logins: tuple[str, ...] = (),
) -> Seat:
    """Keep a seat in a channel that is live. Raises NotLive, SessionFull, FORBIDDEN.

    `began`: since then (Unix ms) a room that is opened is there.
    """
    require_waddle(channel, waddle_id)
    call, room = channel.call, channel.record.room
    if call is None or room is None:
        raise NotLive
    known = channel.record.participants.get(user_id)
    there = known is not None and call.since(user_id) is not None
    changed = there and known is not None and known.permissions != permissions
    channel.admit(user_id, permissions, now, logins)
    holding.assume(channel.record.participants[user_id], *device)
    empty = not call.arrived and room.opened_at < began
    transcribed = channel.record.config.transcription
    return Seat(room, empty or channel.record.lost > 0, changed, transcribed)


def unseated(channel: Channel, now: int, *, user_id: str) -> None:
    """Give a seat back."""
    channel.unseat(user_id, now)
