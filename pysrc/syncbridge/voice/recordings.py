"""Recordings that can be fetched. Their addresses are secrets: who has one needs no other key.

So they are not in a channel's record, which travels, nor in what sockets are told; they are kept
apart, a bounded number for a bounded time, and shown to services and admins who ask.
"""

from collections.abc import Awaitable
from typing import Protocol

import msgspec


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recording. `duration` in seconds; `ready_at` Unix ms."""

    recording_id: str
    session_id: str
    ready_at: int
    url: str = ""
    duration: float | None = None

    def __repr__(self) -> str:
        return f"Recorded(recording_id={self.recording_id!r})"


class Recordings(Protocol):
    """What is kept of them. Every method raises StoreError."""

    def add(self, channel_id: str, recorded: Recorded) -> Awaitable[bool]:
        """Keep a recording, in the place of what was known of it. False: it was known."""

    def of_channel(self, channel_id: str) -> Awaitable[list[Recorded]]:
        """Those of a channel, the latest first."""
