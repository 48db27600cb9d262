"""Issues voice tokens: reserves a seat in the channel, then gets a token from the provider.

Every node reserves the seat first, under the same rules, so a channel never admits more users than
it has seats. The seat is released if no token is issued. A room that the provider has lost is
replaced once, and an expired token is requested once more. With locally signed tokens, SyncBridge
first checks that the provider still has the room (`room_check`). New permissions of a participant
apply at once if the provider supports that. A failing provider is not waited for; the client is
told when to retry.

A token only admits its holder. Its expiry does not end a connection. `expires_at` is our limit for
its use. If the provider's tokens live longer (100 days at RealTimeKit), the holder can come back
until the room is closed at the end of the call.
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
"""Maximum number of rooms to try, because a call can end or migrate during a request."""
RELEASE_SECONDS = 2.0
"""Deadline for releasing a seat."""


class VoiceToken(msgspec.Struct, frozen=True):
    """A token for the session `session_id`. `expires_at` in Unix seconds."""

    token: str
    session_id: str
    expires_at: float
    generation: int

    def __repr__(self) -> str:
        return f"VoiceToken(session_id={self.session_id!r}, generation={self.generation})"


class Seat(NamedTuple):
    """A reserved seat in a room.

    Attributes:
        doubtful: the room is empty, or the latest state check did not find it.
        changed: the user is in the call with other permissions.
        transcribed: the call is transcribed.
    """

    room: Room
    doubtful: bool
    changed: bool = False
    transcribed: bool = False


class VoiceTokens:
    """Issues voice tokens.

    Args:
        life: lifetime of a token in seconds.
        patience: deadline for issuing a token, in seconds.
        check: checks that the provider still has a room; None: the provider issues the tokens.
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
        """Issue a token to a user whose permission was checked; opens the room if necessary.

        Args:
            device_id, sid: the requesting device and its session, if known.
            logins: token id and login of the request; see `revoking`.

        Raises:
            SessionFull: no seat is left.
            ProviderError: the provider failed; `retry_after` says when to retry.
            OtherWaddle: the channel is another waddle's.
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
        """Request a token, again if it has already expired; release the seat without one."""
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
        """Apply new permissions to a user's open connections, if the provider supports that.

        Otherwise, or after a failure, they apply from the next connection on.
        """
        if not self._provider.capabilities.permissions_live:
            return
        try:
            await self._provider.set_permissions(session_id, user_id, permissions)
            log.info("voice_permissions_changed", channel_id=channel_id)
        except ProviderError as error:
            log.warning("voice_permissions_kept", channel_id=channel_id, code=error.code.value)

    async def _require(self, check: RoomCheck, channel_id: str, session_id: str) -> None:
        """Raise SessionNotFound if the provider does not know the session."""
        if await check.lost(channel_id, session_id):
            raise SessionNotFound("the provider no longer knows the session")

    async def _release(self, channel_id: str, user_id: str) -> None:
        """Release the seat, even after cancellation; on failure it expires by itself."""
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
    """Reserve a seat in a live channel. Raises NotLive, SessionFull, OtherWaddle.

    `began`: a room opened since then (Unix ms) is known to exist.
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
    """Release a seat."""
    channel.unseat(user_id, now)
