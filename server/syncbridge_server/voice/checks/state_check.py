"""A state check of one call: asks the provider who is in it and applies the answer as evidence.

Effect of an answer. A complete state with participants is evidence (`Polled`). A connection that
the provider records as ended is proof that it is gone (`Left`). An empty state is one negative for
every participant (`Vacant`) if the provider's capabilities say so. Otherwise it counts as a
negative only together with a complete list of calls without this call, or if webhooks have already
reported that everybody left. Two empty answers are two negatives only if they are `EMPTY_APART_S`
apart, for every provider. "No such session" means that the room may be lost. The second such answer
in a row, from a check that began after the first was noted, replaces the room, or ends the call if
it has no participants, unless the list shows participants in it. All other answers verify nothing.
"""

from collections.abc import Awaitable
from enum import Enum
from typing import Protocol

import structlog
import trio

from syncbridge.errors import SyncBridgeError
from syncbridge.ids import is_short_id
from syncbridge.voice.channel import Channel
from syncbridge.voice.compare import Discrepancy, Listing, compare_states, unknown_yet
from syncbridge.voice.evidence import Evidence, EvidenceOrigin, Left, Polled, Source, Teller, Vacant
from syncbridge.voice.provider.capabilities import EMPTY_APART_S, EmptyList
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.provider.records import (
    CannotVerify,
    GoneConnection,
    Present,
    SessionState,
    Vacated,
    VerifyFailure,
)
from syncbridge.voice.records import Room
from syncbridge.voice.timeline import UNKNOWN_ROOM
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.figures.metrics import SyncMetrics

log = structlog.get_logger("voice")

LIST = EvidenceOrigin(Teller.LIST)
LOSSES = 2
"""State checks in a row without the room after which it is replaced."""


DOUBTS_MOST = 4_096
"""Maximum number of channels whose latest verification failure is remembered."""


class Recreates(Protocol):
    """Replaces a lost room; its participants are asked to rejoin."""

    def recreate(self, channel_id: str, lost_session_id: str) -> Awaitable[Room]: ...


class CheckResult(Enum):
    """The result of a state check.

    DOUBTFUL: there is a negative; a second check in the same pass can settle it. VACANT: there is a
    negative, but settling it needs another list or more time. RATE_LIMITED: the provider or the
    budget allows no more requests now.
    """

    VERIFIED = "verified"
    DOUBTFUL = "doubtful"
    VACANT = "vacant"
    LOST = "lost"
    UNVERIFIED = "unverified"
    RATE_LIMITED = "rate_limited"
    NO_CALL = "no_call"


class StateCheck:
    """Checks calls.

    Args:
        id_bytes: longest user id; participants with another one are ignored, as in webhooks.

    Attributes:
        limited_until: Trio time before which the provider must not be asked.
        doubts: by channel, why the latest check verified nothing; the oldest are dropped.
    """

    def __init__(
        self,
        provider: VoiceProvider,
        writer: ChannelWriter,
        opening: Recreates,
        metrics: SyncMetrics,
        id_bytes: int,
    ) -> None:
        self._id_bytes = id_bytes
        self._provider = provider
        self._writer = writer
        self._opening = opening
        self._metrics = metrics
        self.limited_until = 0.0
        self.doubts: dict[str, VerifyFailure] = {}
        capabilities = provider.capabilities
        self._empty_counts = capabilities.empty_list is EmptyList.NEGATIVE
        self._apart_ms = round(capabilities.second_look_s * 1000)
        self._empty_apart_ms = round(max(EMPTY_APART_S, capabilities.second_look_s) * 1000)

    async def check(self, channel_id: str, listing: Listing | None = None) -> CheckResult:
        """Check a channel's call. Raises StoreError."""
        channel = await self._writer.read(channel_id)
        room = channel.record.room
        if not channel.live or room is None:
            return CheckResult.NO_CALL
        began = self._writer.now()
        nobody = channel.call is not None and not channel.call.users and not channel.record.lost
        state = await self._provider.fetch_state(room.session_id)
        if nobody and isinstance(state, CannotVerify) and state.doubt is VerifyFailure.EMPTY:
            return CheckResult.VERIFIED
        if isinstance(state, SessionState):
            return await self._heard(channel_id, room, self._polled(room, state, began), state)
        if isinstance(state, Vacated):
            return await self._heard(channel_id, room, self._vacant(room, began), gone=state.gone)
        return await self._unsure(channel_id, room, state, began, listing)

    def _polled(self, room: Room, state: SessionState, began: int) -> Polled | Vacant:
        """A state as evidence. Participants of whom none is a user are an empty call."""
        present = tuple((p.user_id, p.peer_id) for p in self._users(state))
        if not (present or state.pending):
            return self._vacant(room, began, state.life)
        return Polled(
            generation=room.generation,
            at=began,
            present=present,
            pending=state.pending,
            life=state.life,
            apart_ms=self._apart_ms,
        )

    def _users(self, state: SessionState) -> list[Present]:
        """The participants that are users: those with an acceptable user id."""
        return [p for p in state.participants if is_short_id(p.user_id, self._id_bytes)]

    def _vacant(self, room: Room, at: int, life: str = "") -> Vacant:
        """An empty state, or a record of a vacated call, as evidence."""
        return Vacant(generation=room.generation, at=at, life=life, apart_ms=self._empty_apart_ms)

    async def _unsure(
        self, channel_id: str, room: Room, answer: CannotVerify, began: int, listing: Listing | None
    ) -> CheckResult:
        """Handle an answer that is not evidence by itself."""
        session_id = room.session_id
        self._note(channel_id, answer.doubt)
        if answer.doubt is VerifyFailure.RATE_LIMITED:
            self.limited_until = trio.current_time() + (answer.retry_after or 1.0)
            return CheckResult.RATE_LIMITED
        if answer.doubt is VerifyFailure.EMPTY and self._empty_counts:
            return await self._heard(channel_id, room, self._vacant(room, began, answer.life))
        if (
            answer.doubt is VerifyFailure.EMPTY
            and listing is not None
            and listing.leaves_out(session_id)
        ):
            at = min(began, listing.began)
            return await self._heard(channel_id, room, self._vacant(room, at))
        if answer.doubt is VerifyFailure.EMPTY:
            return await self._found(channel_id, room, began)
        if answer.doubt is VerifyFailure.NOT_FOUND and not (
            listing and listing.sessions.get(session_id)
        ):
            return await self._missed(channel_id, room, began)
        return CheckResult.UNVERIFIED

    def _note(self, channel_id: str, doubt: VerifyFailure) -> None:
        self.doubts.pop(channel_id, None)
        self.doubts[channel_id] = doubt
        while len(self.doubts) > DOUBTS_MOST:
            del self.doubts[next(iter(self.doubts))]

    async def _heard(
        self,
        channel_id: str,
        room: Room,
        evidence: Evidence,
        state: SessionState | None = None,
        gone: tuple[GoneConnection, ...] = (),
    ) -> CheckResult:
        """Apply evidence to the channel and count the differences between the views."""
        gone = state.gone if state is not None else gone
        named = [p.user_id for p in self._users(state)] if state is not None else []
        unsaid = state.pending if state is not None else ()

        def hear(channel: Channel, now: int) -> tuple[CheckResult, list[Discrepancy]]:
            held = channel.record.room
            if channel.call is None or held is None or held.session_id != room.session_id:
                return CheckResult.NO_CALL, []
            ours = [user_id for user_id in channel.call.arrived if user_id not in unsaid]
            found = compare_states(ours, [name for name in named if name not in unsaid])
            found = unknown_yet(found, channel.call.doubted)
            channel.apply([*_departures(channel, room, gone, now), evidence], now)
            channel.record.last_sync_at, channel.record.lost = now, 0
            doubtful = channel.call is not None and channel.call.doubtful
            again = state is not None and not self._apart_ms
            doubts = CheckResult.DOUBTFUL if again else CheckResult.VACANT
            return doubts if doubtful else CheckResult.VERIFIED, found

        result, found = await self._writer.change(channel_id, hear)
        for one in found:
            self._metrics.drift.labels(str(one.type)).inc()
        if found:
            log.info("voice_drift", channel_id=channel_id, differences=len(found))
        return result

    async def _found(self, channel_id: str, room: Room, began: int) -> CheckResult:
        """Note that the provider knows the room and reports it as empty."""
        nobody = Polled(generation=room.generation, at=began, present=())

        def find(channel: Channel, now: int) -> Channel:
            if channel.record.room is not None and channel.record.room.key == room.key:
                channel.record.lost = 0
                channel.apply([nobody], now)
            return channel

        channel = await self._writer.read(channel_id)
        if channel.record.lost or (channel.call is not None and channel.call.doubtful):
            channel = await self._writer.change(channel_id, find)
        held = channel.call is not None and channel.call.users
        return CheckResult.UNVERIFIED if held else CheckResult.VERIFIED

    async def _missed(self, channel_id: str, room: Room, began: int) -> CheckResult:
        """Note that the provider does not know the room; replace it, or end an empty call."""

        def miss(channel: Channel, now: int) -> bool:
            record = channel.record
            if channel.call is None or record.room is None:
                return False
            if record.room.session_id != room.session_id or record.previous is not None:
                return False
            if not record.lost or began > record.last_sync_at:
                record.lost, record.last_sync_at = record.lost + 1, now
                channel.timeline.note(LIST, UNKNOWN_ROOM, now, ref=room.session_id)
            sure, present = record.lost >= LOSSES, bool(channel.call.users)
            if sure and not present:
                channel.end(now, "ended", LIST)
            return sure and present

        if await self._writer.change(channel_id, miss):
            await self._recreate(channel_id, room.session_id)
        return CheckResult.LOST

    async def _recreate(self, channel_id: str, session_id: str) -> None:
        """Replace a lost room; a failure is retried at the next state check."""
        result = "failed"
        try:
            await self._opening.recreate(channel_id, session_id)
            result = "recreated"
        except (ProviderError, SyncBridgeError) as error:
            log.warning("voice_recreate_failed", channel_id=channel_id, error=str(error))
        self._metrics.recreated.labels(result).inc()


def _departures(
    channel: Channel, room: Room, gone: tuple[GoneConnection, ...], now: int
) -> list[Evidence]:
    """Evidence for held connections that the provider records as ended."""
    call = channel.call
    return [
        Left(
            generation=room.generation,
            at=now if one.left_at is None else min(round(one.left_at * 1000), now),
            source=Source.POLL,
            user_id=one.user_id,
            connection_id=one.peer_id,
            origin=LIST,
        )
        for one in gone
        if call is not None and one.peer_id in call.connections(one.user_id)
    ]
