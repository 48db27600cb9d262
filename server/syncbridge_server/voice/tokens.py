"""Lets users into calls: a seat in the channel, then a token from the provider.

The seat comes first, under the same rules on every node, so that a channel does not get more
participants than it has seats while tokens are on their way; whoever gets no token gives it back.
A room that the provider has lost is replaced, once, and a token that is over is asked for again,
once. Nothing waits for a provider that is in trouble: the client is told when to come back.

A token opens the way into the media, and no more: it does not end a connection when it is over.
`expires_at` is our word for how long it should be used; a provider whose tokens live longer (100
days at RealTimeKit) lets its holder come back until the room is closed, when the call ends.
"""

from functools import partial

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice import holding
from syncbridge.voice.channel import Channel
from syncbridge.voice.ports import IssuedToken, Participant, Permissions, VoiceProvider
from syncbridge.voice.provider_errors import (
    NetworkFailed,
    ProviderError,
    ProviderTokenExpired,
    ProviderUnavailable,
    SessionNotFound,
)
from syncbridge.voice.records import Room
from syncbridge_server.voice.desk import Desk
from syncbridge_server.voice.opening import NotLive, Opening, require_waddle

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


class Tokens:
    """Issues voice tokens.

    Args:
        life: seconds after which a token should not be used any more.
        patience: seconds for everything that one token takes.
    """

    def __init__(
        self, provider: VoiceProvider, desk: Desk, opening: Opening, life: float, patience: float
    ) -> None:
        self._provider = provider
        self._desk = desk
        self._opening = opening
        self._life = life
        self._patience = patience

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
    ) -> VoiceToken:
        """A token for a user whose permission was checked; opens the channel's room if need be.

        Args:
            device_id, sid: the device that asks, and its session, if they are known.

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
        )
        who = Participant(user_id, name)
        try:
            with trio.fail_after(self._patience):
                return await self._issue(channel_id, waddle_id, who, permissions, seat)
        except trio.TooSlowError:
            raise NetworkFailed("the voice provider is slow", retry_after=2.0) from None

    async def _issue(
        self,
        channel_id: str,
        waddle_id: str,
        who: Participant,
        permissions: Permissions,
        seat: "partial[Room]",
    ) -> VoiceToken:
        for _ in range(ATTEMPTS):
            try:
                room = await self._desk.change(channel_id, seat)
            except NotLive:
                await self._opening.room(channel_id, waddle_id)
                continue
            try:
                issued = await self._ask(channel_id, room, who, permissions)
            except SessionNotFound:
                await self._opening.recreate(channel_id, room.session_id)
                continue
            expires_at = min(issued.expires_at, self._desk.now() / 1000 + self._life)
            return VoiceToken(issued.token, room.session_id, expires_at, room.generation)
        raise ProviderUnavailable("the channel's call changes all the time", retry_after=2.0)

    async def _ask(
        self, channel_id: str, room: Room, who: Participant, permissions: Permissions
    ) -> IssuedToken:
        """Ask for a token, once more when it is over already; without one the seat is free."""
        issued = None
        try:
            try:
                issued = await self._provider.issue_token(room.session_id, who, permissions)
            except ProviderTokenExpired:
                issued = await self._provider.issue_token(room.session_id, who, permissions)
            return issued
        except ProviderError as error:
            log.info("voice_token_refused", channel_id=channel_id, code=error.code.value)
            raise
        finally:
            if issued is None:
                await self._release(channel_id, who.user_id)

    async def _release(self, channel_id: str, user_id: str) -> None:
        """Give the seat back, also when the caller has gone; it is over by itself otherwise."""
        with trio.move_on_after(RELEASE_SECONDS) as scope:
            scope.shield = True
            try:
                await self._desk.change(channel_id, partial(unseated, user_id=user_id))
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
) -> Room:
    """Keep a seat in a channel that is live; its room. Raises NotLive, SessionFull, FORBIDDEN."""
    require_waddle(channel, waddle_id)
    if not channel.live or channel.record.room is None:
        raise NotLive
    channel.admit(user_id, permissions, now)
    holding.guess(channel.record.guests[user_id], *device)
    return channel.record.room


def unseated(channel: Channel, now: int, *, user_id: str) -> None:
    """Give a seat back."""
    channel.unseat(user_id, now)
