"""Validation of ids that clients choose, and the default session of a user."""

import re
import uuid

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice.naming import id_of_key, waddle_of

USER_SESSIONS = uuid.UUID("6f1f3a52-5d0e-5c0b-9b1e-7d6f0a6f5a11")
"""Namespace of the UUIDv5 that names a user's own session (RFC 9562 section 5.5)."""

CHANNEL_BYTES = 256
"""Longest id of a voice channel, or of its waddle."""
_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters (category Cc), and halves of surrogate pairs."""


def session_id(text: str, field: str = "session_id") -> str:
    """Canonical UUID text.

    Only UUIDs are accepted, because the id becomes part of Redis keys.

    Raises:
        SyncBridgeError: INVALID_FIELD naming `field` for anything else.
    """
    if _CANONICAL.fullmatch(text):
        return text
    try:
        if len(text) > 45:
            raise ValueError
        return str(uuid.UUID(text))
    except ValueError:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, f"{field}: expected a UUID", field=field
        ) from None


def channel_id(name: str, text: str) -> str:
    """An id of a voice channel or a waddle: any text of 1 to 256 bytes without control characters.

    Compared by code points: two spellings of a letter are two ids.

    Raises:
        SyncBridgeError: INVALID_FIELD naming `name`.
    """
    if text and not _UNFIT.search(text) and len(text.encode()) <= CHANNEL_BYTES:
        return text
    raise SyncBridgeError(
        ErrorCode.INVALID_FIELD,
        f"{name}: 1 to {CHANNEL_BYTES} bytes of UTF-8 without control characters are expected",
        field=name,
    )


def channel_key(name: str, text: str) -> str:
    """The key of a voice channel: an id, or an id and its waddle (`syncbridge.voice.naming`).

    Raises:
        SyncBridgeError: INVALID_FIELD naming `name`.
    """
    for one in (id_of_key(text), waddle_of(text)):
        if one is not None:
            channel_id(name, one)
    return text


def default_session(user_id: str) -> str:
    """The default session of a user: UUIDv5 of the user id."""
    return str(uuid.uuid5(USER_SESSIONS, user_id))


def is_short_id(text: str, limit: int = 64) -> bool:
    """Whether a text is an id as `short_id` takes it. O(characters)."""
    return text.isprintable() and 0 < len(text.encode()) <= limit


def short_id(name: str, text: str, limit: int = 64) -> str:
    """A device, user or correlation id: 1 to `limit` bytes of UTF-8 without control characters.

    Raises:
        SyncBridgeError: INVALID_FIELD naming `name`.
    """
    if is_short_id(text, limit):
        return text
    raise SyncBridgeError(
        ErrorCode.INVALID_FIELD,
        f"{name}: 1 to {limit} bytes of printable text are expected",
        field=name,
    )
