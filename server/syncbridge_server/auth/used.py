"""Tokens that a device has used, so that revoking the device revokes them, too.

A token without `device_id` does not identify the device that holds it, and a thief may name
another. So each node remembers the logins and tokens that each device presented, and revokes them
with the device. Tokens bound to a device need no memory. A restart forgets; devices that reconnect
are noted again.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Literal

from syncbridge.identity import Identity

MOST_DEVICES = 65_536
MOST_TOKENS = 16

Named = tuple[Literal["family", "jti"], str]


class UsedTokens:
    """Bounded: the least recent devices, and the oldest tokens of a device, are dropped.

    Most devices use one token at a time, so theirs are a flat tuple: kind, value, kind, value...
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def note(self, identity: Identity, device_id: str) -> None:
        """A device has presented a valid token. O(tokens of the device)."""
        if not device_id or identity.device_id == device_id:
            return
        key = identity.user_id, device_id
        kind, value = ("family", identity.family) if identity.family else ("jti", identity.jti)
        tokens = self._known.pop(key, ())
        if not tokens and len(self._known) >= MOST_DEVICES:
            del self._known[next(iter(self._known))]
        if tokens[-2:] != (kind, value):
            others = [named for named in _pairs(tokens) if named != (kind, value)]
            tokens = (*chain(*others[1 - MOST_TOKENS :]), kind, value)
        self._known[key] = tokens

    def of(self, device_id: str, user_id: str = "") -> Iterator[Named]:
        """Tokens that a device has used; without a user, of every user, in O(devices)."""
        if user_id:
            yield from _pairs(self._known.get((user_id, device_id), ()))
            return
        for (_, device), tokens in self._known.items():
            if device == device_id:
                yield from _pairs(tokens)


def _pairs(tokens: tuple[str, ...]) -> Iterator[Named]:
    for kind, value in zip(tokens[::2], tokens[1::2], strict=True):
        yield ("family" if kind == "family" else "jti"), value
