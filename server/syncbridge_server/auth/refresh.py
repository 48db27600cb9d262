"""Token pairs: issue, rotation, and revocation of the family on reuse.

A login is a family. For each family, Redis stores the `jti` of its current refresh token. Rotation
compares and replaces it in one script, so of two requests with the same token one wins. The other
may come from a thief, or from the user after a thief; these cannot be told apart, so the whole
family is revoked, including access tokens (RFC 9700 section 4.14.2).
"""

from collections.abc import Callable
from enum import IntEnum

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import ANYBODY, authorize
from syncbridge_server.auth.claims import Grant, invalid
from syncbridge_server.auth.revocation import Revocations
from syncbridge_server.auth.tokens import Tokens
from syncbridge_server.log import get_logger
from syncbridge_server.ports.store import RedisCommands

_log = get_logger("AUTH")


class TokenPair(msgspec.Struct, frozen=True):
    """The answer of POST /auth/token and POST /auth/refresh (RFC 6749 section 5.1)."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int
    token_type: str = "Bearer"  # noqa: S105


class FamilyStatus(IntEnum):
    """Statuses that refresh.lua returns."""

    UNKNOWN = 0
    OK = 1
    REUSED = 2
    ENDED = 3


class RefreshRotation:
    """Issues and rotates token pairs.

    Args:
        commands: Redis, for the families. clock: Unix seconds. prefix: prefix of Redis keys.
    """

    def __init__(
        self,
        tokens: Tokens,
        commands: RedisCommands,
        revocations: Revocations,
        clock: Callable[[], float],
        prefix: str = "sb:",
    ) -> None:
        self._tokens = tokens
        self._commands = commands
        self._revocations = revocations
        self._clock = clock
        self._prefix = prefix

    @property
    def issues(self) -> bool:
        """Whether this server signs tokens."""
        return self._tokens.signs

    async def issue(self, grant: Grant, ttl: float | None = None) -> TokenPair:
        """The first pair of a new family. `ttl`: life of the access token, seconds.

        Raises INVALID_FIELD for ids that a token must not have, and StoreError.
        """
        grant = grant._replace(family=self._tokens.new_id())
        pair, jti = self._pair(grant, ttl)
        await self._family(grant.family, "open", "", jti)
        return pair

    async def rotate(self, refresh_token: str, device_id: str = "") -> TokenPair:
        """Exchange a refresh token for a new pair with the same bindings.

        `device_id`: the device that presents it, if given. Raises WRONG_DEVICE, TOKEN_INVALID,
            TOKEN_EXPIRED, TOKEN_REVOKED, TOKEN_REUSED (and then the family is revoked), and
            StoreError. After StoreTimeout the token may have been used up.
        """
        claims = self._tokens.verify_refresh(refresh_token, self._clock())
        identity = claims.identity()
        self._revocations.require(identity, device_id)
        authorize(identity, ANYBODY, session_id=identity.session_id, device_id=device_id)
        pair, jti = self._pair(claims.grant(), None)
        status = await self._family(claims.fam, "rotate", claims.jti, jti)
        if status == FamilyStatus.OK:
            return pair
        if status == FamilyStatus.UNKNOWN:
            raise invalid("its login is no longer known")
        await self._revocations.revoke("family", claims.fam, must=True)
        if status == FamilyStatus.ENDED:
            raise SyncBridgeError(ErrorCode.TOKEN_REVOKED, "this login was revoked")
        _log.warning("refresh_token_reused", user_id=claims.sub)
        raise SyncBridgeError(
            ErrorCode.TOKEN_REUSED, "this refresh token was used before; the login is revoked"
        )

    def _pair(self, grant: Grant, ttl: float | None) -> tuple[TokenPair, str]:
        now = self._clock()
        access, access_claims = self._tokens.mint_access(grant, now, ttl)
        refresh, refresh_claims = self._tokens.mint_refresh(grant, now)
        pair = TokenPair(
            access,
            refresh,
            int(access_claims.exp - access_claims.iat),
            int(refresh_claims.exp - refresh_claims.iat),
        )
        return pair, refresh_claims.jti

    async def _family(self, family: str, action: str, spent: str, current: str) -> FamilyStatus:
        rules = self._tokens.rules
        life = int((rules.refresh_ttl + rules.leeway) * 1000) + 1_000
        key = f"{self._prefix}family:{{{family}}}"
        answer = await self._commands.script("refresh", [key], [action, spent, current, life])
        return FamilyStatus(int(answer))
