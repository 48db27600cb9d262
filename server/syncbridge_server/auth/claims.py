"""Claims of tokens: those of our own, and the mapping for other issuers.

Our own tokens have the claims of `Claims`, each checked for its type. Tokens of another issuer are
read through a `ClaimMapping`: it names, by JSON pointer (RFC 6901), the claims for user, role,
device and session. Other claims are ignored: another issuer's `role` or `session_id` may mean
something else.
"""

import hashlib
from sys import intern
from typing import Any, NamedTuple

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, Role, VoiceGrant, display_name

ACCESS = "access"
REFRESH = "refresh"
_ACCESS_KINDS = frozenset({"access", "bearer", "jwt", "at+jwt"})
"""Values of `typ` (Keycloak) and `token_use` (Cognito) that mark an access token."""
_RANK = (Role.ADMIN, Role.SERVICE, Role.USER, Role.VIEWER)
"""If a token has several roles, the first of these counts."""


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """The payload of a token (RFC 7519 section 4.1 and our own). Times in Unix seconds."""

    sub: str
    role: Role
    typ: str
    jti: str
    iat: float
    exp: float
    session_id: str = ""
    device_id: str = ""
    voice: tuple[VoiceGrant, ...] = ()
    fam: str = ""
    name: object = ""
    nbf: float = 0.0
    iss: str = ""
    aud: str | tuple[str, ...] = ""

    def identity(self) -> Identity:
        """The holder's identity."""
        return Identity(
            user_id=intern(self.sub),
            role=self.role,
            jti=self.jti,
            issued_at=self.iat,
            expires_at=self.exp,
            session_id=intern(self.session_id),
            device_id=self.device_id,
            voice=self.voice,
            family=self.fam,
            name=display_name(self.name),
        )

    def grant(self) -> "Grant":
        """The grant for a successor of this token."""
        return Grant(
            self.sub,
            self.role,
            self.session_id,
            self.device_id,
            self.voice,
            self.fam,
            display_name(self.name),
        )


class Grant(NamedTuple):
    """The claims of a new token about its holder."""

    user_id: str
    role: Role = Role.USER
    session_id: str = ""
    device_id: str = ""
    voice: tuple[VoiceGrant, ...] = ()
    family: str = ""
    name: str = ""


def invalid(reason: str) -> SyncBridgeError:
    """TOKEN_INVALID with a reason that does not quote the token."""
    return SyncBridgeError(ErrorCode.TOKEN_INVALID, f"token refused: {reason}")


Pointer = tuple[str, ...]


def parse_pointer(text: str) -> Pointer:
    """The steps of a JSON pointer; text without a leading slash is the name of one claim."""
    if not text.startswith("/"):
        return (text,) if text else ()
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/"))


class ClaimMapping(NamedTuple):
    """Where another issuer's token has our claims; `()`: nowhere.

    Attributes:
        default_role: role of a token that names none of ours; None: it is refused. id_bytes: a
            longer `jti` is replaced by a derived one.
    """

    user: Pointer = ("sub",)
    role: Pointer = ()
    device: Pointer = ()
    session: Pointer = ()
    voice: Pointer = ()
    family: Pointer = ()
    default_role: Role | None = Role.USER
    id_bytes: int = 64

    def read(self, payload: bytes) -> Claims:
        """The claims of a signed payload. Raises TOKEN_INVALID, naming the claim."""
        document = _document(payload)
        for name in ("typ", "token_use"):
            if str(document.get(name, ACCESS)).lower() not in _ACCESS_KINDS:
                raise invalid(f"it is not an access token (claim {name})")
        known = {
            "sub": self._text(document, self.user),
            "role": self._role(document),
            "typ": ACCESS,
            "jti": _token_id(document, payload, self.id_bytes),
            "session_id": self._text(document, self.session),
            "device_id": self._text(document, self.device),
            "voice": _found(document, self.voice) or (),
            "fam": self._text(document, self.family),
            "aud": document.get("aud", document.get("client_id", "")),
            "name": document.get("name", ""),
        }
        known |= {name: document[name] for name in ("iat", "exp", "nbf", "iss") if name in document}
        return msgspec.convert(known, Claims)

    def _text(self, document: Any, pointer: Pointer) -> str:
        value = _found(document, pointer)
        if value is not None and not isinstance(value, str):
            raise invalid(f"claim {'/'.join(pointer)} must be text")
        return value or ""

    def _role(self, document: Any) -> Role:
        """The role in the mapped claim, which may be a list with other names."""
        value = _found(document, self.role)
        named = value if isinstance(value, list) else [value]
        role = next((role for role in _RANK if role in named), self.default_role)
        if role is None:
            raise invalid("it names no known role")
        return role


def _document(payload: bytes) -> dict[str, Any]:
    document = msgspec.json.decode(payload)
    if not isinstance(document, dict):
        raise invalid("its payload is not a JSON object")
    return document


def _found(value: Any, pointer: Pointer) -> Any:
    """The value at a pointer; None if there is none, and for the pointer `()`."""
    if not pointer:
        return None
    for step in pointer:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 4:
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def _token_id(document: dict[str, Any], payload: bytes, most: int) -> str:
    """The issuer's `jti`, or a digest of the signed part: an ES256 signature has two spellings."""
    jti = document.get("jti")
    if isinstance(jti, str) and jti.isprintable() and 0 < len(jti.encode()) <= most:
        return jti
    return hashlib.sha256(payload).hexdigest()[:32]
