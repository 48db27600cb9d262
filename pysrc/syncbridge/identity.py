"""Who is calling, and what they may reach. Pure rules over a verified token's claims."""

from enum import StrEnum

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError


class Role(StrEnum):
    """What a token lets its holder do; each role includes the one before."""

    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


class VoiceGrant(msgspec.Struct, frozen=True):
    """Permission for voice channels; `*` matches every waddle or channel."""

    waddle: str
    channel: str
    permissions: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True):
    """A verified access token. Times in Unix seconds.

    `family` names the login that the token descends from: every token that a chain of refreshes
    made carries it, and revoking it revokes them all. Empty for a token outside of any chain.
    """

    user_id: str
    role: Role
    jti: str
    issued_at: float
    expires_at: float
    session_id: str = ""
    device_id: str = ""
    voice: tuple[VoiceGrant, ...] = ()
    family: str = ""

    @property
    def privileged(self) -> bool:
        """True for the roles that reach every session."""
        return self.role is not Role.USER

    def require(self, role: Role) -> None:
        """Raise FORBIDDEN unless this identity has `role` or more."""
        order = (Role.USER, Role.SERVICE, Role.ADMIN)
        if order.index(self.role) < order.index(role):
            raise SyncBridgeError(ErrorCode.FORBIDDEN, f"role {role} is needed")

    def require_owner(self, owner: str) -> None:
        """Raise FORBIDDEN unless this identity may reach a session of `owner`."""
        if not self.privileged and owner != self.user_id:
            raise SyncBridgeError(ErrorCode.FORBIDDEN, "this session belongs to another user")
