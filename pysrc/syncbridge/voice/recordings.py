"""Recordings that can be downloaded. Their URLs are secrets: a URL alone gives access.

So the URLs are neither in a channel's record, which is published, nor in messages to sockets. They
are stored separately, a bounded number for a bounded time, and shown only to services and admins.
"""

import re

import msgspec

_ADDRESS = re.compile(r"https?://[^\s/?#\\\x00-\x1f\x7f]+[^\s\x00-\x1f\x7f]*", re.IGNORECASE)
NO_ADDRESS = "the URL of a recording is neither http nor https"
"""Error of a webhook with any other URL."""


def is_address(url: str) -> bool:
    """Whether this is an http or https URL with a host, which may be shown as a link. Links with
    other schemes, such as `javascript:` and `file:`, would be dangerous."""
    return _ADDRESS.fullmatch(url) is not None


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recording, or a text of a `kind` about a call. `duration` in seconds; times in Unix ms.

    `expires_at`: expiry of the URL; 0: unknown.
    """

    recording_id: str
    session_id: str
    ready_at: int
    url: str = ""
    duration: float | None = None
    kind: str = "recording"
    expires_at: int = 0

    def __repr__(self) -> str:
        return f"Recorded(recording_id={self.recording_id!r})"
