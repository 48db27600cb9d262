"""What the server asks the store about recordings that can be fetched."""

from collections.abc import Awaitable
from typing import Protocol

from syncbridge.voice.recordings import Recorded


class Recordings(Protocol):
    """What is kept of them. Every method raises StoreError."""

    def add(self, channel_id: str, recorded: Recorded) -> Awaitable[bool]:
        """Keep a recording, in the place of what was known of it. False: it was known."""

    def keep_text(self, channel_id: str, recording_id: str, text: bytes) -> Awaitable[None]:
        """Keep what a transcript or a summary says, as long as recordings are kept."""

    def text(self, channel_id: str, recording_id: str) -> Awaitable[bytes | None]:
        """What it says; None: it is not kept."""

    def of_channel(self, channel_id: str) -> Awaitable[list[Recorded]]:
        """Those of a channel, the latest first."""
