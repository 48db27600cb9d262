"""Names of a channel: its key here, and its name at a provider.

Theory of operation. A channel is a waddle and an id. Stores, locks, indexes and news know it by its
*key*, one text for both. The waddle that first opened an id has the id itself as its key, as in
versions in which a channel was an id: their records keep their keys, and during a rolling upgrade
old and new nodes agree on them. Each further waddle has a *qualified* key; to earlier versions that
is an id like any other. The store remembers which form a waddle has (`ChannelNames`). An id that
looks like a qualified key never is a key itself, so no waddle can take another's.

A provider's room names have a small alphabet and a maximum length, and become part of titles,
headers and paths. A plain key is used as it is, so that operators recognize it; any other is
replaced by a digest. A plain key that looks like a digest is replaced too, so two channels never
share a name.
"""

import hashlib
import re

MARK = "%"
"""First character of a qualified key."""
END = "/"
"""Ends the waddle in a qualified key; the id follows."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"x-[0-9a-f]{32}")


def qualified_key(waddle_id: str, channel_id: str) -> str:
    """The key of a channel in a waddle that does not own the id: `%<waddle>/<id>`. O(bytes)."""
    waddle = waddle_id.replace(MARK, "%25").replace(END, "%2F")
    return f"{MARK}{waddle}{END}{channel_id}"


def waddle_of(key: str) -> str | None:
    """The waddle that a qualified key names; None for the key of the id's owner. O(bytes)."""
    waddle, end, channel_id = key[1:].partition(END)
    if not key.startswith(MARK) or not (waddle and end and channel_id):
        return None
    return waddle.replace("%2F", END).replace("%25", MARK)


def id_of_key(key: str) -> str:
    """The channel id of a key. O(bytes)."""
    return key if waddle_of(key) is None else key.partition(END)[2]


def may_be_plain(channel_id: str) -> bool:
    """Whether an id can be a key by itself. O(bytes)."""
    return waddle_of(channel_id) is None


def provider_name(key: str) -> str:
    """1 to 64 letters, digits, `_` and `-`; the same for the same key. O(bytes)."""
    if _PLAIN.fullmatch(key) and not _DIGEST.fullmatch(key):
        return key
    return f"x-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
