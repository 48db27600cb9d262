"""Evidence about a call and its source: the only input of the state machine in `call`.

`at` is the time at which it was true, in Unix ms of our clock (a webhook's own time if it has one,
otherwise its arrival). It may be in the past when `apply` gets it. `generation` numbers a channel's
sessions at the provider; evidence about another generation than the call's is ignored.
"""

from enum import StrEnum

import msgspec


class Source(StrEnum):
    """The source of evidence. Different sources are independent."""

    WEBHOOK = "webhook"
    CLIENT = "client"
    POLL = "poll"


class Teller(StrEnum):
    """The origin of a statement or change, in more detail than `Source`.

    LIST: the provider's answer to a poll. PROVIDER: its answer to another request. OPERATOR: a
    service or an admin. TIMEOUT: a deadline of ours.
    """

    WEBHOOK = "webhook"
    REPORT = "report"
    LIST = "list"
    TOKEN = "token"  # noqa: S105
    TIMEOUT = "timeout"
    OPERATOR = "operator"
    PROVIDER = "provider"


class EvidenceOrigin(msgspec.Struct, frozen=True, array_like=True):
    """The origin of a statement. `ref`: id of the webhook, the reporting device or the operator."""

    teller: Teller
    ref: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A statement about one generation of a call. `origin`: only for the timeline."""

    generation: int
    at: int
    origin: EvidenceOrigin | None = None


class Joined(Evidence, frozen=True):
    """A connection of a user exists. Empty `connection_id`: some connection of that user.

    `session_named`: the statement names this generation's session.
    """

    source: Source
    user_id: str
    connection_id: str = ""
    session_named: bool = False


class Left(Evidence, frozen=True):
    """A connection of a user does not exist.

    From the provider with a `connection_id`, it is proof, because these ids are never reused.
    Otherwise it is one negative. Without an id, it concerns only a user with one connection; with
    an unknown id, it concerns the user's unnamed connection. `replaced`: another connection of the
    same device replaced it and is about to be reported.
    """

    source: Source
    user_id: str
    connection_id: str = ""
    replaced: bool = False


class Negative(msgspec.Struct, frozen=True):
    """One statement against a connection: its source and the time at which it was true.

    For a poll, `life` identifies the run of the provider, if known, and `apart_ms` is the minimum
    distance to the first negative for independence. `teller`: if not the default of the source.
    """

    source: Source
    at: int
    life: str = ""
    apart_ms: int = 0
    teller: Teller | None = None


class Doubt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A negative and the time at which it was applied. `apart_ms`, `teller`: as for `Negative`."""

    source: Source
    at: int
    applied_at: int
    life: str = ""
    apart_ms: int = 0
    teller: Teller | None = None

    def settled_by(self, later: Negative) -> bool:
        """Whether a later negative is independent of this one, so that both are proof."""
        if later.source is not self.source:
            return True
        apart = later.at > self.applied_at and later.at - self.at >= later.apart_ms
        return later.source is Source.POLL and apart and later.life == self.life

    def void(self, later: Negative) -> bool:
        """Whether a later negative is from another run of the provider and replaces this one."""
        both = later.source is self.source is Source.POLL
        return both and later.life != self.life

    def reported(self, before: int) -> bool:
        """Whether it came by a webhook and was applied before a time."""
        return self.source is Source.WEBHOOK and self.applied_at < before


class Polled(Evidence, frozen=True):
    """A complete list of `(user_id, connection_id)`; `at` is the *start* of the request.

    An empty list is no evidence by itself; it confirms webhooks that removed everybody before it
    began. A failed or truncated list is no evidence and must not be applied. `pending`: users about
    whom it says nothing. `life`, `apart_ms`: as for `Negative`.
    """

    present: tuple[tuple[str, str], ...]
    pending: tuple[str, ...] = ()
    life: str = ""
    apart_ms: int = 0


class Vacant(Evidence, frozen=True):
    """The provider reports an empty call in a way that counts as one negative for each connection.

    If an empty state alone is no evidence (`Polled`), a complete list of active calls that names
    others but not this one has confirmed it. `at` is the start of the first of these requests.
    `life`, `apart_ms`: as for `Negative`.
    """

    life: str = ""
    apart_ms: int = 0


class Ended(Evidence, frozen=True):
    """The provider or SyncBridge ended this generation."""

    reason: str = "ended"


class Migrated(Evidence, frozen=True):
    """Participants are asked to move to `generation`, which is newer than the call's."""


_TELLERS = {
    Source.WEBHOOK: EvidenceOrigin(Teller.WEBHOOK),
    Source.CLIENT: EvidenceOrigin(Teller.REPORT),
    Source.POLL: EvidenceOrigin(Teller.LIST),
}
_OURS = EvidenceOrigin(Teller.PROVIDER)


def told_by(doubt: Doubt) -> Teller:
    """Who spoke against a connection."""
    return doubt.teller or _TELLERS[doubt.source].teller


def negative_of(left: Left) -> Negative:
    """A `left` that is no proof, as a negative."""
    by = origin_of(left)
    teller = None if by.teller is _TELLERS[left.source].teller else by.teller
    return Negative(left.source, left.at, teller=teller)


def origin_of(evidence: Evidence) -> EvidenceOrigin:
    """The origin of evidence, or the default of its source."""
    if evidence.origin is not None:
        return evidence.origin
    if isinstance(evidence, Joined | Left):
        return _TELLERS[evidence.source]
    return _TELLERS[Source.POLL] if isinstance(evidence, Polled | Vacant) else _OURS
