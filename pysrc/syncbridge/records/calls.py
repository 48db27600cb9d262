"""Answers of the store about call sessions. Times are Unix ms, those of the store's own clock."""

from enum import Enum

import msgspec

from syncbridge.calls import Call, CallState, Position


class CallResult(Enum):
    """How a request about a call ended."""

    DONE = "done"
    UNCHANGED = "unchanged"
    """It was so already: the same creation again, or the state that the call has."""
    EXISTS = "exists"
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    """The state does not follow the one that the call has."""
    TOO_LARGE = "too_large"
    CHANGED = "changed"
    """The call has not the entity tag that the request is for."""
    LATE = "late"
    """The current state of the call does not allow the event."""


class CallReply(msgspec.Struct):
    """The result of a request.

    Attributes:
        call: as it is now; None for NOT_FOUND and TOO_LARGE. Of a deletion: as it was.
        previous: state before a change of state.
    """

    result: CallResult
    call: Call | None = None
    previous: CallState | None = None


class LedgerPart(msgspec.Struct):
    """Records of one part of the ledger after a number.

    Attributes:
        last: number of its newest record, 0 before the first one.
        records: number and call of each, in order; None for one that cannot be read.
        before: digest of the record with the number after which they are; empty if it is not kept.
        end: digest of the last of `records`; empty without any.
    """

    last: int
    records: list[tuple[int, Call | None]]
    before: str = ""
    end: str = ""


class CallPage(msgspec.Struct):
    """Calls, newest first. `following`: where the next page begins; None on the last one.

    `damaged`: how much could not be read and is left out.
    """

    calls: list[Call]
    following: Position | None = None
    damaged: int = 0
