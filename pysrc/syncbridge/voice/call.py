"""The call of one channel: its participants, derived from evidence.

State. Each user has the connections that the provider made for them, and is in the call while at
least one connection is held. A connection has the time of its latest sign (`seen_at`), the latest
sign by another source than its client (`shown_at`), the negative against it (`doubt`), the poll
that did not show it (`unshown`), and the expiry of its client's reports (`lease`). The ids of gone
connections are kept for a while (`tombstones`).

Rules.

* A provider's `left` with a connection id is proof: it removes exactly this connection, in any
  order of arrival. A user with a newer connection stays. So does a user with a later sign without a
  connection id, because that sign implies another connection that is not known yet.
* Every other absence (a poll without the connection, the client's own report) is one negative. A
  negative counts only if it is newer than `seen_at`; two independent negatives remove the
  connection. Negatives are independent if they come from two sources, or from two polls of which
  the second began after the first was applied. For some providers, the polls must also be some time
  apart, without a restart of the provider between them; otherwise the second counts as the first.
* A connection that was replaced by another one of its device is gone. Its user stays until the
  other connection is expected to be reported (`until`).
* Any sign of a connection clears a doubt that is older than the sign.
* A client whose media are dead may still report. So polls also count against the signs of the
  provider alone (or the first report, if there is none): two consecutive polls after those remove a
  connection, whatever its client reports. One poll never removes a connection.
* A user's participation time ends at the time of a `left`, otherwise at the latest sign.
* A client that has reported once must continue: its lease ends `lease_ms` after the latest sign of
  the connection from any source; the first lease ends `lease_ms` after it was granted. A connection
  whose client never reported has no lease.
* A `left` of an unknown connection is one negative for the user's unnamed connection.
* An empty poll is no evidence by itself. It is one negative for every user if webhooks gave each of
  them a negative before it. A failed poll is never evidence. An empty state, together with a
  complete list of calls that names others but not this one (`Vacant`), is one negative for every
  user.
* During a migration, evidence about the previous generation is ignored, and users who have not come
  over stay until the deadline. Then they are removed, even if their clients continue to report.

So late, repeated and lost evidence cannot remove an existing connection, unless its client falls
silent, or two statements newer than all its signs agree, or two polls newer than all signs except
its client's. Two correct polls after the last change correct the call. Each `apply` costs O(users
held) for a poll, otherwise O(connections of a user).
"""

from collections.abc import Iterator

import msgspec

from syncbridge.voice.call_records import (
    TRANSITIONS,
    CallChange,
    CallLimits,
    Cause,
    Event,
    MediaConnection,
    Member,
    Phase,
    PhaseChanged,
    Record,
    Statistics,
    UserJoined,
    UserLeft,
    What,
)
from syncbridge.voice.evidence import (
    Doubt,
    Ended,
    Evidence,
    Joined,
    Left,
    Migrated,
    Negative,
    Polled,
    Source,
    Vacant,
    negative_of,
    origin_of,
)
from syncbridge.voice.tombstones import Tombstones

MIGRATION = "migration"


class ChannelCall:
    """The state machine. `created_at` in Unix ms; an earlier time than the latest is raised to it.

    After each `apply` or `expire`, `next_due` is the latest time for the next `expire`.

    Attributes:
        kept_until: an empty call does not end by itself before this time (ms); not stored.
        changes: effects of evidence and deadlines, until the caller takes them; not stored.
    """

    def __init__(self, created_at: int, generation: int = 1, limits: CallLimits | None = None):
        self.limits = limits or CallLimits()
        self.generation = generation
        self.phase = Phase.WAITING
        self.peak = 0
        self.ignored = 0
        self.kept_until = 0
        self.changes: list[CallChange] = []
        self._clock = created_at
        self._deadline: int | None = created_at + self.limits.unjoined_ms
        self._members: dict[str, Member] = {}
        self._tombs = Tombstones(self.limits.tombstones, self.limits.lease_ms)
        self._spent_ms = 0

    @classmethod
    def load(cls, record: Record, limits: CallLimits | None = None) -> "ChannelCall":
        """Load a call from the record that `dump` made. The record must not be used again."""
        call = cls(record.clock, record.generation, limits)
        call.phase, call._deadline = record.phase, record.deadline
        call.peak, call.ignored = record.peak, record.ignored
        call._spent_ms = record.spent_ms
        call._members = record.members
        stones = (record.gone, record.unshown, record.stranded)
        call._tombs = Tombstones(call.limits.tombstones, call.limits.lease_ms, *stones)
        return call

    def dump(self) -> Record:
        """The call as a record, which shares its members with the call. O(users held)."""
        return Record(
            self.generation,
            self.phase,
            self._clock,
            self._deadline,
            self.peak,
            self.ignored,
            self._spent_ms,
            self._members,
            self._tombs.gone,
            self._tombs.unshown,
            self._tombs.stranded,
        )

    @property
    def users(self) -> tuple[str, ...]:
        """The users in the call, in order of joining."""
        return tuple(self._members)

    def since(self, user_id: str) -> int | None:
        """The time (ms) at which a user joined; None if not in the call."""
        member = self._members.get(user_id)
        return member.since if member else None

    def member(self, user_id: str) -> Member | None:
        """The read-only member record of a user; None if not in the call."""
        return self._members.get(user_id)

    @property
    def doubtful(self) -> bool:
        """Whether any connection has a negative, which a second state check would settle."""
        return bool(self.doubted)

    @property
    def doubted(self) -> frozenset[str]:
        """Users with a connection that has a negative."""
        return frozenset(user_id for user_id, c in self._held() if c.doubtful)

    @property
    def second_look_at(self) -> int | None:
        """When (ms) a state check can settle a doubt of a poll; None: at any time, or no doubt."""
        doubts = (doubt for _, one in self._held() for doubt in (one.doubt, one.unshown))
        return min(
            (d.at + d.apart_ms for d in doubts if d is not None and d.apart_ms), default=None
        )

    @property
    def last_seen(self) -> int:
        """The latest sign (ms) of any held connection; 0 for an empty call."""
        return max((connection.seen_at for _, connection in self._held()), default=0)

    @property
    def arrived(self) -> tuple[str, ...]:
        """Users with a connection of this generation: all, except during a migration."""
        return tuple(user_id for user_id in self._members if self._current(user_id))

    @property
    def current_connections(self) -> int:
        """The number of held connections of this generation."""
        return sum(1 for _ in self._leased())

    def unseen_since(self, at: int) -> list[tuple[str, str]]:
        """(user, connection) of this generation without a sign after `at` (ms)."""
        return [(user_id, c.id) for user_id, c in self._leased() if c.seen_at <= at]

    def connections(self, user_id: str) -> tuple[str, ...]:
        """The held connections of a user."""
        member = self._members.get(user_id)
        return tuple(member.connections) if member else ()

    def unreported(self, user_id: str) -> frozenset[str]:
        """Named connections of a user that no client has reported yet."""
        member = self._members.get(user_id)
        held = member.connections.values() if member else ()
        return frozenset(one.id for one in held if one.id and one.lease is None)

    def standing(self, user_id: str) -> frozenset[str]:
        """Connections of a user in this generation without a negative."""
        return frozenset(c.id for c in self._current(user_id) if not c.doubtful)

    def session_full(self, user_id: str) -> bool:
        """Whether the call has no seat for this user. Participants always have a seat."""
        return user_id not in self._members and len(self._members) >= self.limits.max_participants

    def statistics(self, now: int) -> Statistics:
        """Figures as of `now` (ms)."""
        running = sum(max(now - member.since, 0) for member in self._members.values())
        return Statistics(len(self._members), self.peak, self._spent_ms + running, self.ignored)

    @property
    def moving_until(self) -> int | None:
        """Deadline (ms) of the migration under way, or None."""
        return self._deadline if self.phase is Phase.MIGRATING else None

    def next_due(self) -> int | None:
        """The time of the next `expire`, in ms; None after the end. O(connections)."""
        ends = [end for _, c in self._leased() for end in (c.lease, c.until) if end is not None]
        over = self._over_at()
        return min(ends if over is None else [*ends, over], default=None)

    def apply(self, evidence: Evidence, now: int) -> list[Event]:
        """Apply evidence at `now` (ms); returns the changes in order."""
        events = self.expire(now)
        if not self._concerns(evidence):
            self._ignore(evidence, "ended" if self.phase is Phase.ENDED else "other_session")
            return events
        match evidence:
            case Joined():
                events += self._joined(evidence)
            case Left():
                events += self._left(evidence)
            case Polled():
                events += self._polled(evidence)
            case Vacant(at=at, life=life, apart_ms=apart_ms):
                events += self._all_doubted(Negative(Source.POLL, at, life, apart_ms))
            case Ended():
                events += self._end(Cause.END, evidence.reason)
            case Migrated():
                events += self._migrate(evidence.generation)
        return events

    def expire(self, now: int) -> list[Event]:
        """Expire the leases and the deadline that are due at `now` (ms)."""
        self._clock = max(now, self._clock)
        events: list[Event] = []
        made = len(self.changes)
        for user_id, connection in list(self._leased()):
            if connection.until is not None and connection.until <= self._clock:
                events += self._remove(user_id, connection.id, "left", connection.seen_at)
            elif connection.lease is not None and connection.lease <= self._clock:
                events += self._remove(user_id, connection.id, "expired", connection.seen_at)
        over = self._over_at()
        if over is not None and over <= self._clock:
            moving = self.phase is Phase.MIGRATING
            events += self._moved() if moving else self._end(Cause.IDLE, "idle")
        self.changes[made:] = [msgspec.structs.replace(c, due=True) for c in self.changes[made:]]
        return events

    def settle(self, now: int) -> list[Event]:
        """End a migration early if all users, and at least one, have come over.

        Each user needs as many connections as before, so a user's second device is waited for.
        """
        waiting = any(
            2 * len(self._current(user_id)) < len(member.connections)
            for user_id, member in self._members.items()
        )
        if self.phase is not Phase.MIGRATING or waiting or not self._members:
            return []
        self._clock = max(now, self._clock)
        return self._moved()

    def _over_at(self) -> int | None:
        """The deadline; for an empty call, at least `kept_until`."""
        if self._deadline is None or self.phase is Phase.MIGRATING:
            return self._deadline
        return max(self._deadline, self.kept_until)

    def _concerns(self, evidence: Evidence) -> bool:
        if self.phase is Phase.ENDED:
            return False
        if isinstance(evidence, Migrated):
            return evidence.generation > self.generation
        return evidence.generation == self.generation

    def _held(self) -> Iterator[tuple[str, MediaConnection]]:
        for user_id, member in self._members.items():
            for connection in member.connections.values():
                yield user_id, connection

    def _leased(self) -> Iterator[tuple[str, MediaConnection]]:
        """Connections of this generation; those of the previous one wait for the deadline."""
        return (held for held in self._held() if held[1].generation == self.generation)

    def _current(self, user_id: str) -> list[MediaConnection]:
        """Connections of a user in this generation, the only ones that evidence concerns."""
        member = self._members.get(user_id)
        held = member.connections.values() if member else ()
        return [c for c in held if c.generation == self.generation]

    def _joined(self, evidence: Joined) -> list[Event]:
        """Apply a sign of one connection, or of all connections of a user."""
        if evidence.connection_id:
            return self._seen(evidence, evidence.connection_id)
        connections = self._current(evidence.user_id)
        ids = [connection.id for connection in connections] or [""]
        seen = [self._seen(evidence, known) for known in ids]
        for connection in self._current(evidence.user_id):
            connection.user_at = max(connection.user_at, min(evidence.at, self._clock))
        return [event for events in seen for event in events]

    def _seen(self, sign: Joined, connection_id: str) -> list[Event]:
        """Apply a sign of a connection. A connection known to be gone stays gone."""
        user_id, at = sign.user_id, min(sign.at, self._clock)
        refusal = self._refusal(sign, connection_id)
        if refusal:
            return self._ignore(sign, refusal, connection_id)
        noted = len(self.changes)
        events = self._hold(sign, connection_id, at)
        connection = self._members[user_id].connections[connection_id]
        doubtful, leased = connection.doubtful, connection.lease is not None
        self._refresh(connection, sign, at)
        promised = connection.lease is not None and not leased
        if len(self.changes) > noted:
            return events
        if doubtful and not connection.doubtful:
            self._note(What.CLEARED, user_id, connection_id)
        elif promised or sign.source is Source.WEBHOOK:
            self._note(What.CONFIRMED, user_id, connection_id)
        return events

    def _refusal(self, sign: Joined, connection_id: str) -> str:
        """Why a sign is refused; empty if it is accepted."""
        if self._tombs.refuses(sign, connection_id):
            return "gone"
        known = connection_id in self.connections(sign.user_id)
        full = not known and sum(1 for _ in self._held()) >= self.limits.max_connections
        return "full" if full else ""

    def _refresh(self, connection: MediaConnection, sign: Joined, at: int) -> None:
        """Update a connection with an accepted sign."""
        if at >= connection.seen_at:
            connection.seen_at, connection.seen_by = at, origin_of(sign).teller.value
        connection.until = None
        if connection.doubt is not None and connection.doubt.at < at:
            connection.doubt = None
        if sign.source is not Source.CLIENT:
            self._shown(connection, at)
        elif connection.lease is None:
            connection.lease = self._clock + self.limits.lease_ms
        if connection.lease is not None:
            connection.lease = max(connection.seen_at + self.limits.lease_ms, connection.lease)

    def _shown(self, connection: MediaConnection, at: int) -> None:
        """Update a connection with a sign by another source than its client."""
        connection.shown_at = max(connection.shown_at, at)
        if connection.unshown is not None and connection.unshown.at < at:
            connection.unshown = None

    def _hold(self, sign: Joined, connection_id: str, at: int) -> list[Event]:
        """Hold a connection; a connection with an id replaces the unnamed one."""
        user_id = sign.user_id
        member = self._members.get(user_id)
        if member is not None:
            held = member.connections
            known = held.get(connection_id)
            if known is None or known.generation != self.generation:
                unnamed = held.pop("", None) if connection_id else None
                new = self._connection(connection_id, at)
                held[connection_id] = new
                if unnamed is not None:
                    new.seen_at, new.user_at = max(at, unnamed.seen_at), unnamed.user_at
                    new.lease, new.seen_by = unnamed.lease, unnamed.seen_by
                self._note(What.CONNECTED, user_id, connection_id)
            return []
        connection = self._connection(connection_id, at)
        held = {connection_id: connection}
        self._members[user_id] = Member(self._clock, held, origin_of(sign))
        self._note(What.JOINED, user_id, connection_id, since=at)
        self.peak = max(self.peak, len(self._members))
        joined: list[Event] = [UserJoined(user_id)]
        return joined + (self._move(Cause.CAME) if self.phase is not Phase.MIGRATING else [])

    def _connection(self, connection_id: str, at: int) -> MediaConnection:
        return MediaConnection(connection_id, self.generation, at, shown_at=at)

    def _left(self, evidence: Left) -> list[Event]:
        user_id, connection_id = evidence.user_id, evidence.connection_id
        current = self._current(user_id)
        named = [c for c in current if not connection_id or c.id == connection_id]
        if connection_id and evidence.source is not Source.CLIENT:
            repeated = self._tombs.knows(user_id, connection_id)
            self._tombs.bury(user_id, connection_id, evidence.at)
            if named:
                self._survive(user_id, named[0], evidence)
                return self._remove(user_id, connection_id, "left", evidence.at)
            named = [c for c in current if not c.id and not repeated]
            if not named:
                reason = "gone" if repeated else "not_held"
                self._note(What.IGNORED, user_id, connection_id, reason)
                return []
        if len(named) != 1:
            return self._ignore(evidence, "no_proof" if named else "not_held")
        return self._doubted(user_id, named[0], negative_of(evidence))

    def _survive(self, user_id: str, gone: MediaConnection, left: Left) -> None:
        """Keep an unnamed connection for a user with a sign later than the `left`.

        The same, for a short time, for a user whose connection was replaced.
        """
        held = self._members[user_id].connections
        later = gone.user_at > left.at
        if len(held) == 1 and (later or left.replaced):
            held[""] = survivor = self._connection("", gone.user_at if later else gone.seen_at)
            survivor.lease, survivor.user_at = gone.lease, gone.user_at
            survivor.seen_by = gone.seen_by
            survivor.until = None if later else self._clock + self.limits.replaced_ms

    def _polled(self, evidence: Polled) -> list[Event]:
        """Apply a list: a sign for each named connection, a negative for the others."""
        if not evidence.present:
            return self._emptied(evidence)
        events: list[Event] = []
        for user_id, connection_id in evidence.present:
            events += self._joined(
                Joined(
                    generation=evidence.generation,
                    at=evidence.at,
                    source=Source.POLL,
                    user_id=user_id,
                    connection_id=connection_id,
                    origin=evidence.origin,
                )
            )
        named = set(evidence.present)
        whole = {user_id for user_id, connection_id in evidence.present if not connection_id}
        whole.update(evidence.pending)
        told = Negative(Source.POLL, evidence.at, evidence.life, evidence.apart_ms)
        for user_id, connection in list(self._leased()):
            if user_id not in whole and (user_id, connection.id) not in named:
                events += self._doubted(user_id, connection, told)
        return events

    def _emptied(self, evidence: Polled) -> list[Event]:
        """Apply an empty list, which counts only if webhooks gave everybody a negative before."""
        held = list(self._leased())
        if not held or not all(one.doubt and one.doubt.reported(evidence.at) for _, one in held):
            return self._ignore(evidence, "no_proof")
        return self._all_doubted(Negative(Source.POLL, evidence.at))

    def _all_doubted(self, told: Negative) -> list[Event]:
        """Apply a negative to all connections of this generation."""
        doubts = [self._doubted(user_id, one, told) for user_id, one in list(self._leased())]
        return [event for events in doubts for event in events]

    def _doubted(self, user_id: str, connection: MediaConnection, told: Negative) -> list[Event]:
        """Apply a negative; the second independent one removes the connection."""
        before = (connection.doubt, connection.unshown)
        if told.source is Source.POLL and told.at > connection.shown_at:
            if connection.unshown is not None and connection.unshown.settled_by(told):
                return self._unshown(user_id, connection, told.at)
            connection.unshown = self._first(connection.unshown, told)
        newer = told.at > connection.seen_at
        if newer and connection.doubt is not None and connection.doubt.settled_by(told):
            self._tombs.bury(user_id, connection.id, told.at)
            return self._remove(user_id, connection.id, "verified", connection.seen_at)
        if newer:
            connection.doubt = self._first(connection.doubt, told)
        if (connection.doubt, connection.unshown) != before:
            self._note(What.DOUBTED, user_id, connection.id)
        elif told.source is not Source.POLL:
            reason = "repeated" if newer else "older"
            self._note(What.IGNORED, user_id, connection.id, reason)
        return []

    def _first(self, known: Doubt | None, told: Negative) -> Doubt:
        """The doubt of which a later negative must be independent."""
        if known is not None and not known.void(told):
            return known
        return Doubt(told.source, told.at, self._clock, told.life, told.apart_ms, told.teller)

    def _unshown(self, user_id: str, connection: MediaConnection, at: int) -> list[Event]:
        """Remove a connection that two polls did not show, the second one at `at`."""
        self._tombs.unshow(user_id, connection.id, at)
        events = self._remove(user_id, connection.id, "verified", connection.shown_at)
        if user_id not in self._members:
            self._tombs.doubt(user_id, self._clock)
        return events

    def _remove(
        self, user_id: str, connection_id: str, reason: str, since: int | None = None
    ) -> list[Event]:
        """Remove a connection, and the user with the last one. `since`: as for `_note`."""
        member = self._members[user_id]
        connection = member.connections.pop(connection_id)
        member.until = max(member.until, self._vouched(connection, reason, since))
        what = What.DISCONNECTED if member.connections else What.LEFT
        self._note(what, user_id, connection_id, reason, since)
        if member.connections:
            return []
        del self._members[user_id]
        self._spent_ms += max(min(member.until, self._clock) - member.since, 0)
        left: list[Event] = [UserLeft(user_id, reason)]
        empty = not self._members and self.phase is Phase.ACTIVE
        return left + (self._move(Cause.WENT) if empty else [])

    def _vouched(self, connection: MediaConnection, reason: str, since: int | None) -> int:
        """The latest time (ms) at which a removed connection is known to have existed.

        When the call is ended, that is now for a connection without a negative.
        """
        if since is not None:
            return since
        unknown = connection.doubtful or reason == MIGRATION
        return connection.seen_at if unknown else self._clock

    def _note(
        self,
        what: What,
        user_id: str,
        connection_id: str,
        reason: str = "",
        since: int | None = None,
    ) -> None:
        """Note a change. `since`: the earliest time (ms) at which it may have happened."""
        wrong_ms = 0 if since is None else max(self._clock - since, 0)
        self.changes.append(CallChange(what, user_id, connection_id, reason, wrong_ms))

    def _ignore(self, evidence: Evidence, reason: str, connection_id: str = "") -> list[Event]:
        """Note evidence without an effect."""
        self.ignored += 1
        user_id = ""
        if isinstance(evidence, Joined | Left):
            user_id = evidence.user_id
            connection_id = connection_id or evidence.connection_id
        self._note(What.IGNORED, user_id, connection_id, reason)
        return []

    def _migrate(self, generation: int) -> list[Event]:
        self.generation = generation
        self._tombs.migrated()
        return self._move(Cause.MIGRATE)

    def _moved(self) -> list[Event]:
        """End the migration: remove connections of previous generations."""
        events: list[Event] = []
        for user_id, connection in list(self._held()):
            if connection.generation != self.generation:
                left = self._remove(user_id, connection.id, MIGRATION)
                self._tombs.strand(user_id, connection.id, self._clock, whole=bool(left))
                events += left
        return events + self._move(Cause.MOVED if self._members else Cause.STRANDED)

    def _end(self, cause: Cause, reason: str) -> list[Event]:
        events = self._move(cause)
        for user_id, connection in list(self._held()):
            events += self._remove(user_id, connection.id, reason)
        return events

    def _move(self, cause: Cause) -> list[Event]:
        """Move as TRANSITIONS says; a cause that is not listed for the phase has no effect."""
        phase = TRANSITIONS.get((self.phase, cause))
        if phase is None:
            return []
        self.phase = phase
        waits = {Phase.EMPTY: self.limits.empty_ms, Phase.MIGRATING: self.limits.migration_ms}
        self._deadline = self._clock + waits[phase] if phase in waits else None
        return [PhaseChanged(phase, cause, self.generation)]
