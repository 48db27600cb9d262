"""Cursors that tell nobody what stands at the end of a page.

A page may end at something that its reader may not see, and the next one begins behind it. So the
cursor is encrypted (Fernet) with a key that all nodes derive from JWT_REFRESH_SECRET.
"""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from syncbridge.errors import ErrorCode, SyncBridgeError


class CursorSeal:
    """Seals and opens cursors. `secret`: the same on all nodes."""

    def __init__(self, secret: str) -> None:
        key = hashlib.sha256(b"syncbridge cursor\0" + secret.encode()).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, place: str) -> str:
        """The cursor of a place; empty for none. O(bytes)."""
        return self._fernet.encrypt(place.encode()).decode() if place else ""

    def open(self, cursor: str) -> str:
        """The place of a cursor. Raises INVALID_FIELD for one that was not sealed here. O(bytes)"""
        try:
            return self._fernet.decrypt(cursor.encode()).decode() if cursor else ""
        except (InvalidToken, UnicodeError):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD, "cursor: nextCursor of a page is expected", field="cursor"
            ) from None
