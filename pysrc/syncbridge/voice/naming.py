"""The name of a channel at a provider, whose room names have a small alphabet and a maximum length.

The name becomes part of titles, headers and paths. A plain id is used as it is, so that operators
recognize it; any other id is replaced by a digest. A plain id that looks like a digest is replaced
too, so two channels never share a name.
"""

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"x-[0-9a-f]{32}")


def provider_name(channel_id: str) -> str:
    """1 to 64 letters, digits, `_` and `-`; the same for the same id. O(bytes)."""
    if _PLAIN.fullmatch(channel_id) and not _DIGEST.fullmatch(channel_id):
        return channel_id
    return f"x-{hashlib.sha256(channel_id.encode()).hexdigest()[:32]}"
