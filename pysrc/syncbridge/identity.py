"""The identity of a caller, and its access rights. Pure rules over a verified token's claims.

`authorize` is the one rule: every HTTP route, AUTH, its renewals and every other message on a
socket ask it. Whose a session is, only the store knows: its scripts compare the owner.
"""

from collections.abc import Collection
from enum import StrEnum

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError


class Role(StrEnum):
    """The role in a token.

    A viewer reads `/admin/*` and does nothing else. Each of the others includes the one before.
    """

    VIEWER = "viewer"
    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


CLIENTS = frozenset({Role.USER, Role.SERVICE, Role.ADMIN})
"""Roles with access to sessions and other data of users."""

SERVICES = frozenset({Role.SERVICE, Role.ADMIN})
"""Roles that act for all users."""

ADMINS = frozenset({Role.ADMIN})
ADMIN_READERS = frozenset({Role.VIEWER, Role.ADMIN})
ANYBODY = frozenset(Role)
NAME_BYTES = 256


class VoiceGrant(msgspec.Struct, frozen=True):
    """Permission for voice channels; `*` matches every waddle or channel."""

    waddle: str
    channel: str
    permissions: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True):
    """A verified access token. Times in Unix seconds.

    `session_id` and `device_id` bind it: it reaches no other session, and acts as no other device.
    `family` names the login that the token descends from: every token that a chain of refreshes
    made carries it, and revoking it revokes them all. Empty for a token outside of any chain.
    `name` is how others are shown who the user is; empty: not told.
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
    name: str = ""

    @property
    def privileged(self) -> bool:
        """True for the roles that reach the sessions of every user."""
        return self.role in SERVICES


def display_name(told: object) -> str:
    """A name as it can be shown: printable, of at most `NAME_BYTES` bytes; empty if it is none."""
    if not isinstance(told, str):
        return ""
    shown = "".join(letter for letter in told if letter.isprintable()).strip()
    return shown.encode()[:NAME_BYTES].decode(errors="ignore")


def authorize(
    identity: Identity,
    roles: Collection[Role] = CLIENTS,
    *,
    user_id: str = "",
    session_id: str | None = None,
    device_id: str | None = "",
) -> None:
    """Raise unless a token allows the request.

    Args:
        roles: who may ask for it at all.
        user_id: whose it is; empty: nobody's in particular.
        session_id: the only session that it is about; None: it is not about one session, so that
            a token bound to a session is refused.
        device_id: the device that it is done by or to; empty: none is named; None: it may concern
            any device, so that a token bound to a device is refused.

    Raises:
        SyncBridgeError: INSUFFICIENT_ROLE, WRONG_SESSION, WRONG_DEVICE or FORBIDDEN (another
            user), looked at in this order.
    """
    if identity.role not in roles:
        named = " or ".join(role for role in Role if role in roles)
        raise SyncBridgeError(ErrorCode.INSUFFICIENT_ROLE, f"role {named} is needed")
    if identity.session_id and session_id != identity.session_id:
        raise SyncBridgeError(
            ErrorCode.WRONG_SESSION, f"the token is for session {identity.session_id} only"
        )
    if identity.device_id and device_id not in ("", identity.device_id):
        raise SyncBridgeError(
            ErrorCode.WRONG_DEVICE, f"the token is for device {identity.device_id} only"
        )
    if user_id and user_id != identity.user_id and not identity.privileged:
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "this belongs to another user")
