"""What a call is made of: its phases, its bounds, who is held, what changes, and how it is stored.

The rules are in `call`. Times are Unix ms.
"""

from enum import StrEnum

import msgspec

from syncbridge.voice.evidence import Doubt, EvidenceOrigin
from syncbridge.voice.tombstones import Stone


class Phase(StrEnum):
    """How far a call is."""

    WAITING = "waiting"
    ACTIVE = "active"
    EMPTY = "empty"
    MIGRATING = "migrating"
    ENDED = "ended"


class Cause(StrEnum):
    """What moves a call from one phase to the next."""

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
"""(phase, cause) -> phase. What is not listed does not happen; nothing follows ENDED."""


class CallLimits(msgspec.Struct, frozen=True):
    """Bounds of a call. Times in ms. `tombstones`: ids of gone connections that are kept.

    `max_participants` is for admission (`session_full`); who is there all the same is held, up to
    `max_connections` in all.
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
    """A user is in the call who was not."""

    user_id: str


class UserLeft(msgspec.Struct, frozen=True):
    """A user has no connection any more. `reason`: left, verified, expired, migration, ended."""

    user_id: str
    reason: str


class PhaseChanged(msgspec.Struct, frozen=True):
    """The call came into a phase; `cause` says why, `generation` where it is now."""

    phase: Phase
    cause: Cause
    generation: int


Event = UserJoined | UserLeft | PhaseChanged


class What(StrEnum):
    """What became of a statement, or of a deadline."""

    JOINED = "joined"
    CONNECTED = "connected"
    CONFIRMED = "confirmed"
    CLEARED = "cleared"
    DOUBTED = "doubted"
    DISCONNECTED = "disconnected"
    LEFT = "left"
    IGNORED = "ignored"


class CallChange(msgspec.Struct, frozen=True):
    """What one statement did about one connection.

    Attributes:
        reason: of a connection that goes as of `UserLeft`; of what is ignored: gone, full,
            not_held, other_session, ended, no_proof.
        wrong_ms: how long at most the opposite was shown: since the last sign of it.
        due: a deadline did it, and nobody's statement.
    """

    what: What
    user_id: str = ""
    connection_id: str = ""
    reason: str = ""
    wrong_ms: int = 0
    due: bool = False


class MediaConnection(msgspec.Struct, omit_defaults=True):
    """A connection that is held. Empty id: some connection of that user. Times in ms.

    `user_at`: when its user was last known to be there, by a sign that named no connection.
    `shown_at`: when anybody but its client last showed it, or when it was first heard of.
    `unshown`: the first poll since then that did not show it. `until`: it is held for who is about
    to be told of, no longer. `seen_by`: whose sign `seen_at` is, a `Teller`.
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
        """Whether something speaks against it."""
        return self.doubt is not None or self.unshown is not None


class Member(msgspec.Struct, omit_defaults=True):
    """A user in the call, since `since` ms, by the word of `by`.

    `until`: how long (ms) connections that are gone were vouched for; 0: none is.
    """

    since: int
    connections: dict[str, MediaConnection]
    by: EvidenceOrigin | None = None
    until: int = 0


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call as it is stored. `gone`, `unshown`, `stranded`: its tombstones, oldest first."""

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
    """Figures of a call. `total_ms`: time of all participants together."""

    participants: int
    peak: int
    total_ms: int
    ignored: int
