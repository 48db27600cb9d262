"""What the server asks the store about call sessions.

Each write is one atomic script. Times are Unix ms, those of the store's own clock. Every method
raises StoreError as `syncbridge_server.ports.store` says.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from syncbridge.call_rules.events import EventKind
from syncbridge.call_rules.listing import CallFilter
from syncbridge.calls import Call, CallState, NewCall, Position
from syncbridge.records.calls import CallPage, CallReply, LedgerPart


class Calls(Protocol):
    """The call sessions."""

    def create(
        self, call_id: str, call: NewCall, by: str, request_key: str
    ) -> Awaitable[CallReply]:
        """DONE, UNCHANGED (same `by`, `request_key` and call before), EXISTS.

        An empty `request_key` fits no other creation.
        """

    def read(self, call_id: str) -> Awaitable[Call | None]:
        """The call, or None."""

    def read_deleted(self, call_id: str) -> Awaitable[list[Call]]:
        """The calls of this id that were deleted, without their details, the latest first.

        They are kept for as long as the call itself would have been, at most `PAST_CALLS`.
        """

    def set_state(
        self, call_id: str, state: CallState, by: str, cause: str = "", tag: str = ""
    ) -> Awaitable[CallReply]:
        """DONE, UNCHANGED, NOT_FOUND, REFUSED (as `syncbridge.calls.FOLLOWERS` says), CHANGED."""

    def note_event(
        self, call_id: str, kind: EventKind, value: str, by: str, request_key: str, tag: str
    ) -> Awaitable[CallReply]:
        """DONE, UNCHANGED (`request_key` was met with the same event), NOT_FOUND, LATE, CHANGED.

        LATE: it does not fit, as `syncbridge.call_rules.events.RULES` says, or there are too many.
        """

    def beat(self, call_id: str) -> Awaitable[CallReply]:
        """Begin the call's lease, or renew it: DONE, NOT_FOUND, REFUSED (it has ended)."""

    def merge_details(
        self, call_id: str, details: Sequence[bytes], tag: str = ""
    ) -> Awaitable[CallReply]:
        """Set these, take those away that are null, and keep the others.

        DONE, NOT_FOUND, CHANGED, TOO_LARGE (nothing was set).
        """

    def delete(self, call_id: str, by: str, tag: str = "") -> Awaitable[CallReply]:
        """DONE, NOT_FOUND, CHANGED."""

    def page(self, limit: int, after: Position | None, wanted: CallFilter) -> Awaitable[CallPage]:
        """At most `limit` of the calls after a position that the filter is for."""


class Ledger(Protocol):
    """Ended calls, for billing, and calls that are due to end."""

    parts: int
    """Each has its own numbers."""

    def read(self, after: Sequence[int | None], each: int) -> Awaitable[list[LedgerPart]]:
        """At most `each` records of every part after a number; None: from the oldest on."""

    def sweep(self) -> Awaitable[list[CallReply]]:
        """End the calls whose time has come, and drop records that are old; what was ended."""
