"""Data types of a call: phases, bounds, members, changes and the stored record.

The rules are in `call`. Times are Unix ms.
"""

from enum import StrEnum

import msgspec

from syncbridge.voice.evidence import Doubt, EvidenceOrigin
from syncbridge.voice.tombstones import Stone


class Phase(StrEnum):
    """The phase of a call."""

    WAITING = "waiting"
    ACTIVE = "active"
    EMPTY = "empty"
    MIGRATING = "migrating"
    ENDED = "ended"


class Cause(StrEnum):
    """The cause of a transition between phases."""

    CAME = "somebody is there"
    WENT = "the last one is gone"
    MIGRATE = "migration asked for"
    MOVED = "migration over, somebody came"
    STRANDED = "migration over, nobody came"
    IDLE = "idle deadline"
    END = "ended"


TRANSITIONS: dict[tuple[Phase, Cause], Phase] = {
    (Phase.WAITING, Cause.CAME): Phase.ACTIVE,
    (Phase.WAITING, Cause.MIGRATE): Phase.MIGRATING,
    (Phase.WAITING, Cause.IDLE): Phase.ENDED,
    (Phase.WAITING, Cause.END): Phase.ENDED,
    (Phase.ACTIVE, Cause.WENT): Phase.EMPTY,
    (Phase.ACTIVE, Cause.MIGRATE): Phase.MIGRATING,
    (Phase.ACTIVE, Cause.END): Phase.ENDED,
    (Phase.EMPTY, Cause.CAME): Phase.ACTIVE,
    (Phase.EMPTY, Cause.MIGRATE): Phase.MIGRATING,
    (Phase.EMPTY, Cause.IDLE): Phase.ENDED,
    (Phase.EMPTY, Cause.END): Phase.ENDED,
    (Phase.MIGRATING, Cause.MOVED): Phase.ACTIVE,
    (Phase.MIGRATING, Cause.STRANDED): Phase.EMPTY,
    (Phase.MIGRATING, Cause.MIGRATE): Phase.MIGRATING,
    (Phase.MIGRATING, Cause.END): Phase.ENDED,
}
"""(phase, cause) -> phase. Other pairs have no transition; ENDED is final."""


class CallLimits(msgspec.Struct, frozen=True):
    """Bounds of a call. Times in ms. `tombstones`: maximum of kept ids of gone connections.

    `max_participants` limits admission (`session_full`). Users who are in the call anyway are held,
    up to `max_connections` in total.
    """

    max_participants: int = 100
    unjoined_ms: int = 15 * 60_000
    empty_ms: int = 5 * 60_000
    migration_ms: int = 30_000
    lease_ms: int = 120_000
    replaced_ms: int = 5_000
    tombstones: int = 512
    max_connections: int = 4096


class UserJoined(msgspec.Struct, frozen=True):
    """A user joined the call."""

    user_id: str


class UserLeft(msgspec.Struct, frozen=True):
    """A user has no connection left. `reason`: left, verified, expired, migration, ended."""

    user_id: str
    reason: str


class PhaseChanged(msgspec.Struct, frozen=True):
    """The call entered a phase. `generation`: of its current room."""

    phase: Phase
    cause: Cause
    generation: int


Event = UserJoined | UserLeft | PhaseChanged


class What(StrEnum):
    """The effect of a statement or a deadline."""

    JOINED = "joined"
    CONNECTED = "connected"
    CONFIRMED = "confirmed"
    CLEARED = "cleared"
    DOUBTED = "doubted"
    DISCONNECTED = "disconnected"
    LEFT = "left"
    IGNORED = "ignored"


class CallChange(msgspec.Struct, frozen=True):
    """The effect of one statement on one connection.

    Attributes:
        reason: for a removed connection as for `UserLeft`; for ignored evidence: gone, full,
            not_held, other_session, ended, no_proof, older, repeated.
        wrong_ms: the longest time for which the opposite was shown, since its last sign.
        due: the effect is that of a deadline.
    """

    what: What
    user_id: str = ""
    connection_id: str = ""
    reason: str = ""
    wrong_ms: int = 0
    due: bool = False


class MediaConnection(msgspec.Struct, omit_defaults=True):
    """A held connection. Empty id: an unnamed connection of the user. Times in ms.

    Attributes:
        user_at: latest sign of its user without a connection id.
        shown_at: latest sign by another source than its client, or the first sign.
        unshown: the first poll since then that did not show it.
        until: end of a placeholder for a connection that is about to be reported.
        seen_by: the source of `seen_at`, a `Teller`.
    """

    id: str
    generation: int
    seen_at: int
    doubt: Doubt | None = None
    lease: int | None = None
    user_at: int = 0
    shown_at: int = 0
    unshown: Doubt | None = None
    until: int | None = None
    seen_by: str = ""

    @property
    def doubtful(self) -> bool:
        """Whether it has a negative."""
        return self.doubt is not None or self.unshown is not None


class Member(msgspec.Struct, omit_defaults=True):
    """A user in the call since `since` (ms), first reported by `by`.

    `until`: latest time (ms) at which a removed connection is known to have existed; 0: none.
    """

    since: int
    connections: dict[str, MediaConnection]
    by: EvidenceOrigin | None = None
    until: int = 0


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored call. `gone`, `unshown`, `stranded`: its tombstones, oldest first."""

    generation: int
    phase: Phase
    clock: int
    deadline: int | None = None
    peak: int = 0
    ignored: int = 0
    spent_ms: int = 0
    members: dict[str, Member] = {}
    gone: tuple[Stone, ...] = ()
    unshown: tuple[Stone, ...] = ()
    stranded: tuple[Stone, ...] = ()


class Statistics(msgspec.Struct, frozen=True):
    """Figures of a call. `total_ms`: sum of all participants' times."""

    participants: int
    peak: int
    total_ms: int
    ignored: int
