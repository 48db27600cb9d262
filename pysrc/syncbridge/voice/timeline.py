"""The timeline of a channel: statements about its calls, their origins and their effects.

Theory of operation. Each change of a channel notes its effects here, and the script that writes the
change also writes the entries. A sign without new information makes no entry; the latest sign and
its source are stored with the connection. Ignored evidence is noted too, because it explains why a
user is not shown. If a client or a list repeats it, it is noted once in `IGNORED_MS`.

Times are Unix ms.
"""

from collections.abc import Iterable

import msgspec

from syncbridge.voice.announcements import Message
from syncbridge.voice.call_records import CallChange, What
from syncbridge.voice.evidence import Evidence, EvidenceOrigin, Teller, origin_of
from syncbridge.voice.records import ChannelRecord

MOST_AT_ONCE = 256
"""Maximum number of entries about users in one change; further ones are only counted."""
IGNORED_MS = 600_000
"""Time for which repeated ignored evidence about a user makes no entry."""
IGNORED_MOST = 64
"""Maximum number of users for whom that is remembered; the oldest is dropped."""
REF_MOST = 128
TIMEOUT = EvidenceOrigin(Teller.TIMEOUT)

OPENED = "opened"
TOKEN = "token"  # noqa: S105
HOLDS = "holds"
MOVING = "moving"
RELEASED = "released"
MIGRATING = "migrating"
MIGRATED = "migrated"
UNKNOWN_ROOM = "unknown_room"
ENDED = "ended"
FOLDED = "folded"
SENT_AWAY = "sent_away"


class TimelineEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One statement and its effect.

    Attributes:
        at: time at which it took effect. said_at: time at which it was true, if different.
        source: its origin. what: its effect: a `What`, or one of the constants above.
        ref: id of the webhook, the device or the operator; for a room, its session.
        reason: why, in one word; see `CallChange`.
        wrong_ms: the longest time for which the opposite was shown. count: folded entries.
    """

    at: int
    source: Teller
    what: str
    user_id: str = ""
    connection_id: str = ""
    reason: str = ""
    ref: str = ""
    said_at: int = 0
    generation: int = 0
    wrong_ms: int = 0
    count: int = 0


class Timeline:
    """The entries of one change of a channel. Updates `ignored` of its record."""

    def __init__(self, record: ChannelRecord) -> None:
        self._record = record
        self._entries: list[TimelineEntry] = []
        self._folded = 0

    @property
    def entries(self) -> list[TimelineEntry]:
        """The entries in order, with the number of folded entries at the end."""
        if not self._folded:
            return self._entries
        last = self._entries[-1]
        return [*self._entries, TimelineEntry(last.at, last.source, FOLDED, count=self._folded)]

    def note(
        self,
        origin: EvidenceOrigin,
        what: str,
        now: int,
        *,
        user_id: str = "",
        connection_id: str = "",
        reason: str = "",
        ref: str = "",
        said_at: int = 0,
        wrong_ms: int = 0,
    ) -> None:
        """Add an entry. An empty `ref` defaults to the origin's."""
        if user_id and len(self._entries) >= MOST_AT_ONCE:
            self._folded += 1
            return
        entry = TimelineEntry(
            now,
            origin.teller,
            what,
            user_id,
            connection_id,
            reason,
            (ref or origin.ref)[:REF_MOST],
            said_at,
            self._record.generation,
            wrong_ms,
        )
        self._entries.append(entry)

    def changed(self, changes: list[CallChange], evidence: Evidence | None, now: int) -> None:
        """Take a call's changes by a statement, or by a deadline if there is none."""
        origin = origin_of(evidence) if evidence is not None else TIMEOUT
        for change in changes:
            by = TIMEOUT if change.due else origin
            if change.what is What.IGNORED and self._known(change, by, now):
                continue
            said_at = evidence.at if evidence is not None and not change.due else now
            self.note(
                by,
                change.what.value,
                now,
                user_id=change.user_id,
                connection_id=change.connection_id,
                reason=change.reason,
                said_at=said_at if said_at != now else 0,
                wrong_ms=self._wrong_ms(change, by, now),
            )
        changes.clear()

    def devices(self, messages: Iterable[Message], origin: EvidenceOrigin, now: int) -> None:
        """Note which devices hold the call, from the messages to devices."""
        words = {"held": HOLDS, "moving": MOVING, "released": RELEASED}
        for message in messages:
            if "deviceId" in message:
                what, user_id = words[message["state"]], message["userId"]
                reason = message.get("reason", "")
                self.note(
                    origin, what, now, user_id=user_id, reason=reason, ref=message["deviceId"]
                )

    def _wrong_ms(self, change: CallChange, by: EvidenceOrigin, now: int) -> int:
        """The longest wrong time; a join found by a list may date back to the previous check."""
        if change.what is not What.JOINED or by.teller is not Teller.LIST:
            return change.wrong_ms
        return max(now - max(self._record.last_sync_at, self._record.created_at), 0)

    def _known(self, change: CallChange, by: EvidenceOrigin, now: int) -> bool:
        """Whether ignored evidence about this user was noted recently; updates the record."""
        if by.teller is Teller.WEBHOOK:
            return False
        ignored = self._record.ignored
        before = ignored.pop(change.user_id, None)
        known = before is not None and now - before < IGNORED_MS
        ignored[change.user_id] = before if known and before is not None else now
        while len(ignored) > IGNORED_MOST:
            del ignored[next(iter(ignored))]
        return known


MISSED_JOIN = "missed_join"
MISSED_LEAVE = "missed_leave"
SILENT_CLIENT = "silent_client"
CAUSES = (MISSED_JOIN, MISSED_LEAVE, SILENT_CLIENT)
"""Causes of repairs."""


def repair_of(entry: TimelineEntry) -> str:
    """The cause of a repair; empty for an entry that is not a repair."""
    if entry.source is Teller.LIST and entry.what == What.JOINED:
        return MISSED_JOIN
    if entry.what != What.LEFT:
        return ""
    if entry.source is Teller.LIST and entry.reason in ("verified", "left"):
        return MISSED_LEAVE
    due = entry.source is Teller.TIMEOUT
    return SILENT_CLIENT if due and entry.reason == "expired" else ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TimelineEntry)


def encode_entry(entry: TimelineEntry) -> bytes:
    """An entry as bytes."""
    return _encoder.encode(entry)


def decode_entry(stored: bytes) -> TimelineEntry:
    """The entry that was stored. Raises msgspec.DecodeError for anything else."""
    return _decoder.decode(stored)
