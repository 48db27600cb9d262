"""What the server asks the store about call sessions.

Each write is one atomic script. Times are Unix ms, those of the store's own clock. Every method
raises StoreError as `syncbridge_server.ports.store` says.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from syncbridge.calls import Call, CallState, CallType, Position
from syncbridge.records.calls import CallPage, CallReply


class Calls(Protocol):
    """The call sessions."""

    def create(
        self, call_id: str, call_type: CallType, details: Sequence[bytes], by: str, request_key: str
    ) -> Awaitable[CallReply]:
        """DONE, UNCHANGED (same `by`, `request_key`, type and details before), EXISTS.

        An empty `request_key` fits no other creation.
        """

    def read(self, call_id: str) -> Awaitable[Call | None]:
        """The call, or None."""

    def read_deleted(self, call_id: str) -> Awaitable[Call | None]:
        """The call of this id that was deleted last, without its details, or None.

        It is kept for as long as the call itself would have been.
        """

    def set_state(self, call_id: str, state: CallState, by: str) -> Awaitable[CallReply]:
        """DONE, UNCHANGED, NOT_FOUND, REFUSED: as `syncbridge.calls.FOLLOWERS` says."""

    def merge_details(self, call_id: str, details: Sequence[bytes]) -> Awaitable[CallReply]:
        """Set these and keep the others: DONE, NOT_FOUND, TOO_LARGE (nothing was set)."""

    def delete(self, call_id: str, by: str) -> Awaitable[CallReply]:
        """DONE, NOT_FOUND."""

    def page(
        self,
        limit: int,
        after: Position | None,
        state: CallState | None,
        call_type: CallType | None,
    ) -> Awaitable[CallPage]:
        """At most `limit` calls after a position, of one state and type or of all."""
