"""Names of keys and channels in Redis: of format 2, and of format 1 for moving.

docs/decisions/0009-the-layout-of-redis.md says what they hold.
"""

from functools import lru_cache

from syncbridge.slots import TAGS, bucket_of, session_key

OTHERS = "dkjcozw"
"""Letters of the keys that a session may have besides `m`."""

OLD_LETTERS = "mdkipvojz"
NEW_LETTERS = "mdkjcoz"
"""The keys of `move.lua`, in its order."""


@lru_cache(4_096)
def meta_key(sid: str) -> str:
    """The key that a script makes the session's others from."""
    return session_key(sid, "m")


def session_keys(sid: str, letters: str) -> tuple[str, ...]:
    """Keys of a session."""
    own = meta_key(sid)[:-1]
    return tuple([own + letter for letter in letters])


@lru_cache(1_024)
def every_key(sid: str) -> tuple[str, ...]:
    """All keys that a session may have, `m` first, as a cluster requires."""
    return session_keys(sid, "m" + OTHERS)


def handoff_key(sid: str, digest: str = "") -> str:
    """The key of a handoff token; without a digest, the key of the list of tokens."""
    key = "h" + meta_key(sid)[1:-2]
    return f"{key}:{digest}" if digest else key


def held_list(bucket: int, node: str) -> str:
    """The key of the list of a node's sessions in a bucket."""
    return f"ns:{{{TAGS[bucket]}}}:{node}"


def held_key(sid: str, node: str) -> str:
    """The key of the list of a node's sessions that contains a session."""
    return held_list(bucket_of(sid), node)


def old_meta_key(sid: str) -> str:
    """The meta key of format 1."""
    return f"s:{{{sid}}}:m"


def moved_keys(sid: str) -> tuple[str, ...]:
    """The keys of `move.lua`."""
    old = tuple([f"s:{{{sid}}}:{letter}" for letter in OLD_LETTERS])
    return (*old, *session_keys(sid, NEW_LETTERS))
