"""Which tokens a device has used, so that revoking the device takes them back as well.

A token without `device_id` says nothing of the device that holds it, and a thief may name another.
So each node remembers, for the devices that it has met, the logins and tokens they presented; when
a device is revoked, each node takes back those that it knows. What is bound to the device
needs no memory. A restart forgets; devices that connect again are met again.
"""

from collections.abc import Iterator
from typing import Literal

from syncbridge.identity import Identity

MOST_DEVICES = 65_536
MOST_TOKENS = 16

Named = tuple[Literal["family", "jti"], str]


class UsedTokens:
    """Bounded: the devices that were not met for longest, and their oldest tokens, make room."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[Named, None]] = {}

    def note(self, identity: Identity, device_id: str) -> None:
        """A device has presented a token that was good. O(1)."""
        if not device_id or identity.device_id == device_id:
            return
        key = identity.user_id, device_id
        tokens = self._known.pop(key, None)
        if tokens is None:
            tokens = {}
            if len(self._known) >= MOST_DEVICES:
                del self._known[next(iter(self._known))]
        self._known[key] = tokens
        named: Named = ("family", identity.family) if identity.family else ("jti", identity.jti)
        tokens.pop(named, None)
        if len(tokens) >= MOST_TOKENS:
            del tokens[next(iter(tokens))]
        tokens[named] = None

    def of(self, device_id: str, user_id: str = "") -> Iterator[Named]:
        """What a device has used; of every user when none is named. O(devices) then."""
        if user_id:
            yield from self._known.get((user_id, device_id), ())
            return
        for (_, device), tokens in self._known.items():
            if device == device_id:
                yield from tokens
