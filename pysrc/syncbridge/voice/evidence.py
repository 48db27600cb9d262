"""What is said about a call, by whom: the only input of the state machine in `call`.

`at` is when it was true, in Unix ms as we count them (a webhook's own time if it has one, else the
time of its arrival); it may lie in the past when `apply` gets it. `generation` numbers the sessions
that a channel has had at the provider; evidence about another one than the call's is ignored.
"""

from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Who says it. Two sources are independent of each other."""

    WEBHOOK = "webhook"
    CLIENT = "client"
    POLL = "poll"


class Teller(StrEnum):
    """Where a statement, or a change, comes from: more exactly than what `Source` sets apart.

    LIST: what the provider answers when it is asked who is there; PROVIDER: when it is asked to do
    something. OPERATOR: a service or an admin. TIMEOUT: a deadline of ours.
    """

    WEBHOOK = "webhook"
    REPORT = "report"
    LIST = "list"
    TOKEN = "token"  # noqa: S105
    TIMEOUT = "timeout"
    OPERATOR = "operator"
    PROVIDER = "provider"


class EvidenceOrigin(msgspec.Struct, frozen=True, array_like=True):
    """Who says something. `ref`: the id of the webhook, the device that reports, the operator."""

    teller: Teller
    ref: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was said about one generation of a call. `origin`: for the record alone."""

    generation: int
    at: int
    origin: EvidenceOrigin | None = None


class Joined(Evidence, frozen=True):
    """A connection of a user is there. Empty `connection_id`: some connection of that user.

    `session_named`: it was said of this generation's session by its name, not by default.
    """

    source: Source
    user_id: str
    connection_id: str = ""
    session_named: bool = False


class Left(Evidence, frozen=True):
    """A connection of a user is not there.

    From the provider with a `connection_id` it is proof: these ids never come back. Otherwise it is
    one negative. Without an id it speaks of a user who has one connection, and of nobody else; with
    an id that nobody has heard of, of the user's connection that has none. `replaced`: by another
    connection of the same device, which is about to be told of.
    """

    source: Source
    user_id: str
    connection_id: str = ""
    replaced: bool = False


class Negative(msgspec.Struct, frozen=True):
    """One word against a connection: who said it, and when it was true.

    Of a poll also: in which life of the provider, if that is known, and how much later than the
    first one (ms) it has to be to be independent of it.
    """

    source: Source
    at: int
    life: str = ""
    apart_ms: int = 0


class Doubt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A negative that was applied, and when. `apart_ms`: as of `Negative`."""

    source: Source
    at: int
    applied_at: int
    life: str = ""
    apart_ms: int = 0

    def settled_by(self, later: Negative) -> bool:
        """Whether a later negative is independent of this one: so both together are proof."""
        if later.source is not self.source:
            return True
        apart = later.at > self.applied_at and later.at - self.at >= later.apart_ms
        return later.source is Source.POLL and apart and later.life == self.life

    def void(self, later: Negative) -> bool:
        """Whether it is from another life of the provider than a later one: that is the first."""
        both = later.source is self.source is Source.POLL
        return both and later.life != self.life

    def reported(self, before: int) -> bool:
        """Whether it came by a webhook, and was applied before that time."""
        return self.source is Source.WEBHOOK and self.applied_at < before


class Polled(Evidence, frozen=True):
    """A whole list of `(user_id, connection_id)`; `at` is when the request *began*.

    Empty it says nothing by itself; it agrees with webhooks that, before it began, have taken out
    everybody. A list that failed or was cut short is no evidence: do not apply it. `pending`: users
    of whom it says nothing. `life`, `apart_ms`: as of `Negative`.
    """

    present: tuple[tuple[str, str], ...]
    pending: tuple[str, ...] = ()
    life: str = ""
    apart_ms: int = 0


class Vacant(Evidence, frozen=True):
    """The provider says that nobody is in this call any more, and its word is worth a negative.

    Where an empty state alone says nothing (`Polled`), a whole list of calls under way, which names
    others, does not name this one, either. One negative for every connection; `at` is when the
    first of the requests began. `life`, `apart_ms`: as of `Negative`.
    """

    life: str = ""
    apart_ms: int = 0


class Ended(Evidence, frozen=True):
    """The provider, or we, ended this generation."""

    reason: str = "ended"


class Migrated(Evidence, frozen=True):
    """Participants are asked to move on to `generation`, which is newer than the call's."""


_TELLERS = {
    Source.WEBHOOK: EvidenceOrigin(Teller.WEBHOOK),
    Source.CLIENT: EvidenceOrigin(Teller.REPORT),
    Source.POLL: EvidenceOrigin(Teller.LIST),
}
_OURS = EvidenceOrigin(Teller.PROVIDER)


def told_by(source: Source) -> Teller:
    """Who a source is, where nobody says it more exactly."""
    return _TELLERS[source].teller


def origin_of(evidence: Evidence) -> EvidenceOrigin:
    """Who says it."""
    if evidence.origin is not None:
        return evidence.origin
    if isinstance(evidence, Joined | Left):
        return _TELLERS[evidence.source]
    return _TELLERS[Source.POLL] if isinstance(evidence, Polled | Vacant) else _OURS
