"""Recordings that can be fetched. Their addresses are secrets: who has one needs no other key.

So they are not in a channel's record, which travels, nor in what sockets are told; they are kept
apart, a bounded number for a bounded time, and shown to services and admins who ask.
"""

import re

import msgspec

_ADDRESS = re.compile(r"https?://[^\s/?#\\\x00-\x1f\x7f]+[^\s\x00-\x1f\x7f]*", re.IGNORECASE)
NO_ADDRESS = "the address of a recording is neither http nor https"
"""Why a webhook that tells of another one cannot be read."""


def is_address(url: str) -> bool:
    """Whether this is an http or https URL with a host: what may be shown as a link. Others, such
    as `javascript:` and `file:`, would do something else where somebody follows them."""
    return _ADDRESS.fullmatch(url) is not None


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recording, or a `kind` of text about a call. `duration` in seconds; times in Unix ms.

    `expires_at`: from then on the address is worth nothing; 0: not told.
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
