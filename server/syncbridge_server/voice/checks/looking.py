"""One look at one call: ask the provider who is in it, and let the channel hear the answer.

What an answer may do. A whole state that names somebody is evidence (`Polled`). A state that says
"nobody" is none by itself; together with a whole list of calls that leaves this one out it is one
negative for everybody (`Vacant`), and so it is where webhooks have said before that everybody has
left. "No such session" counts as a loss of the room; the second one in a row, begun after the first
was noted, has the room replaced, or the call ended when nobody is in it, unless the list names it
with people in it. Everything else verifies nothing.
"""

from collections.abc import Awaitable
from enum import Enum
from typing import Protocol

import structlog
import trio

from syncbridge.errors import SyncBridgeError
from syncbridge.voice.channel import Channel
from syncbridge.voice.compare import Discrepancy, Listing, compare_states, unknown_yet
from syncbridge.voice.evidence import Evidence, Polled, Vacant
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.provider.records import CannotVerify, Doubt, SessionState
from syncbridge.voice.records import Room
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.desk import Desk
from syncbridge_server.voice.figures.metrics import SyncMetrics

log = structlog.get_logger("voice")

LOSSES = 2
"""Looks in a row that did not find the room, after which it is replaced."""


class Recreates(Protocol):
    """Replaces a room that the provider has lost; its participants are asked to rejoin."""

    def recreate(self, channel_id: str, lost_session_id: str) -> Awaitable[Room]: ...


class Sight(Enum):
    """What came of a look.

    DOUBTS: the state spoke against somebody; a second look settles it. VACANT: so does the list,
    and a second look needs a second list. SPENT: the provider, or the budget, allows no more now.
    """

    SEEN = "seen"
    DOUBTS = "doubts"
    VACANT = "vacant"
    LOST = "lost"
    BLIND = "blind"
    SPENT = "spent"
    GONE = "gone"


class Looker:
    """Looks at calls. `spent_until`: Trio time before which the provider is not to be asked."""

    def __init__(
        self, provider: VoiceProvider, desk: Desk, opening: Recreates, metrics: SyncMetrics
    ) -> None:
        self._provider = provider
        self._desk = desk
        self._opening = opening
        self._metrics = metrics
        self.spent_until = 0.0

    async def look(self, channel_id: str, listing: Listing | None = None) -> Sight:
        """Look at a channel's call. Raises StoreError."""
        channel = await self._desk.look(channel_id)
        room = channel.record.room
        if not channel.live or room is None:
            return Sight.GONE
        began = self._desk.now()
        state = await self._provider.fetch_state(room.session_id)
        if isinstance(state, SessionState):
            return await self._heard(channel_id, room, self._polled(room, state, began), state)
        return await self._unsure(channel_id, room, state, began, listing)

    def _polled(self, room: Room, state: SessionState, began: int) -> Polled:
        """A state as evidence. Who is without a user id is nobody that we know."""
        present = tuple((p.user_id, p.peer_id) for p in state.participants if p.user_id)
        return Polled(generation=room.generation, at=began, present=present)

    async def _unsure(
        self, channel_id: str, room: Room, answer: CannotVerify, began: int, listing: Listing | None
    ) -> Sight:
        """An answer that is no statement by itself."""
        session_id = room.session_id
        if answer.doubt is Doubt.RATE_LIMITED:
            self.spent_until = trio.current_time() + (answer.retry_after or 1.0)
            return Sight.SPENT
        if answer.doubt is Doubt.EMPTY and listing is not None and listing.leaves_out(session_id):
            at = min(began, listing.began)
            return await self._heard(channel_id, room, Vacant(generation=room.generation, at=at))
        if answer.doubt is Doubt.EMPTY:
            return await self._found(channel_id, room, began)
        if answer.doubt is Doubt.NOT_FOUND and not (listing and listing.sessions.get(session_id)):
            return await self._missed(channel_id, room, began)
        return Sight.BLIND

    async def _heard(
        self, channel_id: str, room: Room, evidence: Evidence, state: SessionState | None = None
    ) -> Sight:
        """Let the channel hear it, and count how the two views differed."""
        named = [p.user_id for p in state.participants if p.user_id] if state is not None else []

        def hear(channel: Channel, now: int) -> tuple[Sight, list[Discrepancy]]:
            held = channel.record.room
            if channel.call is None or held is None or held.session_id != room.session_id:
                return Sight.GONE, []
            found = compare_states(channel.call.arrived, named)
            found = unknown_yet(found, channel.call.doubted)
            channel.hear([evidence], now)
            channel.record.last_sync_at, channel.record.lost = now, 0
            doubtful = channel.call is not None and channel.call.doubtful
            doubts = Sight.DOUBTS if state is not None else Sight.VACANT
            return doubts if doubtful else Sight.SEEN, found

        sight, found = await self._desk.change(channel_id, hear)
        for one in found:
            self._metrics.drift.labels(str(one.type)).inc()
        if found:
            log.info("voice_drift", channel_id=channel_id, differences=len(found))
        return sight

    async def _found(self, channel_id: str, room: Room, began: int) -> Sight:
        """The provider knows the room, so it is not lost; nobody is in it, it says."""
        nobody = Polled(generation=room.generation, at=began, present=())

        def find(channel: Channel, now: int) -> Channel:
            if channel.record.room is not None and channel.record.room.key == room.key:
                channel.record.lost = 0
                channel.hear([nobody], now)
            return channel

        channel = await self._desk.look(channel_id)
        if channel.record.lost or (channel.call is not None and channel.call.doubtful):
            channel = await self._desk.change(channel_id, find)
        held = channel.call is not None and channel.call.users
        return Sight.BLIND if held else Sight.SEEN

    async def _missed(self, channel_id: str, room: Room, began: int) -> Sight:
        """The provider does not know the room: once sure, replace it, or end an empty call."""

        def miss(channel: Channel, now: int) -> bool:
            record = channel.record
            if channel.call is None or record.room is None:
                return False
            if record.room.session_id != room.session_id or record.previous is not None:
                return False
            if not record.lost or began > record.last_sync_at:
                record.lost, record.last_sync_at = record.lost + 1, now
            sure, present = record.lost >= LOSSES, bool(channel.call.users)
            if sure and not present:
                channel.end(now, "ended")
            return sure and present

        if await self._desk.change(channel_id, miss):
            await self._recreate(channel_id, room.session_id)
        return Sight.LOST

    async def _recreate(self, channel_id: str, session_id: str) -> None:
        """Replace a lost room; what fails is tried again at the next look."""
        result = "failed"
        try:
            await self._opening.recreate(channel_id, session_id)
            result = "recreated"
        except (ProviderError, SyncBridgeError) as error:
            log.warning("voice_recreate_failed", channel_id=channel_id, error=str(error))
        self._metrics.recreated.labels(result).inc()
