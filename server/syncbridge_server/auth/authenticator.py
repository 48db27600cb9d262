"""Turns a token into an `Identity`, or refuses it, for HTTP and sockets alike."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

from syncbridge.identity import Identity
from syncbridge_server.auth.revocation import Revocations
from syncbridge_server.auth.tokens import KeyNotKnown, Tokens

if TYPE_CHECKING:
    from syncbridge_server.auth.jwks import JwksKeys


class Authenticator:
    """Signature, claims, times and revocation of access tokens.

    Args:
        keys: key sets to refresh. clock: Unix seconds.
    """

    def __init__(
        self,
        tokens: Tokens,
        revocations: Revocations,
        keys: "Iterable[JwksKeys]" = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tokens = tokens
        self.revocations = revocations
        self._keys = tuple(keys)
        self._clock = clock

    def verify(self, token: str, device_id: str = "") -> Identity:
        """The holder of a token; never waits. `device_id`: the device that presents it; a revoked
        device is refused even if its token names none. Raises TOKEN_INVALID, TOKEN_EXPIRED,
        TOKEN_REVOKED, StoreUnavailable, and KeyNotKnown: then `authenticate` may succeed.
        """
        identity = self.tokens.verify_access(token, self._clock())
        self.revocations.require(identity, device_id)
        if device_id:
            self.revocations.used.note(identity, device_id)
        return identity

    async def authenticate(self, token: str, device_id: str = "") -> Identity:
        """As `verify`, but for an unknown key first reads the issuer's keys again."""
        try:
            return self.verify(token, device_id)
        except KeyNotKnown as error:
            source = error.source
            if source is None:
                raise
        await source.refresh()
        return self.verify(token, device_id)

    async def run(self) -> None:
        """Keep revocations and keys fresh, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.revocations.run)
            for keys in self._keys:
                nursery.start_soon(keys.run)
