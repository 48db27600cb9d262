"""A token in, an `Identity` out, or the reason why not: the one door for HTTP and sockets."""

import time
from collections.abc import Callable

import trio

from syncbridge.identity import Identity
from syncbridge_server.auth.jwks import JwksKeys
from syncbridge_server.auth.revocation import Revocations
from syncbridge_server.auth.tokens import KeyNotKnown, Tokens


class Authenticator:
    """Signature, claims, times and revocation of access tokens.

    Args:
        keys: the issuer's key set, when there is one. clock: Unix seconds.
    """

    def __init__(
        self,
        tokens: Tokens,
        revocations: Revocations,
        keys: JwksKeys | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tokens = tokens
        self.revocations = revocations
        self._keys = keys
        self._clock = clock

    def verify(self, token: str, device_id: str = "") -> Identity:
        """Who holds this token; never waits.

        `device_id`: the device that presents it, so that a revoked device is refused although its
        token names none. Raises TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED, StoreUnavailable,
        and KeyNotKnown: then `authenticate` may succeed.
        """
        identity = self.tokens.verify_access(token, self._clock())
        self.revocations.require(identity, device_id)
        return identity

    async def authenticate(self, token: str, device_id: str = "") -> Identity:
        """As `verify`; a token with an unknown key makes the key set be read again first."""
        try:
            return self.verify(token, device_id)
        except KeyNotKnown:
            if self._keys is None:
                raise
        await self._keys.refresh()
        return self.verify(token, device_id)

    async def run(self) -> None:
        """Keep revocations and keys fresh, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.revocations.run)
            if self._keys is not None:
                nursery.start_soon(self._keys.run)
