"""Recordings that can be fetched. Their addresses are secrets: who has one needs no other key.

So they are not in a channel's record, which travels, nor in what sockets are told; they are kept
apart, a bounded number for a bounded time, and shown to services and admins who ask.
"""

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
