"""The rules of a voice channel: its rooms, seats, call and due times.

Theory of operation. A channel is a value: it is read from the store, changed here, and written back
if no other node wrote meanwhile (`stored`). Nothing here waits or talks to a provider. Work at the
provider is *noted in the record* (a room without a session id, a room in `retired`, a wanted
recording), and `next_due` returns the time at which it is due again. If a node dies between the
write and the work, another node finds the channel due. All this work can be repeated, because a
room is always requested under the same key.

Opening: `opening` notes a room, the provider is asked, and `opened` stores its id and begins the
call. Migration: `migrate` notes the coming room, and `moved` makes it the current room.
Participants of the old room can come over until the call's deadline; then the old room is retired.
A lost room is replaced the same way (`reason` "lost") but not retired.

Times are Unix ms.
"""

from collections.abc import Sequence

import msgspec

from syncbridge.voice import announcements, holding
from syncbridge.voice.call import ChannelCall
from syncbridge.voice.call_records import Cause, Event, Phase, PhaseChanged, UserJoined, UserLeft
from syncbridge.voice.channel_limits import DAY
from syncbridge.voice.channel_limits import ChannelLimits as ChannelLimits
from syncbridge.voice.evidence import (
    Ended,
    Evidence,
    EvidenceOrigin,
    Migrated,
    Polled,
    Teller,
    Vacant,
)
from syncbridge.voice.naming import provider_name
from syncbridge.voice.provider.errors import SessionFull
from syncbridge.voice.provider.records import Permissions
from syncbridge.voice.records import ChannelConfig, ChannelRecord, Final, Move, Participant, Room
from syncbridge.voice.timeline import (
    ENDED,
    MIGRATED,
    MIGRATING,
    OPENED,
    SENT_AWAY,
    TIMEOUT,
    TOKEN,
    Timeline,
)

LOST = "lost"
REPLACED = "replaced"
"""Reason for retiring a room with an outdated configuration."""
PROVIDER = EvidenceOrigin(Teller.PROVIDER)
REMOVED_MOST = 256
"""Maximum number of users kept out of a channel."""
RETIRED_MOST = 32
"""Number of retired rooms from which no migration begins."""


class Channel:
    """A channel and its call, from a record that must not be used again.

    Attributes:
        news: messages to the channel's sockets about this change.
        finals: figures of calls that ended in this change.
        moves: migrations that finished in this change.
        timeline: timeline entries of this change. compared: a complete list was applied.
        revision: of the write that stored the change; 0 before.
    """

    def __init__(self, record: ChannelRecord, limits: ChannelLimits) -> None:
        self.record = record
        self.limits = limits
        bound = msgspec.structs.replace(
            limits.call, max_participants=record.config.max_participants
        )
        self.call = ChannelCall.load(record.call, bound) if record.call is not None else None
        self.finals: list[Final] = []
        self.moves: list[Move] = []
        self.news: list[announcements.Message] = []
        self.timeline = Timeline(record)
        self.compared = False
        self.revision = 0

    def dump(self) -> ChannelRecord:
        """The record to store."""
        self.record.call = self.call.dump() if self.call is not None else None
        return self.record

    @property
    def live(self) -> bool:
        """Whether there is an open room with a call."""
        return self.call is not None and self.record.room is not None

    @property
    def idle(self) -> bool:
        """Whether the channel has no rooms, prewarming or configuration."""
        record = self.record
        rooms = record.room or record.coming or record.previous or record.retired
        return not rooms and not record.warm_until and record.standing is None

    @property
    def has_tasks(self) -> bool:
        """Whether there is work at the provider that no caller is already doing."""
        record = self.record
        present = self.call is not None and bool(self.call.users)
        waiting = record.retired or record.unwelcome
        return bool(waiting) or (record.recording == "wanted" and present)

    def generation_of(self, session_id: str) -> int | None:
        """The generation of a provider's session; None for a session that is not current."""
        for room in (self.record.room, self.record.previous):
            if room is not None and session_id and room.session_id == session_id:
                return room.generation
        return None

    # Opening and ending

    def opening(self, now: int, config: ChannelConfig, waddle_id: str) -> Room:
        """The room to open; the same until `opened`. Call it when not `live`."""
        record = self.record
        if record.room is None:
            record.generation += 1
            record.config, record.waddle_id = config, record.waddle_id or waddle_id
            record.room = Room(record.generation, self._key(now), now)
        return record.room

    def opened(self, session_id: str, now: int, key: str = "") -> None:
        """Note that the provider opened the room requested under `key`, and begin the call.

        No effect if that was noted before, or if another room is wanted meanwhile.
        """
        record = self.record
        if record.room is None or self.call is not None or key not in ("", record.room.key):
            return
        if record.config.recording:
            record.recording = "wanted"
        since = record.room.opened_at or now  # a pooled room keeps its age
        record.room = msgspec.structs.replace(record.room, session_id=session_id, opened_at=since)
        bound = msgspec.structs.replace(
            self.limits.call, max_participants=record.config.max_participants
        )
        self.call = ChannelCall(now, record.room.generation, bound)
        record.created_at, record.pooled_until = now, 0
        record.retry_at = record.failures = 0
        record.last_activity, record.last_error, record.lost = now, "", 0
        recent = [at for at in record.uses if now - at < DAY]
        record.uses = [*recent, now][-max(self.limits.pool_uses, 1) :]
        self.timeline.note(PROVIDER, OPENED, now, ref=session_id)

    def belongs_to(self, waddle_id: str) -> bool:
        """Whether the channel belongs to this waddle, or to none yet."""
        return self.record.waddle_id in ("", waddle_id)

    def failed(self, error: str) -> None:
        """Note an error code of the provider."""
        self.record.last_error = error

    def postpone(self, now: int, least_ms: int = 0) -> None:
        """Delay the work at the provider after a failure, longer each time."""
        record = self.record
        pause = min(self.limits.retry_ms << min(record.failures, 16), self.limits.retry_most_ms)
        record.failures += 1
        record.retry_at = now + max(pause, least_ms)

    def succeeded(self) -> None:
        """Reset the delay after a success at the provider."""
        if self.record.failures:
            self.record.retry_at, self.record.failures, self.record.last_error = 0, 0, ""

    def end(self, now: int, reason: str, by: EvidenceOrigin = PROVIDER) -> list[Event]:
        """End the call on behalf of `by`; its rooms are retired."""
        if self.call is None or self.record.room is None:
            self._vacate()
            return []
        generation = self.call.generation
        self._keep(now)
        said = Ended(generation=generation, at=now, reason=reason, origin=by)
        events = self._apply(said, now)
        return self._after(events, now, reason, by)

    def confirm_ended(self, room: Room) -> None:
        """Note that the provider ended a retired room."""
        self.record.retired = [r for r in self.record.retired if r.key != room.key]

    # Seats

    def admit(
        self, user_id: str, permissions: Permissions, now: int, logins: tuple[str, ...] = ()
    ) -> None:
        """Reserve a seat. Raises SessionFull; participants have a seat. O(participants)."""
        record = self.record
        self._forget(now)
        participant = record.participants.get(user_id)
        present = self.call is not None and self.call.since(user_id) is not None
        if not present and self.taken(now, but=user_id) >= record.config.max_participants:
            raise SessionFull(
                "the channel has no seat left", retry_after=self.limits.seat_ms / 1000
            )
        self.welcome(user_id)
        participant = participant or Participant()
        participant.permissions, participant.token_at, participant.logins = permissions, now, logins
        participant.seat_until = now + self.limits.seat_ms
        record.participants[user_id] = participant
        record.last_activity = now
        self.timeline.note(EvidenceOrigin(Teller.TOKEN), TOKEN, now, user_id=user_id)

    def keep_out(self, user_id: str, now: int) -> None:
        """Let a removed user come back only with a new token; the oldest entries are dropped."""
        removed = self.record.removed
        removed.pop(user_id, None)
        removed[user_id] = now + self.limits.removed_ms
        while len(removed) > REMOVED_MOST:
            del removed[next(iter(removed))]

    def remove(self, user_id: str, now: int) -> None:
        """Keep out a user whose tokens were revoked; in `unwelcome` until the provider did it."""
        self.keep_out(user_id, now)
        self.unseat(user_id, now)
        if user_id not in self.record.unwelcome:
            self.record.unwelcome = [*self.record.unwelcome, user_id]
        self.timeline.note(EvidenceOrigin(Teller.OPERATOR), SENT_AWAY, now, user_id=user_id)

    def welcome(self, user_id: str) -> None:
        """Admit a removed user again."""
        self.record.removed.pop(user_id, None)
        self.sent_away(user_id)

    def sent_away(self, user_id: str) -> None:
        """Note that a user who came back without a new token was removed at the provider."""
        self.record.unwelcome = [one for one in self.record.unwelcome if one != user_id]

    def unseat(self, user_id: str, now: int) -> None:
        """Release the seat of a user who got no token or does not use it."""
        participant = self.record.participants.get(user_id)
        if participant is not None:
            participant.seat_until = 0
            self._forget(now)

    def taken(self, now: int, but: str = "") -> int:
        """The number of seats taken by participants and reserved by issued tokens."""
        present = set(self.call.users) if self.call is not None else set()
        kept = {
            u for u, participant in self.record.participants.items() if participant.seat_until > now
        }
        return len((present | kept) - {but})

    # Evidence

    def apply(self, evidence: Sequence[Evidence], now: int) -> list[Event]:
        """Apply evidence in the order given; returns the changes in order."""
        if self.call is None:
            return []
        events: list[Event] = []
        self._keep(now)
        moving = self._moving()
        for one in evidence:
            events += self._apply(one, now)
            self.compared = self.compared or isinstance(one, Polled)
        events += self.call.settle(now)
        self.timeline.changed(self.call.changes, None, now)
        if events or not all(isinstance(one, Polled | Vacant) for one in evidence):
            self.record.last_activity = now
        idle = any(isinstance(e, PhaseChanged) and e.cause is Cause.IDLE for e in events)
        events = self._after(events, now, "idle" if idle else "ended")
        for user_id, before in moving.items():
            self._arrive(user_id, before, now)
        return events

    def tell_devices(self, told: list[announcements.Message], by: EvidenceOrigin, now: int) -> None:
        """Add messages about the device that holds the call, and note them in the timeline."""
        self.news += told
        self.timeline.devices(told, by, now)

    # Migration

    def migrate(self, now: int, reason: str) -> Room | None:
        """The room to open for a migration; None when the call cannot migrate.

        The same room until `moved` or `abandon`.
        """
        record = self.record
        if not self._movable:
            return None
        if record.coming is None:
            generation = record.generation + 1
            record.coming = Room(generation, self._key(now, generation), now, reason=reason)
            record.coming_until = now + 3 * self.limits.opening_ms
            record.move = Move(reason, now)
        return record.coming

    def moved(self, session_id: str, now: int, key: str = "") -> list[Event]:
        """Make the coming room requested under `key` the current one; participants must rejoin.

        No effect if another room is coming meanwhile.
        """
        record = self.record
        if record.coming is None or self.call is None or record.room is None:
            return []
        if key not in ("", record.coming.key):
            return []
        self._keep(now)
        record.previous = record.room
        record.room = msgspec.structs.replace(record.coming, session_id=session_id, opened_at=now)
        record.coming, record.coming_until = None, 0
        record.generation = record.room.generation
        record.migrations += 1
        record.move = msgspec.structs.replace(
            record.move or Move(record.room.reason, now),
            result="moving",
            participants=len(self.call.users),
        )
        record.lost, record.last_error, record.last_activity = 0, "", now
        if record.config.recording:
            record.recording = "wanted"
        patience = self.limits.call.migration_ms
        self.news.append(
            announcements.migration(record.channel_id, record.previous, record.room, patience)
        )
        events = self._apply(Migrated(generation=record.generation, at=now), now)
        self.timeline.note(PROVIDER, MIGRATING, now, reason=record.room.reason, ref=session_id)
        return self._after(events, now, "idle")

    def abandon(self, *, asked: bool = True) -> None:
        """Abandon a migration; the call stays in its room.

        `coming_until` stays, so a call that is too old does not migrate again before then. `asked`:
        the provider may have opened the coming room, so it must be ended.
        """
        record = self.record
        if record.coming is None:
            return
        if asked:
            self._retire(record.coming)
        record.generation, record.coming = record.coming.generation, None
        if record.move is not None:
            record.move = msgspec.structs.replace(record.move, result="failed")
            self.moves.append(record.move)

    # Time

    def expire(self, now: int) -> list[Event]:
        """Carry out what is due at `now`: leases, deadlines, expiry of pooled rooms."""
        record = self.record
        self._forget(now)
        if record.warm_until <= now:
            record.warm_from = record.warm_until = 0
            record.warm_config = None
        self.tell_devices(
            holding.expire_moves(record.channel_id, record.participants, now), TIMEOUT, now
        )
        if record.coming is not None and record.coming_until <= now:
            self.abandon()
        if self.call is None:
            kept = max(record.pooled_until, self._warm_until(now))
            if record.room is not None and record.room.session_id and kept <= now:
                self._vacate()
            return []
        self._keep(now)
        events = self.call.expire(now)
        self.timeline.changed(self.call.changes, None, now)
        return self._after(events, now, "idle")

    def next_due(self, now: int) -> int | None:
        """When the channel is due next, in ms; None: never by itself."""
        record, limits = self.record, self.limits
        due: list[int] = []
        if self.call is not None:
            self._keep(now)
            due += [at for at in (self.call.next_due(),) if at is not None]
            due += holding.next_due(record.participants)
            due += [at for at in self._look_at() if at > now]
        if record.room is not None and not record.room.session_id:
            due.append(max(record.room.asked_at + limits.opening_ms, record.retry_at))
        elif record.room is not None and self.call is None:
            due.append(max(record.pooled_until, self._warm_until(now)))
        if self._movable and record.room is not None and limits.max_age_ms:
            due.append(max(record.room.opened_at + limits.max_age_ms, record.coming_until))
        if record.coming is not None:
            asked_again = record.coming.asked_at + limits.opening_ms
            due.append(asked_again if asked_again > now else record.coming_until)
        if self.has_tasks:
            due.append(max(record.retry_at, now + limits.retry_ms))
        if record.warm_until > now and record.room is None:
            due.append(max(record.warm_from, record.retry_at))
        if record.standing is not None:
            due.append(now + limits.renew_ms)
        if record.texts:
            due.append(record.texts_at)
        return min(due, default=None)

    def stragglers(self, now: int) -> bool:
        """Whether a state check is due, near the end of a migration or for a doubt."""
        return any(at <= now for at in self._look_at())

    def cold(self, now: int) -> bool:
        """Whether a prewarmed event is near and has no room yet."""
        return self.record.room is None and bool(self._warm_until(now))

    def too_old(self, now: int) -> bool:
        """Whether the room has reached the age at which the call migrates."""
        room, age = self.record.room, self.limits.max_age_ms
        if room is None or not age or not self._movable:
            return False
        return now - room.opened_at >= age and now >= self.record.coming_until

    def unfinished(self, now: int) -> bool:
        """Whether a coming room was not opened in time, so that any node may open it."""
        coming = self.record.coming
        return coming is not None and now >= coming.asked_at + self.limits.opening_ms

    # Sessions that the provider lists

    def holds(self, session_id: str) -> bool:
        """Whether a provider's session is a room of this channel, retired rooms included."""
        record = self.record
        rooms = (record.room, record.coming, record.previous, *record.retired)
        return any(r is not None and session_id in (r.session_id, r.key) for r in rooms)

    def orphaned(self, session_id: str, now: int) -> bool:
        """Retire a session that was opened for this channel and is no longer held."""
        if self.holds(session_id):
            return False
        self._retire(Room(0, session_id, now, session_id, reason="orphan"))
        return True

    # Parts

    @property
    def _movable(self) -> bool:
        """Whether a migration can begin or has begun; not with too many retired rooms."""
        record = self.record
        return self.live and record.previous is None and len(record.retired) < RETIRED_MOST

    def _key(self, now: int, generation: int = 0) -> str:
        name = provider_name(self.record.channel_id)
        return f"waddle_{name}_{now}_{generation or self.record.generation}"

    def _retire(self, room: Room | None) -> None:
        """Mark a room that may exist at the provider to be ended.

        A room without a session id is requested again under its key, to learn its id.
        """
        if room is not None:
            self.record.retired.append(room)

    def _vacate(self) -> None:
        """Retire the current or pooled room."""
        self._retire(self.record.room)
        self.record.room, self.record.pooled_until = None, 0

    def _warm_until(self, now: int) -> int:
        """Until when a prewarmed room is kept; 0 when no event is near."""
        record = self.record
        return record.warm_until if record.warm_from <= now < record.warm_until else 0

    def _look_at(self) -> list[int]:
        """When state checks are due: near the end of a migration, and for doubts."""
        if self.call is None:
            return []
        over, again, limits = self.call.moving_until, self.call.second_look_at, self.limits
        early = min(limits.last_look_ms, limits.call.migration_ms // 2)
        return [at for at in (over and over - early, again) if at is not None]

    def _moving(self) -> dict[str, holding.Media]:
        """Connections of the users whose call is moving to another device."""
        participants = self.record.participants.items()
        return {
            user_id: self._media(user_id)
            for user_id, participant in participants
            if participant.moving_to
        }

    def _media(self, user_id: str) -> holding.Media:
        assert self.call is not None
        held = frozenset(self.call.connections(user_id))
        return holding.Media(held, self.call.standing(user_id))

    def _arrive(self, user_id: str, before: holding.Media, now: int) -> None:
        """Complete the move if a connection came that is not the old device's."""
        participant = self.record.participants.get(user_id)
        if self.call is None or participant is None or not participant.moving_to:
            return
        came = holding.new_connection(participant, before, self._media(user_id), now)
        if came:
            told = holding.complete_move(self.record.channel_id, user_id, participant, came)
            self.tell_devices(told, PROVIDER, now)

    def _keep(self, now: int) -> None:
        """Keep an empty call while an event is near or a seat is reserved."""
        if self.call is not None:
            seats = [participant.seat_until for participant in self.record.participants.values()]
            self.call.kept_until = max([self._warm_until(now), *seats])

    def _forget(self, now: int) -> None:
        """Drop users who are neither in the call nor have a seat, and expired removals."""
        participants, state = self.record.participants, self.call
        over = [user_id for user_id, until in self.record.removed.items() if until <= now]
        for user_id in over:
            del self.record.removed[user_id]
        for user_id in [
            u for u, participant in participants.items() if participant.seat_until <= now
        ]:
            if state is None or state.since(user_id) is None:
                del participants[user_id]

    def _apply(self, evidence: Evidence, now: int) -> list[Event]:
        """Apply one piece of evidence and note its effect in the timeline."""
        assert self.call is not None
        events = self.call.apply(evidence, now)
        self.timeline.changed(self.call.changes, evidence, now)
        return events

    def _after(
        self, events: list[Event], now: int, reason: str, by: EvidenceOrigin = TIMEOUT
    ) -> list[Event]:
        """Add messages about the changes, and retire rooms that the phase no longer needs."""
        record, state = self.record, self.call
        assert state is not None
        self.news += announcements.of_events(record.channel_id, events)
        for event in events:
            if isinstance(event, UserLeft) and event.user_id in record.participants:
                holding.clear(record.participants[event.user_id])
            elif isinstance(event, UserJoined) and record.removed.get(event.user_id, 0) > now:
                record.unwelcome = [*record.unwelcome, event.user_id]
        if record.previous is not None and state.phase is not Phase.MIGRATING:
            if record.room is None or record.room.reason != LOST:
                self._retire(record.previous)
            record.previous = None
            self._note_move(events, now)
        if state.phase is Phase.ENDED:
            self._close(now, reason)
            self.timeline.note(by, ENDED, now, reason=reason)
        return events

    def _note_move(self, events: list[Event], now: int) -> None:
        """Note the result of a finished migration."""
        state = self.call
        if self.record.move is None or state is None:
            return
        stranded = sum(1 for e in events if isinstance(e, UserLeft) and e.reason == "migration")
        ended = state.phase is Phase.ENDED
        came = len(state.users)
        self.record.move = msgspec.structs.replace(
            self.record.move,
            result="ended" if ended else "moved" if came else "stranded",
            migrated=came,
            stranded=stranded,
            ended_at=now,
        )
        self.moves.append(self.record.move)
        self.timeline.note(PROVIDER, MIGRATED, now, reason=self.record.move.result)

    def _close(self, now: int, reason: str) -> None:
        """Close an ended call: note its figures, and pool or retire its room."""
        record, room, state = self.record, self.record.room, self.call
        assert state is not None
        assert room is not None
        figures = state.statistics(now)
        self.finals.append(
            Final(
                record.channel_id,
                record.waddle_id,
                room.session_id,
                room.generation,
                record.created_at,
                now,
                reason,
                figures.peak,
                figures.total_ms,
                record.migrations,
            )
        )
        self.news.append(announcements.session_ended(record.channel_id, room.session_id, reason))
        self.call = None
        record.participants, record.migrations, record.recording = {}, 0, ""
        record.unwelcome = []
        if record.coming is not None:
            record.generation = record.coming.generation  # never reuse a generation or its key
        self._retire(record.coming)
        record.coming, record.coming_until = None, 0
        if self._warm_until(now) and reason != REPLACED:
            record.warm_from = record.warm_until = 0
            record.warm_config = None
        if reason == "idle" and self._frequent(now) and self._lasting(room, now):
            record.pooled_until = now + self.limits.pool_ms
        else:
            self._vacate()

    def _frequent(self, now: int) -> bool:
        recent = [at for at in self.record.uses if now - at < DAY]
        return bool(self.limits.pool_uses) and len(recent) >= self.limits.pool_uses

    def _lasting(self, room: Room, now: int) -> bool:
        """Whether a room pooled now does not reach its maximum age in the pool."""
        age = self.limits.max_age_ms
        return not age or now + self.limits.pool_ms <= room.opened_at + age
