"""One-time codes that open the dashboard without pasting a token.

A code is in the fragment of a URL, which browsers never send. Redis holds only its SHA-256, for
`LIFE` seconds; it is exchanged once, atomically, for a token pair. 128 random bits cannot be
guessed, so attempts are not limited.
"""

import hashlib
import re
import secrets

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Role
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.refresh import RefreshRotation, TokenPair
from syncbridge_server.ports.store import RedisCommands

LIFE = 600
PAGE = "/admin/"
_CODE = re.compile(r"[\w-]{22}", re.ASCII)


class _Kept(msgspec.Struct):
    """The value in Redis under the digest of a code."""

    user_id: str
    role: Role


def new_code() -> str:
    """128 random bits, as 22 URL-safe characters."""
    return secrets.token_urlsafe(16)


def address(code: str, base: str = "") -> str:
    """The URL for a code. `base`: URL of the server."""
    return f"{base}{PAGE}#code={code}"


async def keep_code(commands: RedisCommands, code: str, user_id: str, role: Role) -> None:
    """Store a code that opens the dashboard for a user once. Raises StoreError."""
    kept = msgspec.json.encode(_Kept(user_id, role))
    await commands.execute("SET", _key(code), kept, "EX", LIFE)


def _key(code: str) -> str:
    return f"sb:link:{hashlib.sha256(code.encode()).hexdigest()}"


class Links:
    """Stores and exchanges codes."""

    def __init__(self, commands: RedisCommands, rotation: RefreshRotation) -> None:
        self._commands = commands
        self._rotation = rotation

    async def keep(self, code: str, user_id: str, role: Role) -> None:
        """As `keep_code`."""
        await keep_code(self._commands, code, user_id, role)

    async def take(self, code: str) -> tuple[TokenPair, str]:
        """Exchange a code for tokens and their user; the code is used up.

        Raises TOKEN_INVALID for an unknown, used or expired code; UNSUPPORTED if tokens are issued
        elsewhere; StoreError.
        """
        found = None
        if _CODE.fullmatch(code):
            found = await self._commands.execute("GETDEL", _key(code))
        if found is None:
            raise SyncBridgeError(
                ErrorCode.TOKEN_INVALID,
                "code: it is unknown, was used, or is older than ten minutes;"
                " `syncbridge admin-link` prints another",
            )
        kept = msgspec.json.decode(found, type=_Kept)
        return await self._rotation.issue(Grant(kept.user_id, kept.role)), kept.user_id
