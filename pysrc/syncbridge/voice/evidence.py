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


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was said about one generation of a call."""

    generation: int
    at: int


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
    an id that nobody has heard of, of the user's connection that has none.
    """

    source: Source
    user_id: str
    connection_id: str = ""


class Doubt(msgspec.Struct, frozen=True):
    """One negative: who said it, when it was true, when it was applied."""

    source: Source
    at: int
    applied_at: int

    def settled_by(self, source: Source, at: int) -> bool:
        """Whether a later negative is independent of this one: so both together are proof."""
        later_poll = source is Source.POLL and at > self.applied_at
        return source is not self.source or later_poll

    def reported(self, before: int) -> bool:
        """Whether it came by a webhook, and was applied before that time."""
        return self.source is Source.WEBHOOK and self.applied_at < before


class Polled(Evidence, frozen=True):
    """A whole list of `(user_id, connection_id)`; `at` is when the request *began*.

    Empty it says nothing by itself; it agrees with webhooks that, before it began, have taken out
    everybody. A list that failed or was cut short is no evidence: do not apply it.
    """

    present: tuple[tuple[str, str], ...]


class Vacant(Evidence, frozen=True):
    """Two statements of the provider that agree: nobody is in this call any more.

    Its state says "nobody", which alone says nothing (`Polled`), and a whole list of calls under
    way, which names others, does not name this one. One negative for every connection; `at` is
    when the first of the two requests began.
    """


class Ended(Evidence, frozen=True):
    """The provider, or we, ended this generation."""

    reason: str = "ended"


class Migrated(Evidence, frozen=True):
    """Participants are asked to move on to `generation`, which is newer than the call's."""
