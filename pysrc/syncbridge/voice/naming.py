"""What a channel is called at a provider, whose names of rooms have a small alphabet and a bound.

The name becomes part of titles, headers and paths. A plain id stands for itself, so that an
operator finds it; every other one is called by a digest. No plain id looks like a digest, so two
channels never have one name.
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
