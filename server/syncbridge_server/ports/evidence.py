"""What the server asks the store about the evidence of calls: beside the channels themselves.

A timeline is written with its channel (`Channels.write`). A user's calls are an index that is
written after the channel and may be behind: who reads it looks at each channel, and the comparison
with the provider mends it. Every method raises StoreError. Times are Unix ms.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from syncbridge.voice.timeline import TimelineEntry
from syncbridge.voice.verification import Unverified


class CallEvidence(Protocol):
    """Timelines, calls of users, and what could not be verified."""

    def timeline(
        self, channel_id: str, limit: int, before: str = "", user_id: str = ""
    ) -> Awaitable[tuple[list[tuple[str, TimelineEntry]], str]]:
        """Entries of a channel with their places, the latest first, and where the next page begins
        (empty: nowhere).

        Args:
            before: a place, at which the page before ended. user_id: entries about this user and
                about the whole call; empty: all.
        """

    def note_calls(self, calls: Sequence[tuple[str, str, int]]) -> Awaitable[None]:
        """(user, channel, ms): a user was in the call of a channel, or has just left it, then."""

    def calls_of(self, user_id: str) -> Awaitable[list[tuple[str, int]]]:
        """Channels in whose calls a user was, and when at the latest, the latest first."""

    def forget_calls(self, user_id: str, channel_ids: Sequence[str]) -> Awaitable[None]:
        """These channels are not among a user's calls."""

    def note_unverified(self, found: Mapping[str, Unverified]) -> Awaitable[None]:
        """What the latest comparison could not verify, by channel; it replaces what was noted."""

    def unverified(self, channel_id: str) -> Awaitable[Unverified | None]:
        """What is noted of a channel."""

    def all_unverified(self) -> Awaitable[dict[str, Unverified]]:
        """What is noted of all channels."""
